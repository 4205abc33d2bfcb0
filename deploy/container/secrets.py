"""Makes the certificates and passwords of a compose stack, and gives each container its own.

Runs once before everything else, and may run again at any time: what is there and good stays, what is about to expire
is made anew. The authorities' keys stay in the folder of certificates, which no service mounts. Every file appears
whole or not at all, in a folder that the container mounts, so that a service sees a renewed certificate at once.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from deploy.local import assertion_keys, certificates
from services.common.process import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SERVICES: Final = ("auth", "rooms", "edge", "metrics")
STRANGERS: Final = ("postgres", "redis", "otel-collector")
"""Servers that are not ours: certificates of an authority that no service takes for a service's."""

PASSWORDS: Final = ("postgres", "postgres-auth", "postgres-rooms", "redis")
OPERATOR: Final = "local"
_PASSWORD_BYTES: Final = 32
_OWN: Final = 0o600
# PostgreSQL and Redis run as other users. Nobody but them and this program mounts their folders.
_SHARED: Final = 0o644


@dataclass(frozen=True)
class Share:
    """A file as one container gets it."""

    content: bytes
    mode: int = _OWN


def make(home: Path, *, hosts: Sequence[str] = ()) -> dict[str, dict[str, Share]]:
    """What each container is to have: container -> file name -> content. Raises OSError, ValueError.

    `home` keeps the originals. `hosts` are the names and addresses by which clients reach the stack.
    """
    stack = certificates.ensure_stack(home, hosts=tuple(hosts))
    storage_ca, storage = certificates.ensure_storage(home, STRANGERS)
    admin = certificates.make_admin(home, OPERATOR)
    keys = assertion_keys.ensure(home)
    passwords = {name: _password(home / f"{name}-password") for name in PASSWORDS}

    shares = {name: _identity(stack.services[name], stack.grpc_ca) for name in SERVICES}
    for service in ("auth", "rooms"):
        shares[service] |= {
            "database-password": Share(passwords[f"postgres-{service}"]),
            "redis-password": Share(passwords["redis"]),
            "storage-ca.pem": _copy(storage_ca),
        }
    verifying = {"assertion-public.pem": _copy(keys.public)}
    shares["auth"] |= verifying | {"assertion-key.pem": _copy(keys.private)}
    shares["rooms"] |= verifying
    shares["metrics"] |= {"storage-ca.pem": _copy(storage_ca)}  # for the collector, to which it forwards
    shares["edge"] |= {
        "client-certificate.pem": _copy(stack.server_certificate),
        "client-key.pem": _copy(stack.server_key),
        "client-ca.pem": _copy(stack.client_ca),
    }
    shares["operator"] = {
        **{path.name: _copy(path) for path in admin},
        stack.grpc_ca.name: _copy(stack.grpc_ca),
        stack.client_ca.name: _copy(stack.client_ca),
    }
    shares["database"] = _readable(_identity(storage["postgres"], storage_ca)) | {
        "password": Share(passwords["postgres"], _SHARED),
        "auth-password": Share(passwords["postgres-auth"], _SHARED),
        "rooms-password": Share(passwords["postgres-rooms"], _SHARED),
    }
    shares["redis"] = _readable(_identity(storage["redis"], storage_ca)) | {
        "password": Share(passwords["redis"], _SHARED),
        "password.conf": Share(b"requirepass " + passwords["redis"] + b"\n", _SHARED),
    }
    shares["collector"] = _identity(storage["otel-collector"], storage_ca)
    return shares


def distribute(shares: Mapping[str, Mapping[str, Share]], target: Path) -> list[str]:
    """Writes what differs to `target`/<container>/<file>, and returns what it wrote. Raises OSError."""
    written = []
    for container, files in shares.items():
        for name, share in files.items():
            path = target / container / name
            if _is_there(path, share):
                continue
            write_atomically(path, share.content)
            path.chmod(share.mode)
            written.append(f"{container}/{name}")
    return written


def _identity(pair: tuple[Path, Path], ca: Path) -> dict[str, Share]:
    certificate, key = pair
    return {"certificate.pem": _copy(certificate), "key.pem": _copy(key), "ca.pem": _copy(ca)}


def _readable(files: Mapping[str, Share]) -> dict[str, Share]:
    return {name: Share(share.content, _SHARED) for name, share in files.items()}


def _copy(path: Path) -> Share:
    return Share(path.read_bytes())


def _password(path: Path) -> bytes:
    """A password in hexadecimal digits, which need no quoting anywhere; made unless it is there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        password = secrets.token_hex(_PASSWORD_BYTES).encode()
        write_atomically(path, password)
        return password


def _is_there(path: Path, share: Share) -> bool:
    try:
        return path.read_bytes() == share.content and path.stat().st_mode & 0o777 == share.mode
    except FileNotFoundError:
        return False


def main(argv: Sequence[str] | None = None) -> int:
    """0, or 1 with the reason on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path("/var/lib/parley/certificates"), metavar="DIR")
    parser.add_argument("--target", type=Path, default=Path("/secrets"), metavar="DIR")
    parser.add_argument("--hosts", default="", help="names and addresses for clients, with commas between them")
    options = parser.parse_args(argv)
    os.umask(0o077)
    hosts = [host.strip() for host in options.hosts.split(",") if host.strip()]
    try:
        written = distribute(make(options.home, hosts=hosts), options.target)
    except (OSError, ValueError) as error:
        print(f"secrets: {error}", file=sys.stderr)
        return 1
    print(f"secrets: {len(written)} files written" if written else "secrets: all there")
    for name in written:
        print(f"  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
