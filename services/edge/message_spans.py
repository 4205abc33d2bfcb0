"""Message spans: the way of the few texts that are traced, from the client's frame to the connections of this edge.

A text that is traced has a span from its frame to its answer, in it one for the wait in the queues and one for the
batch in which it went to rooms. A batch has one span, which belongs to one of its texts and links to the others. What
rooms sends back of a traced message gets a span for its delivery here. All of it hangs on numbers and positions that
the messages have anyway: a text that is not traced carries nothing, and is not looked at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec

from services.common import tracing
from services.common.tracing import MESSAGE_ID, ROOM_ID, USER_ID, SpanKind, context_of, fail, ns_of
from services.common.wire.codes import ErrorCode
from services.common.wire.trace_context import is_context
from services.edge.decisions import Text, TracedText
from services.edge.sampling import Sampler

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from services.common.clock import Clock

FAULTS: Final = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.UNKNOWN_OUTCOME, ErrorCode.OVERLOADED, ErrorCode.INTERNAL})
"""Refusals that are the server's fault: they are traced whatever chance has said."""

_WISHES_MAX: Final = 64
"""Texts that a client wants traced and that have not gone to rooms yet; of more, the oldest is forgotten."""

_WISH_S: Final = 10.0
"""So long a text may wait for rooms."""

_OPEN_MAX: Final = 1_000
"""Texts under way that are traced; it takes a rooms that answers nothing to get there."""

_DELIVERY_S_MAX: Final = 10.0
"""Afterwards nobody looks any more."""

_NOTHING: Final[Mapping[int, bytes]] = {}


class TextSpans(Protocol):
    """What the publisher and the feed tell."""

    def written(self, texts: Sequence[Text]) -> Mapping[int, bytes]:
        """A batch goes to rooms; returns the contexts of those that are traced, by number."""
        ...

    def stored(self, numbers: Sequence[int], epochs: Sequence[str], seqs: Sequence[int], slowest: Text | None) -> None:
        """Texts were stored; `slowest` is the one that came first."""
        ...

    def refused(self, text: Text, code: ErrorCode) -> None:
        """A text is not stored, or nobody knows."""
        ...

    def received(self, room_id: str, epoch: str, traces: Mapping[int, bytes]) -> None:
        """Messages have come from rooms and were given to the hub; `traces` has the contexts by seq."""
        ...


class NoSpans:
    """Nothing is traced."""

    def written(self, texts: Sequence[Text]) -> Mapping[int, bytes]:
        """Nothing."""
        return _NOTHING

    def stored(self, numbers: Sequence[int], epochs: Sequence[str], seqs: Sequence[int], slowest: Text | None) -> None:
        """Nothing."""

    def refused(self, text: Text, code: ErrorCode) -> None:
        """Nothing."""

    def received(self, room_id: str, epoch: str, traces: Mapping[int, bytes]) -> None:
        """Nothing."""


class _Open(msgspec.Struct):
    """A traced text under way. `batch` is the span of its batch where it belongs to this text."""

    text: Text
    span: Span
    context: bytes
    batch: Span | None = None


class _Delivery(NamedTuple):
    """A traced message that is being given out."""

    room_id: str
    seq: int
    until: float
    span: Span


