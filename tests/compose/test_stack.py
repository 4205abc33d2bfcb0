"""The compose stack as it stands: who runs as what, who reaches whom, what is published, and that it serves."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.compose.engine import PROFILES, ROOT, docker, has_image
from tests.helpers.stack import eventually

if TYPE_CHECKING:
    from tests.compose.engine import Compose

pytestmark = pytest.mark.compose

SERVICES = {"auth.1", "edge.1", "edge.2", "haproxy.1", "metrics.1", "postgres.1", "redis.1", "rooms-1.1", "rooms-2.1"}
OURS = {"auth", "edge", "metrics", "rooms-1", "rooms-2"}


def test_one_command_brings_everything_up_healthy(stack: Compose) -> None:
    assert stack.said.splitlines()[-1].startswith(f"ready on 127.0.0.1:{stack.port}")
    containers = stack.containers()
    assert set(containers) == SERVICES
    assert {name: details["State"]["Health"]["Status"] for name, details in containers.items()} == dict.fromkeys(
        SERVICES, "healthy"
    )


def test_people_talk_through_it(stack: Compose) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "load_test.py", "20", "--port", str(stack.port), "--ca", stack.ca],
        capture_output=True,
        text=True,
        timeout=200,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "delivered          4000 of 4000" in done.stdout


def test_nothing_runs_as_root_or_writes_where_it_should_not(stack: Compose) -> None:
    for name, details in stack.containers().items():
        host = details["HostConfig"]
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert not host["CapAdd"], name
        assert not host["Privileged"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        users = {line.split()[0] for line in docker("top", details["Id"], "-eo", "uid,pid").splitlines()[1:]}
        assert users, name
        assert "0" not in users, name
        written = subprocess.run(
            ["docker", "exec", "--user", "0", details["Id"], "touch", "/usr/left"], capture_output=True
        )
        assert written.returncode != 0, name


def test_everything_has_limits_and_comes_back(stack: Compose) -> None:
    for name, details in stack.containers().items():
        host = details["HostConfig"]
        assert 0 < host["Memory"] <= 2 * 1024**3, name
        assert host["NanoCpus"] > 0, name
        assert 0 < host["PidsLimit"] <= 512, name
        assert host["RestartPolicy"]["Name"] == "unless-stopped", name
        assert host["LogConfig"]["Config"]["max-size"], name


def test_only_haproxy_is_published_and_on_this_machine_only(stack: Compose) -> None:
    published = {
        name: bindings
        for name, details in stack.containers().items()
        if (bindings := details["HostConfig"]["PortBindings"])
    }
    assert published == {"haproxy.1": {"8888/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(stack.port)}]}}


def test_networks_are_for_one_purpose_each(stack: Compose) -> None:
    members = {
        network: {
            details["Config"]["Labels"]["com.docker.compose.service"]
            for details in stack.containers().values()
            if f"{stack.project}_{network}" in details["NetworkSettings"]["Networks"]
        }
        for network in ("public", "front", "inside", "storage", "watch")
    }
    assert members["public"] == {"haproxy"}
    assert members["front"] == {"haproxy", "edge"}
    assert members["inside"] == OURS
    assert members["storage"] == {"auth", "rooms-1", "rooms-2", "postgres", "redis"}
    assert members["watch"] == OURS | {"haproxy"}
    assert [stack.network(name)["Internal"] for name in members] == [False, True, True, True, True]


_REACH = """
import socket, sys
for address in sys.argv[1:]:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 2).close()
    except OSError:
        print(address, "no")
    else:
        print(address, "yes")
"""


def _reach(stack: Compose, service: str, *addresses: str) -> dict[str, bool]:
    lines = docker("exec", stack.container(service), "python", "-c", _REACH, *addresses).splitlines()
    return {address: answer == "yes" for address, answer in (line.split() for line in lines)}


def test_an_edge_reaches_neither_the_database_nor_redis_nor_the_world(stack: Compose) -> None:
    containers = stack.containers()
    addresses = ["postgres:5432", "redis:6379"]
    for name, port in (("postgres.1", 5432), ("redis.1", 6379)):
        networks = containers[name]["NetworkSettings"]["Networks"].values()
        addresses += [f"{network['IPAddress']}:{port}" for network in networks]
    assert len(addresses) == 4
    reached = _reach(stack, "edge", *addresses, "auth:50051", "1.1.1.1:443")
    assert reached == {**dict.fromkeys(addresses, False), "auth:50051": True, "1.1.1.1:443": False}
    assert _reach(stack, "auth", "postgres:5432", "redis:6379") == {"postgres:5432": True, "redis:6379": True}


def test_a_service_reads_only_its_own_schema(stack: Compose) -> None:
    look = """
