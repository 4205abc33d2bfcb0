"""Every admin call of every service with the real grpcurl: an operator's certificate opens, the others do not."""

from __future__ import annotations

import asyncio
import json
import subprocess
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.people import People
from tests.helpers.servers import find_go_program
from tests.helpers.stack import ROOT, Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

CALL_S = 60.0
USER, ROOM = "grpcurl-user", "grpcurl-room"

# Each call with a request that does something, and what comes of it: a field of the response, or an error's status.
# The order is that in which they are made.
CALLS: dict[str, list[tuple[str, dict[str, Any], str]]] = {
    "auth": [
        ("parley.auth.v1.AuthAdminService/ListAccounts", {"query": USER}, "accounts"),
        ("parley.auth.v1.AuthAdminService/GetAccount", {"username": USER}, "account"),
        ("parley.auth.v1.AuthAdminService/ListSessions", {"username": USER}, "sessions"),
        ("parley.auth.v1.AuthAdminService/UnlockAccount", {"username": USER}, ""),
        ("parley.auth.v1.AuthAdminService/SetPassword", {"username": USER, "password": "another long one"}, ""),
        ("parley.auth.v1.AuthAdminService/RevokeSessions", {"username": USER}, ""),
        ("parley.auth.v1.AuthAdminService/SetAccountDisabled", {"username": USER, "disabled": True}, "account"),
    ],
    "rooms": [
        ("parley.rooms.v1.RoomsAdminService/ListAllRooms", {"query": ROOM}, "rooms"),
        ("parley.rooms.v1.RoomsAdminService/GetRoom", {"room": ROOM}, "room"),
        ("parley.rooms.v1.RoomsAdminService/ListRoomMembers", {"room": ROOM}, "members"),
        ("parley.rooms.v1.RoomsAdminService/SetRoomClosed", {"room": ROOM, "closed": True}, "room"),
        ("parley.rooms.v1.RoomsAdminService/RemoveMember", {"room": ROOM, "username": USER}, ""),
        ("parley.rooms.v1.RoomsAdminService/DeleteRoom", {"room": ROOM}, "room_id"),
    ],
    "edge": [
        ("parley.edge.v1.EdgeAdminService/ListConnections", {}, ""),
        ("parley.edge.v1.EdgeAdminService/SendNotice", {"text": "hello"}, ""),
        ("parley.edge.v1.EdgeAdminService/GetQos", {}, "qos"),
        ("parley.edge.v1.EdgeAdminService/UpdateQos", {"concurrency": 32}, "qos"),
        ("parley.edge.v1.EdgeAdminService/StartTracing", {"username": USER}, "tracing"),
        ("parley.edge.v1.EdgeAdminService/GetTracing", {}, "tracing"),
        ("parley.edge.v1.EdgeAdminService/UpdateTracing", {"ratio": 0.5}, "tracing"),
        ("parley.edge.v1.EdgeAdminService/StopTracing", {"username": USER}, "tracing"),
        ("parley.edge.v1.EdgeAdminService/Disconnect", {"connection_id": "999999"}, "InvalidArgument"),
        ("parley.edge.v1.EdgeAdminService/Drain", {"grace_s": 1}, ""),
    ],
    "metrics": [
        ("parley.metrics.v1.MetricsService/GetStatistics", {}, "values"),
        ("parley.metrics.v1.MetricsService/ListTraces", {}, ""),
        ("parley.metrics.v1.MetricsService/GetTrace", {"trace_id": "0" * 31 + "1"}, ""),
        ("parley.metrics.v1.MetricsService/FindTraceOfMessage", {"message_id": "abcdefgh1234-epoch1-1"}, ""),
        ("parley.metrics.v1.MetricsService/ListLogs", {}, ""),
        ("parley.metrics.v1.MetricsService/GetGraph", {"name": "latency_timeline"}, "title"),
        ("parley.metrics.v1.MetricsService/DrawGraphs", {}, "paths"),
    ],
}
EVERYWHERE = [
    ("parley.process.v1.ProcessAdminService/GetProcess", {}, "process"),
    ("parley.process.v1.ProcessAdminService/SetLogLevel", {"log_level": "info"}, "process"),
    ("grpc.channelz.v1.Channelz/GetServers", {}, "server"),
    ("grpc.health.v1.Health/Check", {}, "status"),
]
# Only while the caller waits: these are streams.
STREAMS = {"parley.metrics.v1.MetricsService/StreamStatistics", "grpc.health.v1.Health/Watch"}
# What is not for operators, or is somebody else's test.
OTHERS = ("grpc.reflection.", "grpc.channelz.", "opentelemetry.", "grpc.health.")


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    find_go_program("grpcurl")
    with running_stack() as running:
        yield running


