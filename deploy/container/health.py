"""The health check of a container: asks the service in it over mutual TLS, with the service's own certificate.

    python -I -m deploy.container.health auth 50051

A check runs every few seconds in every container, and gRPC would make it cost four times as much (0.18 s of CPU
instead of 0.05). So this is the one call `grpc.health.v1.Health/Check` in HTTP/2 (RFC 9113) by hand.
"""

from __future__ import annotations

import argparse
import socket
import ssl
import struct
import sys
from pathlib import Path
from typing import BinaryIO, Final

SECRETS: Final = Path("/run/secrets/parley")
TIMEOUT_S: Final = 3.0

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0x0, 0x1, 0x4
_END_STREAM, _END_HEADERS = 0x1, 0x4
_STREAM: Final = 1
_HEAD_BYTES: Final = 9
_FRAMES_MAX: Final = 32  # an answer takes about six
_FRAME_BYTES_MAX: Final = 16_384  # RFC 9113, 4.2: nobody may send more unless asked to
# A gRPC message: not compressed, no bytes. HealthCheckRequest without a service asks for the server as a whole.
_REQUEST: Final = b"\x00" + struct.pack(">I", 0)
# HealthCheckResponse{status: SERVING}: field 1, varint 1.
_SERVING: Final = b"\x00" + struct.pack(">I", 2) + b"\x08\x01"


def is_serving(service: str, port: int, *, secrets: Path = SECRETS, timeout_s: float = TIMEOUT_S) -> bool:
    """Whether the service answers SERVING. Raises OSError (ssl.SSLError too) where it cannot be asked."""
    context = ssl.create_default_context(cafile=str(secrets / "ca.pem"))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(secrets / "certificate.pem", secrets / "key.pem")
    context.set_alpn_protocols(["h2"])
    name = f"{service}.parley.internal"
    with (
        socket.create_connection(("127.0.0.1", port), timeout_s) as plain,
        context.wrap_socket(plain, server_hostname=name) as connection,
    ):
        connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, b"") + _call(name))
        with connection.makefile("rb") as stream:
            for _ in range(_FRAMES_MAX):
                kind, flags, payload = _read_frame(stream)
                if kind == _DATA:
                    return payload == _SERVING
                if kind == _HEADERS and flags & _END_STREAM:  # an error, which has no message
                    return False
    return False


def _call(authority: str) -> bytes:
    headers = {
        ":method": "POST",
        ":scheme": "https",
        ":path": "/grpc.health.v1.Health/Check",
        ":authority": authority,
        "te": "trailers",
        "content-type": "application/grpc",
    }
    block = b"".join(_literal(name) + _literal(value, prefix=b"") for name, value in headers.items())
    return _frame(_HEADERS, _END_HEADERS, _STREAM, block) + _frame(_DATA, _END_STREAM, _STREAM, _REQUEST)


def _literal(text: str, *, prefix: bytes = b"\x00") -> bytes:
    """A string of HPACK (RFC 7541, 6.2.2): a literal that is not indexed; shorter than 127, so one byte of length."""
    return prefix + bytes([len(text)]) + text.encode("ascii")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _read_frame(stream: BinaryIO) -> tuple[int, int, bytes]:
    """The next frame's kind, flags and payload."""
    head = stream.read(_HEAD_BYTES)
    length = int.from_bytes(head[:3], "big")
    if len(head) < _HEAD_BYTES or length > _FRAME_BYTES_MAX:
        raise ConnectionError("no answer of HTTP/2")
    return head[3], head[4], stream.read(length)


def main(argv: list[str] | None = None) -> int:
    """0 when the service serves, else 1 with the reason."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("service")
    parser.add_argument("port", type=int)
    parser.add_argument("--secrets", type=Path, default=SECRETS, metavar="DIR", help="default: %(default)s")
    options = parser.parse_args(argv)
    try:
        serving = is_serving(options.service, options.port, secrets=options.secrets)
    except OSError as error:
        print(f"{options.service}: {error}")
        return 1
    print(f"{options.service}: {'serving' if serving else 'not serving'}")
    return 0 if serving else 1


if __name__ == "__main__":
    sys.exit(main())
