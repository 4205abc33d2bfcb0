from __future__ import annotations

import pytest
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2

from services.common.reflection import SymbolPool

POOL = SymbolPool(descriptor_pool.Default())


@pytest.mark.parametrize(
    "symbol", ["grpc.health.v1.Health", "grpc.health.v1.Health.Check", "grpc.health.v1.HealthCheckRequest"]
)
def test_services_methods_and_messages_are_found(symbol: str) -> None:
    assert POOL.FindFileContainingSymbol(symbol).name == health_pb2.DESCRIPTOR.name


@pytest.mark.parametrize("symbol", ["grpc.health.v1.Health.Nothing", "no.such.Service", "Check", ""])
def test_what_is_not_there_is_not_found(symbol: str) -> None:
    with pytest.raises(KeyError):
        POOL.FindFileContainingSymbol(symbol)
