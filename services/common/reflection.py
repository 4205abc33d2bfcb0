"""What gRPC's reflection serves: the descriptors of all services, found also by the names of their methods.

The descriptor pools of protobuf's Python find messages and services only, but ghz asks for
`package.Service.Method`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection

if TYPE_CHECKING:
    from collections.abc import Sequence

    import grpc.aio


class SymbolPool:
    """A descriptor pool in which a method's name leads to the file of its service."""

    def __init__(self, pool: descriptor_pool.DescriptorPool) -> None:
        self._pool = pool

    def FindFileContainingSymbol(self, symbol: str) -> Any:  # noqa: N802 -- the pool's name
        """The file that declares a message, an enumeration, a service or a method. Raises KeyError."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            descriptor = self._pool.FindServiceByName(service)
            if method not in descriptor.methods_by_name:
                raise
            return descriptor.file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


def add_reflection(service_names: Sequence[str], server: grpc.aio.Server) -> None:
    """Serves reflection of the named services."""
    reflection.enable_server_reflection(service_names, server, pool=cast("Any", SymbolPool(descriptor_pool.Default())))
