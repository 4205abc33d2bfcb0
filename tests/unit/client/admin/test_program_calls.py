"""Whatever operators may call has a command of `parley admin`: a call that is new in the .proto files fails here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from parley.auth.v1 import auth_pb2
from parley.edge.v1 import edge_pb2
from parley.metrics.v1 import metrics_pb2
from parley.process.v1 import process_pb2
from parley.rooms.v1 import rooms_pb2

import client.admin

SERVICES = {
    name: service
    for module in (auth_pb2, edge_pb2, metrics_pb2, process_pb2, rooms_pb2)
    for name, service in module.DESCRIPTOR.services_by_name.items()
    if name.endswith("AdminService") or name == "MetricsService"
}
SOURCES = "".join(path.read_text() for path in sorted(Path(client.admin.__file__).parent.glob("*.py")))


def test_all_services_of_operators_are_known() -> None:
    assert set(SERVICES) == {
        "AuthAdminService", "EdgeAdminService", "MetricsService", "ProcessAdminService", "RoomsAdminService",
    }  # fmt: skip


@pytest.mark.parametrize(
    "method", [method.name for service in SERVICES.values() for method in service.methods], ids=str
)
def test_each_call_has_a_command(method: str) -> None:
    assert re.search(rf"\.{method}\b", SOURCES)
