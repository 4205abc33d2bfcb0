"""Inside: what only somebody on the server's own machine sees: gRPC identities, files, logs and stores."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import grpc

from tests.helpers import certificates
from tests.security.attempt import PASSWORD, Attempt, Check, NotApplicableError, demand

_CALL_S = 10.0
_PROBES = {
    "auth": "/parley.auth.v1.AuthAdminService/ListAccounts",
    "rooms": "/parley.rooms.v1.RoomsAdminService/ListAllRooms",
    "edge": "/parley.edge.v1.EdgeAdminService/ListConnections",
}
"""An operator's call of each service."""


def _home(attempt: Attempt) -> Path:
    if attempt.target.home is None:
        raise NotApplicableError("needs --home: the stack runs elsewhere")
    return attempt.target.home


def _stack(attempt: Attempt) -> list[dict[str, Any]]:
    processes: list[dict[str, Any]] = json.loads((_home(attempt) / "run" / "stack.json").read_text())["processes"]
    return processes


def _call(address: str, path: str, credentials: grpc.ChannelCredentials) -> grpc.StatusCode:
    target = "localhost:" + address.rpartition(":")[2]
    with grpc.secure_channel(target, credentials) as channel:
        try:
            channel.unary_unary(path)(b"", timeout=_CALL_S)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def _pair(ca: bytes, certificate: Path, key: Path) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(ca, key.read_bytes(), certificate.read_bytes())


async def check_grpc_identities(attempt: Attempt) -> str:
    folder = _home(attempt) / "certificates"
    ca = (folder / "grpc-ca-cert.pem").read_bytes()
    callers = {
        "nobody": grpc.ssl_channel_credentials(ca),
        "a stranger who says admin": _pair(ca, *certificates.foreign().pair("admin/local")),
    }
    callers |= {
        name: _pair(ca, folder / f"{name}-cert.pem", folder / f"{name}-key.pem")
        for name in ("edge", "auth", "rooms", "metrics")
    }
    calls = 0
    for process in _stack(attempt):
        path = _PROBES.get(process["name"].partition("-")[0])
        if path is None:
            continue
        for name, credentials in callers.items():
            status = await asyncio.to_thread(_call, process["grpc"], path, credentials)
            refused = status in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAVAILABLE}
            demand(refused, f"{name} may call {path}: {status.name}")
            calls += 1
        admin = _pair(ca, folder / "admin-local-cert.pem", folder / "admin-local-key.pem")
        status = await asyncio.to_thread(_call, process["grpc"], path, admin)
        demand(status is grpc.StatusCode.OK, f"an operator may not call {path}: {status.name}")
    return f"{calls} calls refused, operators answered"


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
    home = _home(attempt)
    client = await attempt.person()
    reply = await client.request("logout")
    demand(reply["type"] == "success", f"{reply}")
    answer = await client.login(client.username, PASSWORD)
    for what, secret in (("password", PASSWORD), ("token", str(answer["token"]))):
        found = await asyncio.to_thread(_holders, home, secret.encode())
        demand(not found, f"a {what} is in {found}")
    return "no password and no token in logs and stores"


CHECKS: dict[str, Check] = {
    "services refuse identities that are not on the list": check_grpc_identities,
    "keys and databases are for their owner": check_private_files,
    "secrets leave no trace": check_secrets_leave_no_trace,
}
