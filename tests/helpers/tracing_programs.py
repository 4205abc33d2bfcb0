"""The real OpenTelemetry collector and the real Jaeger, with the configuration that is shipped, on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.servers import find_go_program
from tests.helpers.stack import ROOT, eventually, free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIGURATION = ROOT / "deploy" / "config" / "otel-collector.yml"
READY_S = 30.0


def skip_where_left_out() -> None:
    """`.ci/run` says so where nothing could build them, which says nothing about Parley."""
    if os.environ.get("PARLEY_WITHOUT_TRACING"):
        pytest.skip("the collector and Jaeger could not be built here (tests/helpers/tracing_programs.sh)")


@contextlib.contextmanager
def _running(command: list[str], folder: Path) -> Iterator[Path]:
    """The program until the end; what it says goes into the file that this gives."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield log
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def page(address: str, path: str = "/") -> str:
    """What is there; nothing where nobody answers."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            return str(answer.read().decode())
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return ""


class Jaeger:
    """Where it takes spans (`otlp`, host:port), and what it has."""

    def __init__(self, otlp: str, api: str) -> None:
        self.otlp = otlp
        self._api = api

    def spans(self, trace_id: str) -> set[tuple[str, str]]:
        """Of a trace: the instance and the name of each span."""
        answer: dict[str, Any] = json.loads(page(self._api, f"/api/traces/{trace_id}") or "{}")
        return {
            (_instance(trace["processes"][span["processID"]]), span["operationName"])
            for trace in answer.get("data") or ()
            for span in trace["spans"]
        }


def _instance(process: dict[str, Any]) -> str:
    return str(next(tag["value"] for tag in process["tags"] if tag["key"] == "service.instance.id"))


@contextlib.contextmanager
def running_jaeger(folder: Path) -> Iterator[Jaeger]:
    """Skips the test where there is none."""
    skip_where_left_out()
    first = free_ports(11)
    otlp, api, health, *rest = (f"127.0.0.1:{first + number}" for number in range(11))
    others = iter(rest)
    command = [
        find_go_program("jaeger-all-in-one"),
        f"--collector.otlp.grpc.host-port={otlp}", f"--query.http-server.host-port={api}",
        f"--admin.http.host-port={health}",
        *(f"--{name}.host-port={next(others)}" for name in (
            "collector.otlp.http", "collector.grpc-server", "collector.http-server", "query.grpc-server", "http-server",
        )),
        *(f"--processor.{name}.server-host-port={next(others)}" for name in (
            "jaeger-binary", "jaeger-compact", "zipkin-compact",
        )),
    ]  # fmt: skip
    with _running(command, folder) as log:
        eventually(lambda: page(health), timeout_s=READY_S, why=f"Jaeger does not serve: {log}")
        yield Jaeger(otlp, api)


class Collector:
    """Where it takes telemetry (`url`), and what it tells Prometheus."""

    def __init__(self, url: str, prometheus: str) -> None:
        self.url = url
        self._prometheus = prometheus

    def metrics(self) -> str:
        """The page that Prometheus reads."""
        return page(self._prometheus, "/metrics")


@contextlib.contextmanager
def running_collector(folder: Path, *, certificate: Path, key: Path, jaeger: str) -> Iterator[Collector]:
    """With the shipped configuration, in which only addresses and paths are others. Skips the test without one."""
    skip_where_left_out()
    port = free_ports(2)
    prometheus = f"127.0.0.1:{port + 1}"
    text = CONFIGURATION.read_text()
    for shipped, here in (
        ("/run/secrets/parley/certificate.pem", str(certificate)),
        ("/run/secrets/parley/key.pem", str(key)),
        ("0.0.0.0:4317", f"127.0.0.1:{port}"),
        ("0.0.0.0:9464", prometheus),
        ("jaeger:4317", jaeger),
    ):
        assert text.count(shipped) == 1, shipped
        text = text.replace(shipped, here)
    # Its own metrics would take a port that is always the same.
    text += "  telemetry:\n    metrics:\n      level: none\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "collector.yml").write_text(text)
    with _running([find_go_program("otelcol"), f"--config={folder / 'collector.yml'}"], folder) as log:
        ready = "Everything is ready"
        eventually(lambda: ready in log.read_text(), timeout_s=READY_S, why=f"the collector does not serve: {log}")
        yield Collector(f"https://localhost:{port}", prometheus)
