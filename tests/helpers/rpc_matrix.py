"""Every RPC of a process of a running stack, and who may call what: for whoever tries them all.

The RPCs are asked of the processes themselves, through reflection, so that a new one cannot be forgotten: a service
that `ALLOWED` does not name may be called by nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.helpers import certificates

if TYPE_CHECKING:
    from pathlib import Path

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
CALL_S = 1.0  # of a permitted stream that never ends by itself
REFUSED_S = 20.0
Method = tuple[str, bool, bool]  # full path, whether requests stream, whether responses do


def channel(home: Path, address: str, caller: str) -> grpc.Channel:
    """A channel to `address` as `caller`: a kind of identity, `nobody` (no certificate), `stranger as KIND` (of another
    authority) or `server` (the certificate that clients see)."""
    directory = home / "certificates"
    ca = (directory / "grpc-ca-cert.pem").read_bytes()
    if caller == "nobody":
        return open_channel(address, grpc.ssl_channel_credentials(ca))
    if caller.startswith("stranger"):
        certificate, key = certificates.foreign().pair(caller.removeprefix("stranger as "))
    else:
        name = "admin-local" if caller == "admin" else caller
        certificate, key = directory / f"{name}-cert.pem", directory / f"{name}-key.pem"
    return open_channel(address, grpc.ssl_channel_credentials(ca, key.read_bytes(), certificate.read_bytes()))


def open_channel(address: str, credentials: grpc.ChannelCredentials) -> grpc.Channel:
    """A channel to a process of this machine."""
    return grpc.secure_channel(f"localhost:{address.rpartition(':')[2]}", credentials)


def methods_of(home: Path, address: str) -> dict[str, list[Method]]:
    """By service: what the process says it can do."""
    with channel(home, address, "admin") as opened:
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
