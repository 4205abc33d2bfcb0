from __future__ import annotations

import socket
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from deploy.local import plan
from deploy.local.failures import StartError
from deploy.local.layout import Layout
from deploy.local.options import Options, Server
from deploy.local.ports import GRPC_PORTS, PROMETHEUS_PORTS, PortPicker
from tests.helpers import certificates

if TYPE_CHECKING:
    from pathlib import Path

    from deploy.local.plan import Spec


class AnyPort(PortPicker):
    """Finds every port free, so that the defaults can be tried while a stack runs on this machine."""

    def take(self, host: str, port: int, *, purpose: str) -> int:
        assert host
        assert purpose
        return port


def make(home: Path, picker: PortPicker | None = None, **settings: object) -> dict[str, Spec]:
    options = Options(home=home, **settings)  # type: ignore[arg-type]
    made = plan.make(options, Layout(home), certificates.shared().paths, picker or AnyPort())
    return {spec.name: spec for spec in made}


def test_default_ports_are_the_documented_ones(tmp_path: Path) -> None:
    specs = make(tmp_path)
    assert list(specs) == ["metrics-1", "auth-1", "rooms-1", "edge-1"]
    assert {name: int(spec.grpc.rpartition(":")[2]) for name, spec in specs.items()} == GRPC_PORTS
    assert specs["metrics-1"].prometheus == f"127.0.0.1:{PROMETHEUS_PORTS['metrics-1']}"
    assert specs["edge-1"].client_port == 8888


def test_another_client_port_leaves_the_default_ports_alone(tmp_path: Path) -> None:
    specs = make(tmp_path, port=9999, edges=3)
    used = [address for spec in specs.values() for address in (spec.grpc, spec.prometheus)]
    assert len(set(used)) == len(used)
    defaults = {*GRPC_PORTS.values(), *PROMETHEUS_PORTS.values()}
    assert defaults.isdisjoint(int(address.rpartition(":")[2]) for address in used)
    assert [specs[f"edge-{k}"].client_port for k in (1, 2, 3)] == [9999, 10000, 10001]


def test_only_the_first_edge_has_the_default_port(tmp_path: Path) -> None:
    specs = make(tmp_path, edges=2)
    assert specs["edge-1"].grpc == "127.0.0.1:50050"
    assert int(specs["edge-2"].grpc.rpartition(":")[2]) not in GRPC_PORTS.values()


def test_everybody_knows_where_the_others_are(tmp_path: Path) -> None:
    specs = make(tmp_path, port=9999, host="::1")
    edge = specs["edge-1"].environment
    assert edge["PARLEY_EDGE_CLIENT_LISTEN"] == "[::1]:9999"
    assert edge["PARLEY_EDGE_AUTH_TARGET"] == specs["auth-1"].grpc
    assert edge["PARLEY_EDGE_ROOMS_TARGETS"] == specs["rooms-1"].grpc
    for name, spec in specs.items():
        prefix = f"PARLEY_{spec.service.upper()}_"
        assert all(key.startswith(prefix) for key in spec.environment)
        assert spec.environment[f"{prefix}NAME"] == name
        assert spec.environment[f"{prefix}OTLP_ENDPOINT"] == specs["metrics-1"].grpc
    assert "PARLEY_EDGE_DATABASE_URL" not in edge  # the edge holds no database


def test_only_auth_and_rooms_are_told_of_the_servers(tmp_path: Path) -> None:
    database = Server(url="postgresql://db", password_file=tmp_path / "pw", ca_file=tmp_path / "ca")
    redis = Server(url="rediss://cache", password_file=tmp_path / "pw", ca_file=tmp_path / "ca")
    specs = make(tmp_path, port=9999, edges=2, rooms=2, database=database, redis=redis)
    assert list(specs) == ["metrics-1", "auth-1", "rooms-1", "rooms-2", "edge-1", "edge-2"]
    for name in ("auth-1", "rooms-1", "rooms-2"):
        told, prefix = specs[name].environment, f"PARLEY_{specs[name].service.upper()}_"
        assert told[f"{prefix}DATABASE_URL"] == "postgresql://db"
        assert told[f"{prefix}REDIS_URL"] == "rediss://cache"
        for key in ("DATABASE", "REDIS"):
            assert told[f"{prefix}{key}_PASSWORD_FILE"] == str(tmp_path / "pw")
            assert told[f"{prefix}{key}_CA_FILE"] == str(tmp_path / "ca")
    assert specs["metrics-1"].environment["PARLEY_METRICS_DATABASE_URL"].startswith("sqlite:")
    for name in ("edge-1", "edge-2", "metrics-1"):
        assert not [value for value in specs[name].environment.values() if "://db" in value]
        assert not [key for key in specs[name].environment if "REDIS" in key or "PASSWORD" in key]


def test_every_edge_knows_every_rooms_process(tmp_path: Path) -> None:
    servers = {"database": Server(url="postgresql://db"), "redis": Server(url="redis://cache")}
    specs = make(tmp_path, port=9999, edges=2, rooms=3, **servers)
    targets = [specs[f"rooms-{k}"].grpc for k in (1, 2, 3)]
    for name in ("edge-1", "edge-2"):
        assert specs[name].environment["PARLEY_EDGE_ROOMS_TARGETS"].split(",") == targets
    assert len({spec.environment[f"PARLEY_{spec.service.upper()}_NAME"] for spec in specs.values()}) == len(specs)


def test_each_service_has_its_own_certificate(tmp_path: Path) -> None:
    specs = make(tmp_path, port=9999)
    keys = {spec.environment[f"PARLEY_{spec.service.upper()}_PRIVATE_KEY"] for spec in specs.values()}
    assert len(keys) == 4


def test_a_configuration_file_is_handed_on(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    for spec in make(tmp_path, config=file).values():
        assert spec.command[-2:] == ("--config", str(file))


def test_a_client_port_in_use_stops_the_start(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        with pytest.raises(StartError, match=rf"port {port} on 127.0.0.1 \(clients\)"):
            make(tmp_path, PortPicker(), port=port)
