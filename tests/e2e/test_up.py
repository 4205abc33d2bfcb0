"""`parley up` as a command: what it prints, writes, refuses and leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers.stack import ROOT, Stack, eventually, is_alive, parley

if TYPE_CHECKING:
    from collections.abc import Callable

READY_WITHIN_S = 10.0


def run(*arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        parley(*arguments), cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s
    )


def test_a_first_start_makes_everything_and_is_ready_in_time(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(config="")  # as a person starts it, with all defaults
    stack.start()
    # The promise is 10 s of a machine with nothing else to do. This one runs tests, so CPU time is counted: where it is
    # below that, one core is enough to keep the promise.
    assert stack.cpu_s() < READY_WITHIN_S
    ready = [line for line in stack.output if line.startswith("ready")]
    assert len(ready) == 1
    assert f"127.0.0.1:{stack.port}" in ready[0]
    assert "parley chat" in ready[0]

    home = {str(path.relative_to(stack.home)) for path in stack.home.rglob("*")}
    assert {"certificates", "data", "logs/server.log", "monitoring/graphs", "run/stack.json"} <= home
    assert {"certificates/admin-local-cert.pem", "certificates/admin-local-key.pem"} <= home
    for key in (stack.home / "certificates").glob("*key*"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600, key
    assert stack.stop() == 0
    assert (stack.home / "logs" / "performance_stats.json").read_text().count("\n") >= 1


def test_stack_json_is_as_documented(own_stack: Stack) -> None:
    path = own_stack.home / "run" / "stack.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    info = own_stack.info()
    assert set(info) == {"client_ca", "grpc_ca", "processes"}
    for ca in (info["client_ca"], info["grpc_ca"]):
        assert "BEGIN CERTIFICATE" in Path(ca).read_text()
    processes = {process["name"]: process for process in info["processes"]}
    assert set(processes) == {"edge-1", "auth-1", "rooms-1", "metrics-1"}
    for name, process in processes.items():
        expected = {"name", "pid", "grpc", "prometheus"} | ({"client_port"} if name == "edge-1" else set())
        assert set(process) == expected
        assert is_alive(process["pid"])
        for address in (process["grpc"], process["prometheus"]):
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=5).close()
    assert processes["edge-1"]["client_port"] == own_stack.port


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_everything_in_order(make_stack: Callable[..., Stack], number: signal.Signals) -> None:
    stack = make_stack().start()
    pids = stack.pids()
    assert stack.process is not None
    stack.process.send_signal(number)
    assert stack.process.wait(30) == 0
    assert not any(map(is_alive, pids.values()))
    assert [path.name for path in (stack.home / "run").iterdir()] == ["lock"]
    assert "Traceback" not in stack.log_text()
    stopped = [e["service"] for e in stack.log_events() if e["event"] == "stopping"]
    assert stopped.index("edge-1") < stopped.index("auth-1")
    assert stopped[-1] == "metrics-1"


def test_a_second_one_on_the_same_home_is_refused(own_stack: Stack) -> None:
    second = run("up", *own_stack.arguments)
    assert second.returncode == 1
    assert "already uses" in second.stderr
    assert str(own_stack.home) in second.stderr
    assert "Traceback" not in second.stderr
    assert all(map(is_alive, own_stack.pids().values()))


def test_a_port_in_use_is_named(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    with contextlib.closing(socket.create_server(("127.0.0.1", stack.port))):
        refused = run("up", *stack.arguments)
    assert refused.returncode == 1
    assert f"port {stack.port}" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[auth]\nbcrypt_round = 4\n", "bcrypt_round"),
        ("[auth]\nbcrypt_rounds = 'x'\n", "bcrypt_rounds"),
        ("[auht]\n", "auht"),
        ("[common]\nlog_level = 'loud'\n", "log_level"),
        ("[metrics]\nstats_interval_s = 0\n", "stats_interval_s"),
        ("this is not TOML", "test.toml"),
    ],
)
def test_a_bad_configuration_stops_the_start_and_is_named(
    make_stack: Callable[..., Stack], text: str, named: str
) -> None:
    stack = make_stack(config=text)
    refused = run("up", *stack.arguments)
    assert refused.returncode == 1
    assert named in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert refused.stdout == ""


def test_a_bad_variable_is_named(make_stack: Callable[..., Stack], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_ROOMS_NO_SUCH_KEY", "1")
    refused = run("up", *make_stack().arguments)
    assert refused.returncode == 1
    assert "PARLEY_ROOMS_NO_SUCH_KEY" in refused.stderr


@pytest.mark.parametrize("arguments", [["--rooms", "2"], ["--database", "mysql://x"], ["--redis", "redis://x"]])
def test_what_lacks_a_server_is_refused_by_name(tmp_path: Path, arguments: list[str]) -> None:
    refused = run("up", "--home", str(tmp_path), *arguments)
    assert refused.returncode == 1
    assert arguments[0] in refused.stderr
    assert not list(tmp_path.iterdir())


def test_several_edges_take_neighbouring_ports(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(edges=2).start()
    ports = {name: process.get("client_port") for name, process in stack.processes().items()}
    assert (ports["edge-1"], ports["edge-2"]) == (stack.port, stack.port + 1)
    assert stack.stop() == 0


def test_killing_the_supervisor_ends_everything_and_the_home_can_be_used_again(own_stack: Stack) -> None:
    pids = own_stack.pids()
    assert own_stack.process is not None
    os.kill(own_stack.process.pid, signal.SIGKILL)
    own_stack.process.wait()
    eventually(lambda: not any(map(is_alive, pids.values())), why="a service outlived its supervisor")
    own_stack.start()
    assert set(own_stack.pids().values()).isdisjoint(pids.values())


def test_an_operators_identity_is_made(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    made = run("certs", "--home", str(stack.home), "admin", "alice")
    assert made.returncode == 0
    names = {path.name for path in (stack.home / "certificates").iterdir()}
    assert {"admin-alice-cert.pem", "admin-alice-key.pem"} <= names
    refused = run("certs", "--home", str(stack.home), "admin", "../mallory")
    assert refused.returncode == 1
    assert "mallory" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_statistics_are_written_while_it_runs(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(config="[metrics]\nstats_interval_s = 1\n").start()
    path = stack.home / "logs" / "performance_stats.json"
    eventually(lambda: path.exists() and len(path.read_text().splitlines()) >= 2, why="no statistics")
    stack.stop()
    for line in path.read_text().splitlines():
        document = json.loads(line)
        assert "timestamp" in document
        assert {"uptime_seconds", "total_connections", "concurrent_users", "messages_sent"} <= set(document["stats"])
