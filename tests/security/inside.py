"""Inside: what only somebody on the server's own machine sees: gRPC identities, files, logs and stores."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import stat
import tempfile
from pathlib import Path
from typing import Any

import grpc

from tests.helpers.certificates import DAY, load_authority, make_certificate
from tests.helpers.raw_client import pack
from tests.helpers.rpc_matrix import ALLOWED, EVERYBODY, Method, call, channel, methods_of, open_channel
from tests.security.attempt import PASSWORD, Attempt, Check, NotApplicableError, demand, fresh

_STRANGERS = ("nobody", "server", "stranger as edge", "stranger as admin/local")
_CALL_S = 10.0
_WRONG = b"canary-Wrong-3b90f2"
_TEXT = "canary-Text-d14c77"


def _home(attempt: Attempt) -> Path:
    if attempt.target.home is None:
        raise NotApplicableError("needs --home: the stack runs elsewhere")
    return attempt.target.home


def _stack(attempt: Attempt) -> list[dict[str, Any]]:
    processes: list[dict[str, Any]] = json.loads((_home(attempt) / "run" / "stack.json").read_text())["processes"]
    return processes


async def check_grpc_identities(attempt: Attempt) -> str:
    """Every method of every process, by every identity that is not on the list; and an operator's calls."""
    home, refused = _home(attempt), 0
    for process in _stack(attempt):
        address = process["grpc"]
        for service, methods in (await asyncio.to_thread(methods_of, home, address)).items():
            allowed = ALLOWED.get(service, set())
            for caller in sorted(EVERYBODY - allowed):
                for method in methods:
                    status, code = await asyncio.to_thread(_try, home, address, caller, method)
                    demand(status is grpc.StatusCode.PERMISSION_DENIED, f"{caller} calls {method[0]}: {status} {code}")
                    refused += 1
            for caller in _STRANGERS:
                status, code = await asyncio.to_thread(_try, home, address, caller, methods[0])
                demand(status is grpc.StatusCode.UNAVAILABLE, f"{caller} calls {methods[0][0]}: {status} {code}")
                refused += 1
            if "admin" in allowed:
                status, code = await asyncio.to_thread(_try, home, address, "admin", methods[0])
                demand(code != "forbidden", f"an operator may not call {methods[0][0]}: {status} {code}")
    return f"{refused} calls refused, operators answered"


def _try(home: Path, address: str, caller: str, method: Method) -> tuple[grpc.StatusCode, str]:
    with channel(home, address, caller) as opened:
        return call(opened, method, _CALL_S)


async def check_grpc_transport(attempt: Attempt) -> str:
    """At each gRPC port: no TLS 1.2, no plain HTTP of either version, no identity that has expired."""
    home, ports = _home(attempt), 0
    ca = (home / "certificates" / "grpc-ca-cert.pem").read_bytes()
    with tempfile.TemporaryDirectory(prefix="parley-security-") as folder:
        authority = load_authority(
            home / "certificates" / "grpc-ca-cert.pem", home / "certificates" / "grpc-ca-key.pem"
        )
        certificate, key = make_certificate(
            Path(folder), authority, dns=["localhost"], uri="spiffe://parley/admin/local", valid=(-2 * DAY, -DAY / 24)
        )
        expired = grpc.ssl_channel_credentials(ca, key.read_bytes(), certificate.read_bytes())
        for process in _stack(attempt):
            port = int(process["grpc"].rpartition(":")[2])
            await asyncio.to_thread(_demand_no_old_tls, port)
            for greeting in (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"):
                answer = await asyncio.to_thread(_answer, port, greeting)
                demand(not answer.startswith(b"HTTP") and b"\x00\x00" not in answer[:3], f"{port}: {answer[:40]!r}")
            with open_channel(process["grpc"], expired) as opened:
                method: Method = ("/parley.process.v1.ProcessAdminService/GetProcess", False, False)
                status, _ = await asyncio.to_thread(call, opened, method, _CALL_S)
            demand(status is grpc.StatusCode.UNAVAILABLE, f"an expired certificate: {status}")
            ports += 1
    return f"{ports} ports: TLS 1.2, HTTP and an expired identity refused"


def _demand_no_old_tls(port: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", port), _CALL_S) as plain:
        try:
            context.wrap_socket(plain)
        except OSError:
            return
    demand(False, f"port {port} speaks TLS 1.2")


def _answer(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), _CALL_S) as plain:
        try:
            plain.sendall(data)
            return plain.recv(65_536)
        except OSError:
            return b""


async def check_private_files(attempt: Attempt) -> str:
    home = _home(attempt)
    keys = [*home.glob("certificates/*-key.pem"), *home.glob("data/*.db*"), *home.glob("data/*pepper*")]
    demand(keys, "no keys were found")
    for path in keys:
        mode = stat.S_IMODE(path.stat().st_mode)
        demand(not mode & 0o077, f"{path.name} has mode {mode:04o}")
    return f"{len(keys)} keys and databases, for their owner only"


def _holders(home: Path, needle: bytes) -> list[str]:
    return [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file() and needle in path.read_bytes()]


async def check_secrets_leave_no_trace(attempt: Attempt) -> str:
    """Canaries: passwords, right and wrong, a token and a text, used in every way and also wrongly."""
    home = _home(attempt)
    client = await attempt.person()
    room_id = (await client.expect("create_room", {"name": fresh()}))["room_id"]
    await client.say(room_id, _TEXT)
    demand((await client.request("logout"))["type"] == "success", "logout was refused")
    answer = await client.login(client.username, PASSWORD)
    token = str(answer["token"])
    wrong = await attempt.connect()
    for data in (
        {"username": client.username, "password": _WRONG.decode()},
        {"username": PASSWORD, "password": token},
        {"username": client.username, "password": [PASSWORD]},
    ):
        await wrong.request("auth_request", data)
    await wrong.request("resume", {"token": _WRONG.decode() * 3, "rooms": {}})
    await wrong.request(PASSWORD, {"token": token})
    await wrong.send_bytes(pack(PASSWORD.encode()))
    demand(await wrong.is_closed(), "a frame that is none is borne")
    for what, secret in (("password", PASSWORD.encode()), ("token", token.encode()), ("wrong password", _WRONG)):
        found = await asyncio.to_thread(_holders, home, secret)
        demand(not found, f"a {what} is in {found}")
    texts = await asyncio.to_thread(_holders, home, _TEXT.encode())
    demand(texts and all(name.startswith("data/rooms.db") for name in texts), f"a text is in {texts}")
    keys = [path for path in home.glob("certificates/*-key.pem") if path.is_file()]
    for path in keys:
        line = path.read_bytes().splitlines()[1]
        found = [name for name in await asyncio.to_thread(_holders, home, line) if name != f"certificates/{path.name}"]
        demand(not found, f"{path.name} is in {found}")
    return f"no password, no token and none of {len(keys)} keys in logs and stores; texts in their store alone"


CHECKS: dict[str, Check] = {
    "services refuse identities that are not on the list": check_grpc_identities,
    "services speak TLS 1.3 to living identities": check_grpc_transport,
    "keys and databases are for their owner": check_private_files,
    "secrets leave no trace": check_secrets_leave_no_trace,
}
