"""How a storm is measured: figures from times, reads from what services publish, losses from logs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from client.events import LoggedOut, StateChanged
from tests.chaos import storm

if TYPE_CHECKING:
    from pathlib import Path

METRICS = """# HELP parley_auth_database_reads_total Reads.
# TYPE parley_auth_database_reads_total counter
parley_auth_database_reads_total{otel_scope_name="parley"} 41.0
parley_auth_commits_total 7.0
"""


def test_quantiles_are_in_the_unit_that_is_asked_for() -> None:
    figures = storm.quantiles([number / 1_000 for number in range(1, 101)], 1_000)
    assert figures["p50"] == pytest.approx(50.5)
    assert figures["p99"] == pytest.approx(99.0, abs=0.1)
    assert figures["max"] == 100.0


def test_a_spread_counts_everybody_once() -> None:
    figures = storm.spread([0.2, 0.9, 1.0, 3.7])
    assert figures["in_each_second"] == [2, 1, 0, 1]
    assert sum(figures["in_each_second"]) == figures["clients"] == 4


def test_only_messages_that_were_sent_in_the_time_count() -> None:
    others = storm.Others()
    others.delays = [(1.0, 9.0), (2.0, 0.001), (2.5, 0.003), (3.0, 9.0)]
    assert others.during(2.0, 3.0) == {"p50": 2.0, "p99": pytest.approx(3.0, abs=0.1), "max": 3.0}


class Publisher(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(METRICS.encode())

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def published() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Publisher)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class FakeStack:
    def __init__(self, processes: dict[str, dict[str, Any]]) -> None:
        self._processes = processes

    def processes(self) -> dict[str, dict[str, Any]]:
        return self._processes


def test_reads_are_those_of_auth_and_of_every_rooms_process() -> None:
    with published() as address:
        names = ("auth-1", "rooms-1", "rooms-2", "edge-1", "metrics-1")
        stack = FakeStack({name: {"prometheus": address} for name in names})
        assert storm.reads(stack) == 3 * 41  # type: ignore[arg-type]


class FakeSession:
    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []
        self.stop: asyncio.Event | None = None

    def post_text(self, room_id: str, text: str) -> str:
        self.texts.append((room_id, text))
        if self.stop is not None and len(self.texts) == 2:
            self.stop.set()
        return "key"


class FakeMember(storm.Member):
    """A member without a session."""

    def __init__(self) -> None:
        self.name, self.live_at, self.state, self.seqs, self.posted = "ann", 0.0, "", [], {}
        self.session = FakeSession()  # type: ignore[assignment]


def test_a_member_is_back_when_it_is_live_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 12.5)
    member = FakeMember()
    hear = member._on_event
    hear(StateChanged("live", "", None))  # type: ignore[arg-type]
    assert member.live_at == 12.5
    hear(StateChanged("connecting", "the edge died", 0.5))  # type: ignore[arg-type]
    assert (member.live_at, member.state) == (0.0, "connecting the edge died")
    hear(LoggedOut("no token"))
    assert member.state == "logged out: no token"


def test_the_crowd_finds_the_stack_by_its_home(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stack.json").write_text('{"client_ca": "/somewhere/ca.pem"}')
    place = storm.Place(tmp_path, 4_711)
    assert (place.port, place.ca) == (4_711, "/somewhere/ca.pem")


async def test_what_a_member_says_is_remembered_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storm, "TALK_PAUSE_S", 0.0)
    member = FakeMember()
    stop = member.session.stop = asyncio.Event()  # type: ignore[attr-defined]
    await storm.talk(member, "r1", stop)
    assert member.posted == {"r1": ["ann 0", "ann 1"]}
    assert member.session.texts == [("r1", "ann 0"), ("r1", "ann 1")]  # type: ignore[attr-defined]
