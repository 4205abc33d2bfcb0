"""A real Prometheus, given the example configuration, scrapes every process of a stack and sees what was sent."""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.parse
import urllib.request
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.people import People
from tests.helpers.servers import find_program, free_port
from tests.helpers.stack import ROOT, Stack, eventually, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = ROOT / "deploy" / "prometheus.yml"
SCRAPED_S = 30.0
MESSAGES = 7
# What may stand beside a number: nothing that people choose, and nothing that grows with them. A new one is added here.
LABELS = {"__name__", "instance", "job", "process", "service", "le", "qos_class", "kind", "certificate"}


class Prometheus:
    """A server of the test's own."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}/api/v1/"

    def ask(self, path: str, **query: str) -> Any:
        url = f"{self._base}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - http, to a server of our own
            return json.load(response)["data"]

    def total(self, metric: str) -> float:
        return sum(float(series["value"][1]) for series in self.ask("query", query=metric)["result"])

    def until(self, metric: str, value: float) -> None:
        eventually(lambda: self.total(metric) == value, timeout_s=SCRAPED_S, why=f"{metric} is not {value:g}")

    def scraped(self) -> set[tuple[str, str, str]]:
        """Of each target the process, how it is, and the error of the newest scrape."""
        return {(one["labels"]["process"], one["health"], one["lastError"]) for one in self.targets()}

    def targets(self) -> list[dict[str, Any]]:
        """The targets, each tried at least once; nothing before that."""
        try:
            found: list[dict[str, Any]] = self.ask("targets", state="active")["activeTargets"]
        except OSError:  # it does not listen yet
            return []
        return found if all(target["health"] != "unknown" for target in found) else []


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack(edges=2) as running:
        yield running


@pytest.fixture
def prometheus(stack: Stack, tmp_path: Path) -> Iterator[Prometheus]:
    program = find_program("prometheus")
    text = EXAMPLE.read_text()
    assert "../run/prometheus.json" in text
    assert "scrape_interval: 15s" in text
    text = text.replace("../run/prometheus.json", str(stack.home / "run" / "prometheus.json"))
    configuration = tmp_path / "prometheus.yml"
    configuration.write_text(text.replace("scrape_interval: 15s", "scrape_interval: 1s"))
    port = free_port()
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                *("--config.file", str(configuration), "--storage.tsdb.path", str(tmp_path / "data")),
                *("--web.listen-address", f"127.0.0.1:{port}"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield Prometheus(port)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()


async def test_every_process_is_scraped_without_error_and_the_numbers_are_those_of_what_happened(
    stack: Stack, prometheus: Prometheus
) -> None:
    async with AsyncExitStack() as exits:
        people = People(stack, exits)
        alice, bob = await people.person(), await people.person(edge=2)
        room_id = await people.room(alice, bob)
        for number in range(MESSAGES):
            await alice.say(room_id, f"number {number}")
        await bob.messages(room_id, MESSAGES)
        everybody = set(stack.processes())
        # On a busy machine a scrape may take longer than the second that it has; the next one does not.
        up = {(process, "up", "") for process in everybody}
        eventually(lambda: prometheus.scraped() == up, timeout_s=SCRAPED_S, why=f"not everybody is up: {up}")
        for metric, value in (  # of several processes, each of which is scraped at its own time
            ("parley_edge_messages_acknowledged_total", MESSAGES),
            ("parley_rooms_messages_stored_total", MESSAGES),
            ("parley_edge_messages_delivered_total", 2 * MESSAGES),
            ("parley_edge_sessions", 2),
            ("parley_edge_publish_duration_count", MESSAGES),
        ):
            prometheus.until(metric, value)


async def test_nothing_that_people_choose_is_a_label(stack: Stack, prometheus: Prometheus) -> None:
    async with AsyncExitStack() as exits:
        people = People(stack, exits)
        alice = await people.person("label-alice")
        room_id = await people.room(alice)
        await alice.say(room_id, "a text")
        eventually(lambda: len(prometheus.targets()) == len(stack.processes()), timeout_s=SCRAPED_S)
        series = prometheus.ask("series", **{"match[]": '{job="parley"}'})
    ours = [one for one in series if one["__name__"].startswith("parley_")]
    assert ours
    assert {label for one in ours for label in one} <= LABELS
    values = " ".join(value for one in ours for value in one.values())
    assert room_id not in values
    assert "label-alice" not in values


def test_the_example_is_what_prometheus_takes(tmp_path: Path) -> None:
    program = find_program("promtool")
    done = subprocess.run([program, "check", "config", str(EXAMPLE)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
