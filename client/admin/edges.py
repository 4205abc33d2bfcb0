"""`parley admin connections`, `disconnect` and `qos`: each edge is asked, for each has its own."""

from __future__ import annotations

from argparse import Namespace

import grpc
from parley.edge.v1 import edge_pb2, edge_pb2_grpc

from client.admin.channels import CALL_TIMEOUT_S, ask_each
from client.admin.failures import AdminError
from client.admin.pages import read_all
from client.admin.report import Context, Row, as_dict

CONNECTION_COLUMNS = {
    "EDGE": "edge",
    "ID": "connection_id",
    "USER": "username",
    "ADDRESS": "address",
    "CLIENT": "client",
    "VERSION": "protocol",
    "ROOMS": "room_count",
    "SINCE": "connected_at_ms",
    "RECEIVED": "received_bytes",
    "SENT": "sent_bytes",
    "WAITING": "waiting_bytes",
}
QOS_COLUMNS = {
    "EDGE": "edge",
    "CLASS": "name",
    "TARGET MS": "target_ms",
    "SHARE": "share",
    "WAITING": "waiting",
    "OLDEST MS": "oldest_waiting_ms",
    "ACCEPTED": "accepted",
    "REFUSED": "refused",
    "STARTED": "started",
    "P50 MS": "wait_p50_ms",
    "P99 MS": "wait_p99_ms",
}


def list_connections(context: Context, arguments: Namespace) -> None:
    """Lists connections, oldest first."""

    def read(channel: grpc.Channel) -> list[Row]:
        stub = edge_pb2_grpc.EdgeAdminServiceStub(channel)

        def fetch(size: int, token: str) -> edge_pb2.ListConnectionsResponse:
            request = edge_pb2.ListConnectionsRequest(page_size=size, page_token=token)
            return stub.ListConnections(request, timeout=CALL_TIMEOUT_S)

        return read_all(fetch, lambda page: page.connections, limit=arguments.limit)

    found = ask_each(context.channels, "edge", read, only=arguments.edge)
    context.write_rows([{"edge": name, **row} for name, rows in found for row in rows], CONNECTION_COLUMNS)


def disconnect(context: Context, arguments: Namespace) -> None:
    """Closes a connection, on whichever edge it is."""
    context.confirm(f"Close the connection {arguments.connection}?")
    request = edge_pb2.DisconnectRequest(connection_id=arguments.connection)

    def close(channel: grpc.Channel) -> None:
        edge_pb2_grpc.EdgeAdminServiceStub(channel).Disconnect(request, timeout=CALL_TIMEOUT_S)

    edges = [arguments.edge] if arguments.edge else [one.name for one in context.channels.processes("edge")]
    problem = AdminError("bad_request", "No edge is up.")
    for edge in edges:
        try:
            for name, _ in ask_each(context.channels, "edge", close, only=edge):
                context.write_done(f"{name} closed the connection {arguments.connection}.", {"edge": name})
                return
        except AdminError as error:
            if error.code != "bad_request":  # which only means that it is not on this edge
                raise
            problem = error
    raise problem


def show_qos(context: Context, arguments: Namespace) -> None:
    """Shows the schedulers."""

    def read(channel: grpc.Channel) -> edge_pb2.Qos:
        stub = edge_pb2_grpc.EdgeAdminServiceStub(channel)
        return stub.GetQos(edge_pb2.GetQosRequest(), timeout=CALL_TIMEOUT_S).qos

    _write_qos(context, dict(ask_each(context.channels, "edge", read, only=arguments.edge)))


def set_qos(context: Context, arguments: Namespace) -> None:
    """Changes the schedulers while they run."""
    request = edge_pb2.UpdateQosRequest(concurrency=arguments.concurrency or 0)
    updates = {name: edge_pb2.QosClassUpdate(name=name) for name in dict([*arguments.target, *arguments.share])}
    for name, target_ms in arguments.target:
        updates[name].target_ms = target_ms
    for name, share in arguments.share:
        updates[name].share = share
    if not updates and not arguments.concurrency:
        raise AdminError("bad_request", "Nothing to change: give --concurrency, --target or --share.")
    request.classes.extend(updates.values())

    def change(channel: grpc.Channel) -> edge_pb2.Qos:
        return edge_pb2_grpc.EdgeAdminServiceStub(channel).UpdateQos(request, timeout=CALL_TIMEOUT_S).qos

    _write_qos(context, dict(ask_each(context.channels, "edge", change, only=arguments.edge)))


def _write_qos(context: Context, by_edge: dict[str, edge_pb2.Qos]) -> None:
    if context.as_json:
        context.write_values({name: as_dict(qos) for name, qos in by_edge.items()})
        return
    rows = [{"edge": name, **as_dict(one)} for name, qos in by_edge.items() for one in qos.classes]
    context.write_rows(rows, QOS_COLUMNS)
    for name, qos in by_edge.items():
        context.write_done(f"{name}: {qos.running} running of at most {qos.concurrency}.")