import pathlib, psycopg
password = pathlib.Path("/run/secrets/parley/database-password").read_text()
ca = "/run/secrets/parley/storage-ca.pem"
own = {"host": "postgres", "dbname": "parley", "user": "rooms", "password": password}
with psycopg.connect(**own, sslmode="verify-full", sslrootcert=ca) as c:
    print(c.execute("select count(*) >= 0 from rooms.rooms").fetchone()[0])
    try:
        c.execute("select * from auth.accounts")
    except psycopg.errors.InsufficientPrivilege as error:
        print("refused")
try:
    psycopg.connect(**own, sslmode="disable")
except psycopg.OperationalError:
    print("no plain text")
"""
    said = docker("exec", stack.container("rooms-1"), "python", "-c", look)
    assert said.split("\n")[:3] == ["True", "refused", "no plain text"]


def test_no_secret_is_in_what_the_engine_shows(stack: Compose) -> None:
    passwords = [
        docker("exec", stack.container("redis"), "cat", "/run/secrets/parley/password"),
        docker("exec", stack.container("rooms-1"), "cat", "/run/secrets/parley/database-password"),
    ]
    shown = json.dumps(stack.containers()) + stack.compose("logs", "--no-color")
    assert all(len(password) == 64 for password in passwords)
    assert not [password for password in passwords if password in shown]
    files = docker("exec", stack.container("edge"), "ls", "/run/secrets/parley").split()
    assert sorted(files) == [
        "ca.pem", "certificate.pem", "client-ca.pem", "client-certificate.pem", "client-key.pem", "key.pem",
    ]  # fmt: skip


def test_the_image_holds_the_program_and_nothing_else(stack: Compose) -> None:
    look = """
import importlib.util, os, sys
unwanted = ("tests", "pytest", "grpc_tools", "mypy")
print(sys.flags.dev_mode, [name for name in unwanted if importlib.util.find_spec(name)])
print([os.path.join(top, name) for root in ("/opt", "/var/lib/parley", "/source", "/root", "/home", "/srv", "/app")
       for top, folders, files in os.walk(root) for name in folders + files
       if name in (".git", "tests", "Makefile", "Dockerfile", ".env") and "site-packages" not in top])
print([name for name in os.environ if "DEBUG" in name or "PASSWORD" in name])
"""
    for service in ("edge", "auth", "rooms-1", "metrics"):
        said = docker("exec", stack.container(service), "python", "-c", look).splitlines()
        assert said[0] == "False []", service
        assert said[1] == "[]", service
        assert [name for name in said[2][1:-1].split(", ") if not name.endswith("_FILE'")] in ([], [""]), service


def test_services_log_json_where_the_engine_collects_it(stack: Compose) -> None:
    done = subprocess.run(["docker", "logs", stack.container("auth")], capture_output=True, text=True)
    lines = (done.stdout + done.stderr).splitlines()
    assert "ready" in [json.loads(line)["event"] for line in lines]


def test_operators_see_every_process(stack: Compose) -> None:
    answer = json.loads(stack.compose("run", "--rm", "-T", "operator", "--json", "processes"))
    assert len(answer["processes"] if isinstance(answer, dict) else answer) == 6


def test_a_third_edge_is_found_by_haproxy_and_a_removed_one_forgotten(stack: Compose) -> None:
    eventually(lambda: stack.edges_up() == 2, timeout_s=20)
    stack.up("--scale", "edge=3")
    eventually(lambda: stack.edges_up() == 3, timeout_s=20)
    stack.up("--scale", "edge=2")
    eventually(lambda: stack.edges_up() == 2, timeout_s=60)


def test_a_service_that_stops_answering_is_unhealthy(stack: Compose) -> None:
    metrics = stack.container("metrics")
    docker("kill", "--signal", "STOP", metrics)
    try:
        eventually(lambda: stack.health("metrics") == "unhealthy", timeout_s=90)
    finally:
        docker("kill", "--signal", "CONT", metrics)
    eventually(lambda: stack.health("metrics") == "healthy", timeout_s=60)


def test_compose_takes_every_profile(stack: Compose) -> None:
    every = [part for profile in PROFILES for part in ("--profile", profile)]
    services = set(stack.compose(*every, "config", "--services").split())
    assert {"prometheus", "otel-collector", "jaeger", "operator", "backup"} <= services


def test_prometheus_finds_every_process(stack: Compose) -> None:
    assert has_image("prom/prometheus:v2.42.0")
    stack.compose("--profile", "prometheus", "up", "-d", "prometheus")

    def count_up() -> int:
        page = docker(
            "exec", stack.container("prometheus"), "sh", "-c",
            "promtool query instant http://127.0.0.1:9090 'sum(up)' 2>/dev/null || true",
        )  # fmt: skip
        return int(float(page.split("=>")[1].split()[0])) if "=>" in page else 0

    eventually(lambda: count_up() == 7, timeout_s=60, why="seven targets are not up")
