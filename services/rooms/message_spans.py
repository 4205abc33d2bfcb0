"""Message spans: the way of the few messages that are traced, from an edge's batch through the commit to the streams.

An edge names them by number beside its batch. Of each there is a span from there to its answer, in it one for the
commit that stored it: a commit has one span, which belongs to one of its messages and links to the others. Where the
message goes out to edges, the context goes with it. Messages that are not traced carry nothing: what is known of the
others is kept beside the log and found again by room and seq.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from services.common import tracing
from services.common.tracing import MESSAGE_ID, ROOM_ID, SpanKind, context_of, fail, ns_of
from services.common.wire.codes import ErrorCode
from services.common.wire.trace_context import is_context

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from services.common.clock import Clock
    from services.rooms.messages import Outcome, Publish, Run

    Answer = Callable[[Sequence[Publish], Sequence[Outcome] | None], None]

LIVE_MAX: Final = 1_000
"""Messages that are stored and have not been made ready for the streams: it happens at once, or nobody follows."""

TRACED_MAX: Final = 64
"""Traced messages in one batch; an edge traces a few a second, and what operators watch."""

_FAULTS: Final = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.OVERLOADED, ErrorCode.INTERNAL})


class Commit(NamedTuple):
    """The last commit: when it ended, monotonic, and how long it took."""

    ended_at: float
    seconds: float


class MessageSpans:
    """Spans of messages at rooms. `on_commit` is told of each commit, before its results."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._commit = Commit(0.0, 0.0)
        self._live: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    def on_commit(self, seconds: float) -> None:
        """A transaction is synced, and took that long."""
        self._commit = Commit(self._clock.monotonic(), seconds)

    def watch(self, contexts: Mapping[int, bytes]) -> Answer:
        """A batch came with contexts by number; returns what is to be told its outcome, before anybody else."""
        received_at = self._clock.monotonic()
        traced = dict([*contexts.items()][:TRACED_MAX])

        def answered(publishes: Sequence[Publish], outcomes: Sequence[Outcome] | None) -> None:
            if tracing.current().is_on:
                self._record(received_at, traced, publishes, outcomes)

        return answered

    def _record(
        self,
        received_at: float,
        contexts: Mapping[int, bytes],
        publishes: Sequence[Publish],
        outcomes: Sequence[Outcome] | None,
    ) -> None:
        now = self._clock.monotonic()
        start_ns, end_ns = ns_of(received_at, monotonic=now), ns_of(now, monotonic=now)
        spans: list[Span] = []
        for index, publish in enumerate(publishes):
            context = contexts.get(publish.number)
            if context is None or not is_context(context):
                continue
            span = tracing.current().begin(
                "store",
                kind=SpanKind.CONSUMER,
                parent=context,
                attributes={ROOM_ID: publish.room_id, "messaging.batch.message_count": len(publishes)},
                start_ns=start_ns,
            )
            outcome = None if outcomes is None else outcomes[index]
            if outcome is not None and outcome.code is None:
                span.set_attribute(MESSAGE_ID, f"{publish.room_id}-{outcome.epoch}-{outcome.seq}")
                span.set_attribute("parley.duplicate", outcome.is_duplicate)
                spans.append(span)
                if outcome.is_new:
                    self._remember(publish.room_id, outcome.seq, context_of(span))
            else:
                code = ErrorCode.UNKNOWN_OUTCOME if outcome is None else outcome.code
                _note(span, code)
                span.end(end_ns)
        self._record_commit(spans, now, start_ns)
        for span in spans:
            span.end(end_ns)

    def _record_commit(self, spans: Sequence[Span], now: float, start_ns: int) -> None:
        if not spans:
            return
        first, *others = spans
        commit = self._commit
        end_ns = ns_of(commit.ended_at, monotonic=now)
        tracing.current().record(
            "commit",
            parent=first,
            start_ns=max(start_ns, end_ns - int(commit.seconds * 1e9)),
            end_ns=end_ns,
            links=[context_of(span) for span in others],
        )

    def _remember(self, room_id: str, seq: int, context: bytes) -> None:
        self._live[room_id, seq] = context
        if len(self._live) > LIVE_MAX:
            self._live.popitem(last=False)

    def take(self, run: Run) -> Mapping[int, bytes]:
        """The contexts of a run's messages, by seq, as it is made ready for the streams; once."""
        if not self._live:
            return {}
        room_id = run.room_id
        return {
            message.seq: self._live.pop((room_id, message.seq))
            for message in run.messages
            if (room_id, message.seq) in self._live
        }


def _note(span: Span, code: ErrorCode | None) -> None:
    if code in _FAULTS or code is ErrorCode.UNKNOWN_OUTCOME:
        fail(span, code.value)
    elif code is not None:
        span.set_attribute("parley.error.code", code.value)
