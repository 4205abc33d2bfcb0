"""Channels to the other services: mutual TLS, the server's identity checked, deadlines, retries.

Each service's certificate carries the name `<service>.parley.internal`; a channel insists on it, whatever host it
dials, so that no other service's key can answer in its place. A call without a time-out gets 5 s.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import grpc.aio

from services.common import rpc_options
from services.common.certificates import files_of
from services.common.identity import SERVICES
from services.common.interceptors import DEFAULT_DEADLINE_S, DeadlineInterceptor
from services.common.renewing_channel import RenewingChannel
from services.common.rpc_spans import client_spans
from services.common.tls import channel_credentials

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.common.certificates import Certificates
    from services.common.config import ServiceConfig
    from services.common.vigil import Vigil

# The first attempt and two more, over some 300 ms: enough for a connection that broke, short enough for a person.
_RETRY: Final = {
    "maxAttempts": 3,
    "initialBackoff": "0.05s",
    "maxBackoff": "0.2s",
    "backoffMultiplier": 4,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


def internal_name(service: str) -> str:
    """The DNS name in a service's certificate by which its clients know it. Raises ValueError."""
    if service not in SERVICES:
        raise ValueError(f"no such service: {service}")
    return f"{service}.parley.internal"


def open_channel(
    target: str,
    *,
    config: ServiceConfig,
    server: str,
    idempotent_methods: Iterable[str] = (),
    deadline_s: float = DEFAULT_DEADLINE_S,
    vigil: Vigil | None = None,
) -> grpc.aio.Channel:
    """A channel to `target` ("host:port"), which must prove that it is the service `server`.

    `idempotent_methods` ("parley.auth.v1.AuthService/Logout") are tried again when the server was not available.
    A `vigil`, which the caller keeps running, makes calls fail at once while the server does not answer.
    Nothing is dialled before the first call. Renewed certificates are used as they come. Close the channel.
    """
    options = (
        *rpc_options.CHANNEL,
        *name_options(server),
        ("grpc.service_config", _service_config(idempotent_methods)),
    )

    def open_one(certificates: Certificates) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(
            target,
            channel_credentials(certificates),
            options=options,
            interceptors=[*client_spans(), *([vigil] if vigil else ()), DeadlineInterceptor(deadline_s)],
        )

    return RenewingChannel(files_of(config), open_one)


def name_options(server: str) -> rpc_options.Options:
    """The channel options that make the server prove which service it is."""
    name = internal_name(server)
    return (("grpc.ssl_target_name_override", name), ("grpc.default_authority", name))


def _service_config(idempotent_methods: Iterable[str]) -> str:
    names = []
    for method in idempotent_methods:
        service, separator, rpc = method.strip("/").partition("/")
        if not separator or not rpc:
            raise ValueError(f"expected package.Service/Method, not {method!r}")
        names.append({"service": service, "method": rpc})
    return json.dumps({"methodConfig": [{"name": names, "retryPolicy": _RETRY}]} if names else {})
