"""Which processes a stack consists of, and what each is told through its environment."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deploy.local.ports import CLIENT_PORT, GRPC_PORTS, LOOPBACK, PROMETHEUS_PORTS, PortPicker, join

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from deploy.local.certificates import Paths
    from deploy.local.layout import Layout
    from deploy.local.options import Options


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One process to run, with `environment` on top of the supervisor's own."""

    name: str
    service: str
    command: tuple[str, ...]
    ready_file: Path
    grpc: str
    prometheus: str
    # Of edges only.
    client_port: int | None = None
    environment: Mapping[str, str] = field(repr=False)

    @property
    def is_edge(self) -> bool:
        """Edges start last and stop first, because they are what people see."""
        return self.service == "edge"


def make(options: Options, layout: Layout, certificates: Paths, picker: PortPicker) -> list[Spec]:
    """Decides all ports, so that every process knows the others before any of them runs.

    Raises StartError when a port is taken.
    """
    for port in options.client_ports:
        picker.take(options.host, port, purpose="clients")
    counts = {"metrics": 1, "auth": 1, "rooms": options.rooms, "edge": options.edges}
    names = [f"{service}-{k + 1}" for service, count in counts.items() for k in range(count)]
    grpc = {name: _port(name, GRPC_PORTS, options, picker, "gRPC") for name in names}
    prometheus = {name: _port(name, PROMETHEUS_PORTS, options, picker, "Prometheus") for name in names}

    addresses = {name: (join(LOOPBACK, grpc[name]), join(LOOPBACK, prometheus[name])) for name in names}
    return [_spec(name, addresses, options, layout, certificates) for name in names]


def _spec(
    name: str,
    addresses: Mapping[str, tuple[str, str]],
    options: Options,
    layout: Layout,
    certificates: Paths,
) -> Spec:
    """One process. `addresses` has everybody's gRPC and Prometheus address."""
    service, _, number = name.partition("-")
    grpc, prometheus = addresses[name]
    client_port = options.client_ports[int(number) - 1] if service == "edge" else None
    certificate, key = certificates.services[service]
    settings = {
        "name": name,
        "listen": grpc,
        "prometheus_listen": prometheus,
        "otlp_endpoint": addresses["metrics-1"][0],
        "certificate": str(certificate),
        "private_key": str(key),
        "ca": str(certificates.grpc_ca),
        "home": str(layout.home),
        "log_file": str(layout.server_log),
        "ready_file": str(layout.ready_file(name)),
    }
    if client_port is not None:
        settings |= {
            "client_listen": join(options.host, client_port),
            "client_certificate": str(certificates.server_certificate),
            "client_key": str(certificates.server_key),
            "auth_target": addresses["auth-1"][0],
            "rooms_targets": ",".join(addresses[f"rooms-{k + 1}"][0] for k in range(options.rooms)),
        }
    else:
        settings |= _storage(service, options, layout)
    if service == "auth":
        settings |= {
            "pepper_file": str(layout.pepper),
            "assertion_key_file": str(layout.assertion_key),
            "assertion_keys_file": str(layout.assertion_keys),
        }
    if service == "rooms":
        settings["assertion_keys_file"] = str(layout.assertion_keys)
    if service == "metrics":
        settings |= {"stats_file": str(layout.stats_file), "graphs_dir": str(layout.graphs)}
        if options.otlp is not None:
            settings["forward_url"] = options.otlp
    # -P: a folder named `services` in the working directory must not be taken for ours.
    command = [sys.executable, "-P", "-m", f"services.{service}"]
    if options.config is not None:
        command += ["--config", str(options.config)]
    return Spec(
        name=name,
        service=service,
        command=tuple(command),
        ready_file=layout.ready_file(name),
        grpc=grpc,
        prometheus=prometheus,
        client_port=client_port,
        environment={f"PARLEY_{service}_{key}".upper(): value for key, value in settings.items()},
    )


def _storage(service: str, options: Options, layout: Layout) -> dict[str, str]:
    """Where a service has its data. Statistics stay on this machine, whatever the others use."""
    if service == "metrics" or options.database is None:
        return {"database_url": layout.database_url(service)}
    shared = options.redis.settings("redis") if options.redis is not None else {}
    return options.database.settings("database") | shared


def _port(name: str, defaults: Mapping[str, int], options: Options, picker: PortPicker, kind: str) -> int:
    """The well-known port in a stack on the default client port, a free one in any other."""
    if options.port == CLIENT_PORT and name in defaults:
        return picker.take(LOOPBACK, defaults[name], purpose=f"{kind} of {name}")
    return picker.free()
