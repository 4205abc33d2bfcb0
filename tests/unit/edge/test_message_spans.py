from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from services.common.clock import FakeClock
from services.common.tracing import MESSAGE_ID
from services.common.wire.codes import ErrorCode
from services.edge.decisions import Text, TracedText
from services.edge.message_spans import MessageSpans
from services.edge.qos.classes import QosClass
from services.edge.sampling import WISH_RATE_MAX, Sampler, Target
from tests.helpers.spans import is_below, one, recorded

CONTEXT = bytes(range(1, 25))


class World:
    def __init__(self, ratio: float = 0.0, rate_max: float = 1_000.0) -> None:
        self.clock = FakeClock()
        self.sampler = Sampler(ratio=ratio, rate_max=rate_max, uniform=lambda: 0.5)
        self.after_turn: list[Callable[[], None]] = []
        self.recipients = 3
        self.given = 0
        self.wished: list[tuple[bytes, str]] = []
        self.spans = MessageSpans(
            self.sampler,
            clock=self.clock,
            recipients=lambda _: self.recipients,
            has_given=lambda _, seq: seq <= self.given,
            after_turn=self.after_turn.append,
            on_wish=lambda context, user_id: self.wished.append((context, user_id)),
        )

    def text(self, number: int, *, context: bytes | None = None, room_id: str = "r1", username: str = "ada") -> Text:
        columns: tuple[Any, ...] = (room_id, "hi", None, None, QosClass.NORMAL, f"u-{username}", username)
        now = self.clock.monotonic()
        text = Text(*columns, now) if context is None else TracedText(*columns, now, context=context)
        text.number = number
        return text

    def wish(self, number: int) -> TracedText:
        text = self.text(number, context=CONTEXT)
        assert isinstance(text, TracedText)
        self.spans.wish(text)
        return text


def test_what_is_not_due_leaves_no_trace() -> None:
    world = World()
    with recorded() as spans:
        texts = [world.text(n) for n in range(1, 5)]
        assert not world.spans.written(texts)
        world.spans.stored([1, 2, 3, 4], ["e"] * 4, [1, 2, 3, 4], texts[0])
        world.spans.refused(texts[0], ErrorCode.NOT_A_MEMBER)
        world.spans.received("r1", "e", {})
    assert not spans


def test_a_batch_has_one_span_with_links_to_the_others() -> None:
    world = World(ratio=1.0)
    with recorded() as spans:
        texts = [world.text(n) for n in (7, 8, 9)]
        contexts = world.spans.written(texts)
        assert set(contexts) == {7, 8, 9}
        world.clock.advance(0.25)
        world.spans.stored([7, 8, 9], ["e"] * 3, [1, 2, 3], texts[0])
    batch = one(spans, "publish batch")
    entries = {span.attributes[MESSAGE_ID]: span for span in spans if span.name == "text_message"}  # type: ignore[index]
    assert set(entries) == {"r1-e-1", "r1-e-2", "r1-e-3"}
    assert is_below(batch, entries["r1-e-1"])
    assert {link.context.span_id for link in batch.links} == {
        entries[name].context.span_id  # type: ignore[union-attr]
        for name in ("r1-e-2", "r1-e-3")
    }
    assert contexts[7][16:] == batch.context.span_id.to_bytes(8, "big")  # type: ignore[union-attr]
    assert len([span for span in spans if span.name == "queue"]) == 3


def test_a_client_s_wish_goes_on_with_its_trace() -> None:
    world = World()
    with recorded() as spans:
        text = world.wish(2)
        others = [world.text(1), world.text(3)]
        assert set(world.spans.written([others[0], text, others[1]])) == {2}
        world.spans.stored([1, 2, 3], ["e"] * 3, [5, 6, 7], None)
        assert not world.spans.written([world.text(4)])
    entry = one(spans, "text_message")
    assert entry.context is not None
    assert entry.context.trace_id.to_bytes(16, "big") == CONTEXT[:16]
    assert entry.parent is not None
    assert entry.parent.span_id.to_bytes(8, "big") == CONTEXT[16:]
    assert world.wished == [(CONTEXT, "u-ada")]


def test_wishes_have_a_rate() -> None:
    world = World(rate_max=1.0)
    with recorded():
        for number in range(int(WISH_RATE_MAX)):
            assert world.spans.written([world.wish(number)])
        assert not world.spans.written([world.wish(100)])
        assert world.sampler.limited == 1


def test_a_room_and_a_user_can_be_watched() -> None:
    world = World()
    world.sampler.watch(Target(room_id="r2"), until=60.0, now=0.0)
    world.sampler.watch(Target(username="eve"), until=60.0, now=0.0)
    with recorded():
        texts = [world.text(1), world.text(2, room_id="r2"), world.text(3, username="eve")]
        assert set(world.spans.written(texts)) == {2, 3}
        world.clock.advance(61.0)
        assert not world.spans.written([world.text(4, room_id="r2")])


def test_what_goes_again_keeps_its_trace() -> None:
    world = World(ratio=1.0)
    with recorded() as spans:
        texts = [world.text(1)]
        first = world.spans.written(texts)
        assert world.spans.written(texts) == first
        world.spans.stored([1], ["e"], [1], None)
        world.spans.stored([1], ["e"], [1], None)
    assert [span.name for span in spans] == ["queue", "publish batch", "text_message"]


@pytest.mark.parametrize(("code", "is_error"), [(ErrorCode.UNKNOWN_OUTCOME, True), (ErrorCode.NOT_A_MEMBER, False)])
def test_a_traced_text_that_is_refused(code: ErrorCode, is_error: bool) -> None:
    world = World(ratio=1.0)
    with recorded() as spans:
        text = world.text(1)
        world.spans.written([text])
        world.spans.refused(text, code)
        assert not world.spans._open
    assert (not one(spans, "text_message").status.is_ok) is is_error


def test_faults_and_what_is_slow_are_traced_whatever_chance_says() -> None:
    world = World(rate_max=2.0)
    with recorded(slow_s=1.0) as spans:
        text = world.text(1)
        world.spans.refused(text, ErrorCode.OVERLOADED)
        assert not spans.pop().status.is_ok
        world.clock.advance(1.5)
        world.spans.stored([1], ["e"], [9], text)
        slow = spans.pop()
        assert slow.attributes[MESSAGE_ID] == "r1-e-9"  # type: ignore[index]
        assert slow.end_time - slow.start_time == pytest.approx(1.5e9, rel=0.01)  # type: ignore[operator]
        for number in range(2, 40):
            world.spans.refused(world.text(number), ErrorCode.OVERLOADED)
    assert len(spans) == WISH_RATE_MAX - 1  # the slow one had the first


def test_a_delivery_ends_when_everybody_has_it() -> None:
    world = World()
    with recorded() as spans:
        world.spans.received("r1", "e", {4: CONTEXT, 5: b"nonsense", 6: bytes(24)})
        world.spans.received("r2", "e", {})
        world.after_turn.pop()()
        assert not spans
        world.given = 4
        world.after_turn.pop()()
        assert not world.after_turn
        world.recipients = 0
        world.spans.received("r1", "e", {5: CONTEXT})
    delivery = one(spans, "deliver")
    assert delivery.attributes == {MESSAGE_ID: "r1-e-4", "parley.recipients": 3}


def test_without_tracing_nothing_is_held() -> None:
    world = World(ratio=1.0)
    texts = [world.text(1)]
    assert not world.spans.written(texts)
    world.spans.stored([1], ["e"], [1], None)
    world.spans.received("r1", "e", {4: CONTEXT})
    assert not world.after_turn
