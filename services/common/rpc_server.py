"""The gRPC server of a service: mutual TLS, allow-lists, health, reflection and channelz.

    server = RpcServer(config, allow={"parley.auth.v1.AuthService": frozenset({"edge"}), …})
    auth_pb2_grpc.add_AuthServiceServicer_to_server(servicer, server.grpc)
    port = await server.start()

Nobody may call what `allow` does not name. Operators (`admin`) may use reflection and channelz, and ask each
process how it is and how much it logs; all identities may use health.
What operators call, and who else tries to, is in the audit log.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import grpc.aio
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services.common import rpc_options
from services.common.admin_servicer import SERVICE as _PROCESS
from services.common.admin_servicer import ProcessAdminServicer
from services.common.audit import AuditInterceptor
from services.common.certificates import files_of, watch
from services.common.clock import SystemClock
from services.common.config import split_host_port
from services.common.identity import ADMIN, KINDS
from services.common.interceptors import GuardInterceptor
from services.common.reflection import add_reflection
from services.common.rpc_spans import ServerSpans
from services.common.tasks import TaskSet
from services.common.tls import server_credentials

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping, Sequence

    from services.common.config import ServiceConfig

_HEALTH: Final = "grpc.health.v1.Health"
_REFLECTION: Final = "grpc.reflection.v1alpha.ServerReflection"
_CHANNELZ: Final = "grpc.channelz.v1.Channelz"
_TOOLS: Final[Mapping[str, frozenset[str]]] = {
    _HEALTH: KINDS,
    _REFLECTION: frozenset({ADMIN}),
    _CHANNELZ: frozenset({ADMIN}),
    _PROCESS: frozenset({ADMIN}),
}
# Calls that are under way when a connection reaches its age may end in this time.
_AGE_GRACE_S: Final = 30
# So that the clients of a server do not all come back at the same moment.
_AGE_JITTER: Final = 0.2


class RpcServer:
    """One server on one port. Make it inside the event loop.

    `allow` maps full service names to the kinds of identity that may call them. `max_connection_age_s` makes clients
    connect anew, and so find new instances; leave it out where long streams are served.
    """

    def __init__(
        self,
        config: ServiceConfig,
        *,
        allow: Mapping[str, frozenset[str]],
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        max_connection_age_s: float | None = None,
    ) -> None:
        unknown = {kind for kinds in allow.values() for kind in kinds} - KINDS
        if unknown:
            raise ValueError(f"no such kinds of identity: {', '.join(sorted(unknown))}")
        self._config = config
        self._service_names = (*allow, *_TOOLS)
        self._health = health.aio.HealthServicer()
        self._tasks = TaskSet()
        self.port = 0
        self.grpc: grpc.aio.Server = grpc.aio.server(
            interceptors=[
                ServerSpans(),
                AuditInterceptor(config.audit_file, process=config.name, allow={**allow, **_TOOLS}),
                GuardInterceptor({**allow, **_TOOLS}),
                *interceptors,
            ],
            options=[*rpc_options.SERVER, *_age_options(max_connection_age_s)],
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        ProcessAdminServicer(config.name).add_to(self.grpc)
        channelz.add_channelz_servicer(self.grpc)
        add_reflection(self._service_names, self.grpc)

    @property
    def address(self) -> str:
        """`host:port` as clients on this machine reach it, once started."""
        host, _ = split_host_port(self._config.listen)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    async def start(self) -> int:
        """Listens and serves; returns the port. Raises OSError or RuntimeError where that is not possible."""
        self.port = self.grpc.add_secure_port(self._config.listen, server_credentials(self._config))
        await self.grpc.start()
        self._tasks.spawn(watch(files_of(self._config), SystemClock()), name="certificates")
        await self.set_serving(True)
        return self.port

    def set_serving(self, is_serving: bool) -> asyncio.Task[None]:
        """Tells health checks of every service. Need not be awaited."""
        return self._tasks.spawn(self._set_serving(is_serving=is_serving), name="health status")

    async def _set_serving(self, *, is_serving: bool) -> None:
        response = health_pb2.HealthCheckResponse
        for name in ("", *self._service_names):
            await self._health.set(name, response.SERVING if is_serving else response.NOT_SERVING)

    async def stop(self, grace_s: float | None = None) -> None:
        """Refuses new calls, gives those under way `grace_s` (the configuration's by default), and closes."""
        await self._health.enter_graceful_shutdown()
        await self.grpc.stop(self._config.stop_grace_s if grace_s is None else grace_s)
        await self._tasks.close()


def _age_options(age_s: float | None) -> rpc_options.Options:
    if age_s is None:
        return ()
    jittered_s = age_s * random.uniform(1 - _AGE_JITTER, 1 + _AGE_JITTER)  # noqa: S311 - spreads load
    return (
        ("grpc.max_connection_age_ms", int(jittered_s * 1_000)),
        ("grpc.max_connection_age_grace_ms", _AGE_GRACE_S * 1_000),
    )
