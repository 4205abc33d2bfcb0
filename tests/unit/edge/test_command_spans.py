from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import trace

from services.common.clock import FakeClock
from services.common.tracing import USER_ID
from services.common.wire.requests import GetTrace
from services.edge.command_spans import CommandSpans
from services.edge.decisions import Command, Reply, User
from services.edge.qos.classes import QosClass
from services.edge.sampling import WISH_RATE_MAX, Sampler, Target
from tests.helpers.spans import is_below, one, recorded

NAME = GetTrace("m").type


class Connection:
    def __init__(self, user: User | None) -> None:
        self.user = user


class World:
    def __init__(self, *, ratio: float = 0.0) -> None:
        self.clock = FakeClock()
        self.sampler = Sampler(ratio=ratio, rate_max=2.0, uniform=lambda: 0.5)
        self.spans = CommandSpans(self.sampler, self.clock)

    def run(self, *, code: str = "", took_s: float = 0.0, user: User | None = None) -> Any:
        """Handles a command; returns the span that was current meanwhile."""
        command = Command(GetTrace("m"), None, QosClass.HIGH, self.clock.monotonic(), Connection(user))
        with self.spans.around(command) as watched:
            current = trace.get_current_span()
            self.clock.advance(took_s)
            watched.reply = Reply("error", {"code": code}) if code else Reply("success", {})
        return current


def test_a_command_that_is_due_has_a_span_which_is_current_while_it_is_handled() -> None:
    world = World(ratio=1.0)
    with recorded() as spans:
        current = world.run(user=User("u-ada", "ada", "s1", 0.0))
    span = one(spans, NAME)
    assert is_below(one(spans, "queue"), span)
    assert current.get_span_context() == span.context
    assert span.attributes is not None
    assert span.attributes[USER_ID] == "u-ada"
    assert span.status.is_ok
    assert not trace.get_current_span().is_recording()


def test_what_is_not_due_has_none() -> None:
    world = World()
    with recorded() as spans:
        assert not world.run().is_recording()
        world.run(code="not_a_member")  # the caller's own fault
    assert not spans


@pytest.mark.parametrize(("code", "is_ok"), [("unavailable", False), ("not_a_member", True)])
def test_a_traced_command_says_how_it_failed(code: str, is_ok: bool) -> None:
    world = World(ratio=1.0)
    with recorded() as spans:
        world.run(code=code)
    span = one(spans, NAME)
    assert span.attributes is not None
    assert (span.attributes["parley.error.code"], span.status.is_ok) == (code, is_ok)


def test_faults_and_what_is_slow_have_a_span_after_the_fact() -> None:
    world = World()
    with recorded(slow_s=1.0) as spans:
        world.run(code="internal")
        assert not spans.pop().status.is_ok
        world.run(took_s=1.5)
        slow = spans.pop()
        assert slow.status.is_ok
        assert slow.start_time is not None
        assert slow.end_time is not None
        assert slow.end_time - slow.start_time == pytest.approx(1.5e9, rel=0.01)
        for _ in range(50):
            world.run(code="internal")
    assert len(spans) <= WISH_RATE_MAX


def test_a_span_ends_though_the_handler_raises() -> None:
    world = World(ratio=1.0)
    command = Command(GetTrace("m"), None, QosClass.HIGH, world.clock.monotonic(), Connection(None))
    with recorded() as spans, pytest.raises(KeyError), world.spans.around(command):
        raise KeyError
    assert one(spans, NAME).end_time is not None


def test_who_is_watched_is_traced_and_nobody_else() -> None:
    world = World()
    world.sampler.watch(Target(username="ada"), until=60.0, now=0.0)
    with recorded() as spans:
        world.run(user=User("u-bob", "bob", "s2", 0.0))
        world.run()
        assert not spans
        world.run(user=User("u-ada", "ada", "s1", 0.0))
        assert one(spans, NAME)


def test_tracing_that_is_off_makes_none() -> None:
    world = World(ratio=1.0)
    assert not world.run(code="internal", took_s=5.0).is_recording()
