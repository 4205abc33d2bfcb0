"""Transport: TLS 1.3 and nothing else, with a certificate that is checked, and bounded patience before it."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import time

from tests.helpers import certificates
from tests.helpers.raw_client import encode, tls_context
from tests.security.attempt import Attempt, Check, NotApplicableError, demand

_HANDSHAKE_S = 5.0  # docs/protocol.md, 8
_PATIENCE_S = 20.0
_SCAN_S = 60.0


async def check_tls_1_3_is_spoken(attempt: Attempt) -> str:
    client = await attempt.connect()
    name, version, bits = client.writer.get_extra_info("cipher")
    demand(version == "TLSv1.3", f"{version} is spoken")
    return f"{name}, {bits} bits"


async def check_older_tls_is_refused(attempt: Attempt) -> str:
    target = attempt.target
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        _, writer = await asyncio.open_connection(target.host, target.port, ssl=context)
    except (ssl.SSLError, ConnectionError) as error:
        return f"handshake failed: {error.__class__.__name__}"
    writer.close()
    demand(False, "TLS 1.2 is spoken")
    return ""


async def _answer_to(attempt: Attempt, data: bytes) -> bytes:
    """What the port says to bytes that are not TLS, up to the end of the connection."""
    reader, writer = await asyncio.open_connection(attempt.target.host, attempt.target.port)
    try:
        writer.write(data)
        async with asyncio.timeout(_PATIENCE_S):
            return await reader.read(65_536)
    except ConnectionError:
        return b""
    except TimeoutError:
        demand(False, "the connection was kept")
        return b""
    finally:
        writer.close()


async def check_plain_text_is_refused(attempt: Attempt) -> str:
    answer = await _answer_to(attempt, encode({"type": "hello", "data": {"protocol": 2}}))
    demand(b"server_info" not in answer, "a frame without TLS was answered")
    return "closed without an answer"


async def check_http_is_refused(attempt: Attempt) -> str:
    answer = await _answer_to(attempt, b"GET / HTTP/1.1\r\nHost: parley\r\n\r\n")
    demand(not answer.startswith(b"HTTP"), "HTTP was answered")
    return "closed without an answer"


async def check_certificate_is_verified(attempt: Attempt) -> str:
    target = attempt.target
    for ca, name, what in (
        (str(certificates.foreign().client_ca), "localhost", "another authority"),
        (target.ca, "parley.invalid", "another name"),
    ):
        try:
            _, writer = await asyncio.open_connection(
                target.host, target.port, ssl=tls_context(ca), server_hostname=name
            )
        except ssl.SSLCertVerificationError:
            continue
        writer.close()
        demand(False, f"the certificate passes for {what}")
    return "only for its own authority and names"


async def check_stalled_handshake_is_cut(attempt: Attempt) -> str:
    reader, writer = await asyncio.open_connection(attempt.target.host, attempt.target.port)
    started = time.monotonic()
    try:
        writer.write(b"\x16\x03\x01")  # the beginning of a ClientHello
        async with asyncio.timeout(_PATIENCE_S):
            await reader.read()
    except TimeoutError:
        demand(False, f"still open after {_PATIENCE_S:g} s; the limit is {_HANDSHAKE_S:g} s")
    except ConnectionError:
        pass
    finally:
        writer.close()
    return f"after {time.monotonic() - started:.1f} s"


async def check_sslscan_finds_nothing(attempt: Attempt) -> str:
    program = shutil.which("sslscan")
    if program is None:
        raise NotApplicableError("sslscan is not installed")
    address = f"{attempt.target.host}:{attempt.target.port}"
    process = await asyncio.create_subprocess_exec(
        program, "--no-colour", address, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(_SCAN_S):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise NotApplicableError("sslscan did not end") from None
    lines = [line.split() for line in output.decode(errors="replace").splitlines()]
    enabled = [words[0] for words in lines if len(words) == 2 and words[1] == "enabled"]
    demand(enabled == ["TLSv1.3"], f"enabled: {enabled}")
    return "only TLSv1.3 is enabled"


CHECKS: dict[str, Check] = {
    "TLS 1.3 is spoken": check_tls_1_3_is_spoken,
    "TLS 1.2 is refused": check_older_tls_is_refused,
    "plain text is refused": check_plain_text_is_refused,
    "HTTP is refused": check_http_is_refused,
    "a wrong authority or name is noticed": check_certificate_is_verified,
    "a stalled handshake is cut off": check_stalled_handshake_is_cut,
    "sslscan finds one version": check_sslscan_finds_nothing,
}