def grpcurl(
    stack: Stack,
    service: str,
    identity: str,
    *words: str,
    data: dict[str, Any] | None = None,
    options: tuple[str, ...] = (),
) -> subprocess.CompletedProcess[str]:
    """Runs grpcurl against the first process of a service, as one of its identities."""
    certificates = stack.home / "certificates"
    command = [
        find_go_program("grpcurl"),
        "-cacert", str(certificates / "grpc-ca-cert.pem"),
        "-cert", str(certificates / f"{identity}-cert.pem"),
        "-key", str(certificates / f"{identity}-key.pem"),
        "-servername", f"{service}.parley.internal",
        *options,
        *([] if data is None else ["-d", json.dumps(data)]),
        stack.processes()[f"{service}-1"]["grpc"],
        *words,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=CALL_S)


@pytest.mark.parametrize("service", CALLS)
def test_reflection_names_every_call_and_each_is_in_this_test(stack: Stack, service: str) -> None:
    listed = grpcurl(stack, service, "admin-local", "list")
    assert listed.returncode == 0, listed.stderr
    for name in listed.stdout.split():
        if name.startswith(OTHERS) or not name.endswith(("AdminService", "MetricsService")):
            continue
        methods = grpcurl(stack, service, "admin-local", "list", name).stdout.split()
        tried = {method.replace("/", ".") for method, _, _ in [*CALLS[service], *EVERYWHERE]}
        assert set(methods) <= tried | {method.replace("/", ".") for method in STREAMS}, name


@pytest.mark.parametrize("service", CALLS)
async def test_an_operator_may(stack: Stack, service: str) -> None:
    async with AsyncExitStack() as exits:
        people = People(stack, exits)
        if service in {"auth", "rooms"}:  # the last calls of each take them away again
            person = await people.person(f"{USER}-{service}")
            if service == "rooms":
                await person.expect("create_room", {"name": ROOM})
        for method, request, field in [*CALLS[service], *EVERYWHERE]:
            filled = {key: f"{value}-{service}" if value == USER else value for key, value in request.items()}
            answer = await asyncio.to_thread(grpcurl, stack, service, "admin-local", method, data=filled)
            if field == "InvalidArgument":
                assert field in answer.stderr, method
                continue
            assert answer.returncode == 0, (method, answer.stderr)
            assert not field or field in json.loads(answer.stdout), (method, answer.stdout)


def test_an_operator_may_watch_statistics(stack: Stack) -> None:
    method, watching = "parley.metrics.v1.MetricsService/StreamStatistics", ("-max-time", "15")
    seen = grpcurl(stack, "metrics", "admin-local", method, data={"interval_s": 1}, options=watching)
    assert '"values"' in seen.stdout, seen.stderr


PROTOS = ("-import-path", str(ROOT / "protos"))


@pytest.mark.parametrize("service", CALLS)
async def test_every_other_identity_is_refused(stack: Stack, service: str) -> None:
    """Without reflection, which they may not use either: the calls are known from the .proto files."""
    streams = [(method, {}, "") for method in sorted(STREAMS) if method.startswith(f"parley.{service}.")]
    for method, request, _ in [*CALLS[service], *streams, *EVERYWHERE[:2]]:
        package = method.split(".")[1]
        known = (*PROTOS, "-proto", f"parley/{package}/v1/{package}.proto")
        for identity in ("edge", "auth", "rooms", "metrics"):
            answer = await asyncio.to_thread(grpcurl, stack, service, identity, method, data=request, options=known)
            assert answer.returncode != 0, (identity, method)
            assert "PermissionDenied" in answer.stderr, (identity, method, answer.stderr)


@pytest.mark.parametrize("service", CALLS)
def test_reflection_is_for_operators_only(stack: Stack, service: str) -> None:
    for identity in ("edge", "auth", "rooms", "metrics"):
        refused = grpcurl(stack, service, identity, "list")
        assert refused.returncode != 0, identity
        assert "PermissionDenied" in refused.stderr, (identity, refused.stderr)
