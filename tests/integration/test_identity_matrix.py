"""Every RPC of every process of a running stack, called by everybody: who is not on the list is refused.

The RPCs are asked of the processes themselves, through reflection, so that a new one cannot be forgotten here: a
service that this file does not name may be called by nobody.
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.helpers import certificates
from tests.helpers.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICES = {"edge", "auth", "rooms", "metrics"}
EVERYBODY = SERVICES | {"admin"}
# docs/architecture.md; who may call what.
ALLOWED: dict[str, set[str]] = {
    "parley.auth.v1.AuthService": {"edge"},
    "parley.auth.v1.AuthAdminService": {"admin"},
    "parley.rooms.v1.RoomsService": {"edge"},
    "parley.rooms.v1.RoomFeedService": {"edge"},
    "parley.rooms.v1.FileService": {"edge"},
    "parley.rooms.v1.RoomsAdminService": {"admin"},
    "parley.edge.v1.EdgeAdminService": {"admin"},
    "parley.metrics.v1.MetricsService": {"admin"},
    "parley.metrics.v1.MessageTraceService": {"edge"},
    "opentelemetry.proto.collector.metrics.v1.MetricsService": SERVICES,
    "opentelemetry.proto.collector.trace.v1.TraceService": SERVICES,
    "opentelemetry.proto.collector.logs.v1.LogsService": SERVICES,
    "parley.process.v1.ProcessAdminService": {"admin"},
    "grpc.health.v1.Health": EVERYBODY,
    "grpc.reflection.v1alpha.ServerReflection": {"admin"},
    "grpc.channelz.v1.Channelz": {"admin"},
}
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
CALL_S = 1.0  # of a permitted stream that never ends by itself
REFUSED_S = 20.0
Method = tuple[str, bool, bool]  # full path, whether requests stream, whether responses do


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack() as running:
        yield running


def channel(stack: Stack, process: str, caller: str) -> grpc.Channel:
    """A channel as `caller`: a kind of identity, `nobody` (no certificate) or `stranger` (of another authority)."""
    directory = stack.home / "certificates"
    ca = (directory / "grpc-ca-cert.pem").read_bytes()
    if caller == "nobody":
        return _open(stack, process, grpc.ssl_channel_credentials(ca))
    if caller.startswith("stranger"):
        certificate, key = certificates.foreign().pair(caller.removeprefix("stranger as "))
    else:
        name = "admin-local" if caller == "admin" else caller
        certificate, key = directory / f"{name}-cert.pem", directory / f"{name}-key.pem"
    return _open(stack, process, grpc.ssl_channel_credentials(ca, key.read_bytes(), certificate.read_bytes()))


def _open(stack: Stack, process: str, credentials: grpc.ChannelCredentials) -> grpc.Channel:
    port = stack.processes()[process]["grpc"].rpartition(":")[2]
    return grpc.secure_channel(f"localhost:{port}", credentials)


def methods_of(stack: Stack, process: str) -> dict[str, list[Method]]:
    """By service: what the process says it can do."""
    with channel(stack, process, "admin") as opened:
        stub = reflection_pb2_grpc.ServerReflectionStub(opened)
        request = reflection_pb2.ServerReflectionRequest
        [answer] = stub.ServerReflectionInfo(iter([request(list_services="")]), timeout=REFUSED_S)
        names = [service.name for service in answer.list_services_response.service]
        files = stub.ServerReflectionInfo(
            iter([request(file_containing_symbol=name) for name in names]), timeout=REFUSED_S
        )
        found: dict[str, list[Method]] = {}
        for name, file in zip(names, files, strict=True):
            for data in file.file_descriptor_response.file_descriptor_proto:
                parsed = descriptor_pb2.FileDescriptorProto.FromString(data)
                for service in parsed.service:
                    if f"{parsed.package}.{service.name}" == name:
                        found[name] = [
                            (f"/{name}/{method.name}", method.client_streaming, method.server_streaming)
                            for method in service.method
                        ]
    return found


def call(opened: grpc.Channel, method: Method, timeout_s: float) -> tuple[grpc.StatusCode, str]:
    """The status of a call with an empty request, and Parley's own code where it names one."""
    path, streams_in, streams_out = method
    kind = f"{'stream' if streams_in else 'unary'}_{'stream' if streams_out else 'unary'}"
    callable_: Any = getattr(opened, kind)(path)
    try:
        answer = callable_(iter([b""]) if streams_in else b"", timeout=timeout_s)
        if streams_out:
            next(answer, None)
            answer.cancel()
    except grpc.RpcError as error:
        return error.code(), str(dict(error.trailing_metadata() or ()).get("parley-code", ""))
    return grpc.StatusCode.OK, ""


@pytest.mark.parametrize("process", OWN)
def test_each_process_offers_what_is_documented_and_no_more(stack: Stack, process: str) -> None:
    assert set(methods_of(stack, process)) == OWN[process] | OF_EACH


@pytest.mark.parametrize("caller", ["nobody", "stranger as edge", "stranger as admin/local", *sorted(EVERYBODY)])
@pytest.mark.parametrize("process", OWN)
def test_who_is_not_on_the_list_is_refused(stack: Stack, process: str, caller: str) -> None:
    for service, methods in methods_of(stack, process).items():
        allowed = caller in ALLOWED[service]
        for method in methods:
            with channel(stack, process, caller) as opened:
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
            with channel(stack, process, caller) as opened:
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