class MessageSpans:
    """TextSpans that makes spans. `recipients(room_id)` counts the connections that see a room.

    `has_given(room_id, seq)` says whether all of these have been given a message, which may take several turns of the
    event loop; `after_turn` calls what it is given when what a turn has brought is written. `on_wish(context, user_id)`
    is told of traces that begin because a client wants them.
    """

    def __init__(
        self,
        sampler: Sampler,
        *,
        clock: Clock,
        recipients: Callable[[str], int],
        has_given: Callable[[str, int], bool],
        after_turn: Callable[[Callable[[], None]], object],
        on_wish: Callable[[bytes, str], object] = lambda _, __: None,
    ) -> None:
        self.sampler = sampler
        self._clock = clock
        self._recipients = recipients
        self._has_given = has_given
        self._after_turn = after_turn
        self._on_wish = on_wish
        self._open: dict[int, _Open] = {}
        self._deliveries: list[_Delivery] = []
        self._wishes: deque[TracedText] = deque(maxlen=_WISHES_MAX)

    def wish(self, text: TracedText) -> None:
        """A client wants a text traced."""
        self._wishes.append(text)

    def written(self, texts: Sequence[Text]) -> Mapping[int, bytes]:
        """See TextSpans."""
        sampler = self.sampler
        if sampler.skip >= len(texts) and not (self._wishes or self._open or sampler.has_targets):
            sampler.skip -= len(texts)
            return _NOTHING
        return self._begin(texts)

    def _begin(self, texts: Sequence[Text]) -> Mapping[int, bytes]:
        now = self._clock.monotonic()
        again = {text.number: self._open[text.number].context for text in texts if text.number in self._open}
        chosen = [text for text in self._choose(texts, now) if text.number not in again]
        if not chosen or not tracing.current().is_on or len(self._open) >= _OPEN_MAX:
            return again
        opened = [self._begin_text(text, now) for text in chosen]
        first, *others = opened
        first.batch = tracing.current().begin(
            "publish batch",
            kind=SpanKind.PRODUCER,
            parent=first.span,
            attributes={"messaging.batch.message_count": len(texts), ROOM_ID: first.text.room_id},
            links=[one.context for one in others],
        )
        first.context = context_of(first.batch)
        self._open.update((one.text.number, one) for one in opened)
        return again | {one.text.number: one.context for one in opened}

    def _choose(self, texts: Sequence[Text], now: float) -> list[Text]:
        sampler = self.sampler
        wished: dict[int, Text] = {}
        watched: dict[int, Text] = {}
        if self._wishes:
            wished = {text.number: text for text in texts if type(text) is TracedText}
            left = (text for text in self._wishes if text.number not in wished and text.received_at > now - _WISH_S)
            self._wishes = deque(left, maxlen=_WISHES_MAX)
        if sampler.has_targets:
            sampler.targets(now)  # without those whose time is over
            watched = {text.number: text for text in texts if sampler.is_target(text.room_id, text.username)}
        chosen = [text for text in watched.values() if sampler.may_begin_target(now)]
        chosen += [text for text in wished.values() if text.number not in watched and sampler.may_begin_wish(now)]
        asked = watched.keys() | wished.keys()
        by_chance = (texts[index] for index in sampler.due(len(texts)))
        return chosen + [text for text in by_chance if text.number not in asked and sampler.may_begin(now)]

    def _begin_text(self, text: Text, now: float) -> _Open:
        tracer = tracing.current()
        start_ns, now_ns = ns_of(text.received_at, monotonic=now), ns_of(now, monotonic=now)
        if isinstance(text, TracedText):
            self._on_wish(text.context, text.user_id)
        span = tracer.begin(
            "text_message",
            kind=SpanKind.SERVER,
            parent=text.context if isinstance(text, TracedText) else None,
            attributes=_attributes(text),
            start_ns=start_ns,
        )
        tracer.record("queue", parent=span, start_ns=start_ns, end_ns=now_ns)
        return _Open(text, span, context_of(span))

    def stored(self, numbers: Sequence[int], epochs: Sequence[str], seqs: Sequence[int], slowest: Text | None) -> None:
        """See TextSpans."""
        if self._open:
            traced = [index for index, number in enumerate(numbers) if number in self._open]
            for index in traced:
                one = self._open.pop(numbers[index])
                one.span.set_attribute(MESSAGE_ID, f"{one.text.room_id}-{epochs[index]}-{seqs[index]}")
                _end(one)
                if one.text is slowest:
                    slowest = None
        if slowest is not None:
            now = self._clock.monotonic()
            if now - slowest.received_at >= tracing.current().slow_s and self.sampler.may_report(now):
                message_id = f"{slowest.room_id}-{epochs[0]}-{seqs[0]}"
                self._report(slowest, now, {MESSAGE_ID: message_id})

    def refused(self, text: Text, code: ErrorCode) -> None:
        """See TextSpans."""
        one = self._open.pop(text.number, None)
        if one is not None:
            if code in FAULTS:
                fail(one.span, code.value)
            else:
                one.span.set_attribute("parley.error.code", code.value)
            _end(one)
        elif code in FAULTS:
            now = self._clock.monotonic()
            if self.sampler.may_report(now):
                self._report(text, now, {}, error=code.value)

    def _report(self, text: Text, now: float, more: Mapping[str, str], error: str | None = None) -> None:
        """A trace of one span for a text that chance had passed over."""
        end_ns = ns_of(now, monotonic=now)
        tracing.current().record(
            "text_message",
            kind=SpanKind.SERVER,
            start_ns=end_ns - int((now - text.received_at) * 1e9),
            end_ns=end_ns,
            parent=text.context if isinstance(text, TracedText) else None,
            attributes={**_attributes(text), **more},
            error=error,
        )

    def received(self, room_id: str, epoch: str, traces: Mapping[int, bytes]) -> None:
        """See TextSpans."""
        tracer = tracing.current()
        recipients = self._recipients(room_id)
        if not tracer.is_on or not recipients:
            return
        begun = [
            _Delivery(
                room_id,
                seq,
                self._clock.monotonic() + _DELIVERY_S_MAX,
                tracer.begin(
                    "deliver",
                    kind=SpanKind.CONSUMER,
                    parent=context,
                    attributes={MESSAGE_ID: f"{room_id}-{epoch}-{seq}", "parley.recipients": recipients},
                ),
            )
            for seq, context in traces.items()
            if is_context(context)
        ]
        if begun and not self._deliveries:
            self._after_turn(self._look_at_deliveries)
        self._deliveries += begun

    def _look_at_deliveries(self) -> None:
        """End the spans of what has been given to everybody; look at the others when the next turn is over."""
        now = self._clock.monotonic()
        left = []
        for one in self._deliveries:
            if self._has_given(one.room_id, one.seq) or now >= one.until:
                one.span.end()
            else:
                left.append(one)
        self._deliveries = left
        if left:
            self._after_turn(self._look_at_deliveries)


def _attributes(text: Text) -> dict[str, str]:
    return {ROOM_ID: text.room_id, USER_ID: text.user_id, "parley.qos.class": text.qos_class.label}


def _end(one: _Open) -> None:
    if one.batch is not None:
        one.batch.end()
    one.span.end()
