"""Every RPC of every process of a running stack, called by everybody: who is not on the list is refused."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.helpers.rpc_matrix import ALLOWED, CALL_S, EVERYBODY, REFUSED_S, call, channel, methods_of
from tests.helpers.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

OF_EACH = {
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
    "grpc.channelz.v1.Channelz",
    "parley.process.v1.ProcessAdminService",
}
OWN = {
    "auth-1": {"parley.auth.v1.AuthService", "parley.auth.v1.AuthAdminService"},
    "rooms-1": {
        "parley.rooms.v1.RoomsService",
        "parley.rooms.v1.RoomFeedService",
        "parley.rooms.v1.FileService",
        "parley.rooms.v1.RoomsAdminService",
    },
    "edge-1": {"parley.edge.v1.EdgeAdminService"},
    "metrics-1": {
        "parley.metrics.v1.MetricsService",
        "parley.metrics.v1.MessageTraceService",
        "opentelemetry.proto.collector.metrics.v1.MetricsService",
        "opentelemetry.proto.collector.trace.v1.TraceService",
        "opentelemetry.proto.collector.logs.v1.LogsService",
    },
}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack() as running:
        yield running


def grpc_of(stack: Stack, process: str) -> str:
    return str(stack.processes()[process]["grpc"])


@pytest.mark.parametrize("process", OWN)
def test_each_process_offers_what_is_documented_and_no_more(stack: Stack, process: str) -> None:
    assert set(methods_of(stack.home, grpc_of(stack, process))) == OWN[process] | OF_EACH


@pytest.mark.parametrize("caller", ["nobody", "stranger as edge", "stranger as admin/local", *sorted(EVERYBODY)])
@pytest.mark.parametrize("process", OWN)
def test_who_is_not_on_the_list_is_refused(stack: Stack, process: str, caller: str) -> None:
    for service, methods in methods_of(stack.home, grpc_of(stack, process)).items():
        allowed = caller in ALLOWED[service]
        for method in methods:
            with channel(stack.home, grpc_of(stack, process), caller) as opened:
                status, code = call(opened, method, CALL_S if allowed else REFUSED_S)
            told = (caller, method[0], status, code)
            if allowed:
                assert code != "forbidden", told
                assert status is not grpc.StatusCode.UNAVAILABLE, told
                # It came through to the service, which misses an assertion; the server itself gives no such code.
                assert status is not grpc.StatusCode.UNAUTHENTICATED or code == "not_authenticated", told
            elif caller in EVERYBODY:
                assert (status, code) == (grpc.StatusCode.PERMISSION_DENIED, "forbidden"), told
            else:
                # The handshake fails, so that no handler has seen anything.
                assert (status, code) == (grpc.StatusCode.UNAVAILABLE, ""), told


@pytest.mark.parametrize("process", OWN)
def test_what_does_not_exist_is_refused_to_everybody(stack: Stack, process: str) -> None:
    for caller in sorted(EVERYBODY):
        for path in ("/parley.none.v1.NoneService/Do", "/parley.auth.v1.AuthService/Nothing", "/x"):
            with channel(stack.home, grpc_of(stack, process), caller) as opened:
                status, _ = call(opened, (path, False, False), REFUSED_S)
            assert status in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED}, (caller, path)


@pytest.mark.parametrize("port", ["client", *OWN])
def test_nothing_older_than_tls_1_3_is_spoken(stack: Stack, port: str) -> None:
    number = stack.port if port == "client" else int(stack.processes()[port]["grpc"].rpartition(":")[2])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", number), timeout=REFUSED_S) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain)
