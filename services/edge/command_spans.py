"""Command spans: the commands that are traced, from the client's frame to the reply.

While a traced command is handled its span is the current one, so that the calls to auth and rooms continue the trace. A
command that fails by the server's fault, or is slow, gets a span after the fact.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace

from services.common import tracing
from services.common.tracing import USER_ID, SpanKind, fail, ns_of
from services.edge.decisions import Command, Reply
from services.edge.message_spans import FAULTS

if TYPE_CHECKING:
    from services.common.clock import Clock
    from services.edge.sampling import Sampler

_FAULTS: Final = frozenset(code.value for code in FAULTS)


class Watched:
    """A command under way; what is put into `reply` says how it ended."""

    __slots__ = ("reply",)

    def __init__(self) -> None:
        self.reply: Reply | bytes | None = None

    @property
    def code(self) -> str:
        """The error code of the reply; empty where it is none."""
        return str(self.reply.data.get("code", "")) if isinstance(self.reply, Reply) else ""


class CommandSpans:
    """Makes spans of the commands that `sampler` chooses."""

    def __init__(self, sampler: Sampler, clock: Clock) -> None:
        self._sampler = sampler
        self._clock = clock

    @contextmanager
    def around(self, command: Command) -> Iterator[Watched]:
        """While the command is handled."""
        watched = Watched()
        now = self._clock.monotonic()
        if not self._is_due(command, now):
            yield watched
            self._look_back(command, watched.code)
            return
        tracer = tracing.current()
        start_ns, now_ns = ns_of(command.received_at, monotonic=now), ns_of(now, monotonic=now)
        span = tracer.begin(
            command.request.type, kind=SpanKind.SERVER, attributes=_attributes(command), start_ns=start_ns
        )
        tracer.record("queue", parent=span, start_ns=start_ns, end_ns=now_ns)
        try:
            with trace.use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False):
                yield watched
        finally:
            if watched.code:
                span.set_attribute("parley.error.code", watched.code)
            if watched.code in _FAULTS:
                fail(span, watched.code)
            span.end()

    def _is_due(self, command: Command, now: float) -> bool:
        sampler = self._sampler
        user = command.connection.user
        if sampler.has_targets and user is not None and sampler.targets(now):
            room_id = getattr(command.request, "room_id", None) or ""
            if sampler.is_target(room_id, user.username):
                return tracing.current().is_on and sampler.may_begin_target(now)
        return bool(sampler.due(1)) and tracing.current().is_on and sampler.may_begin(now)

    def _look_back(self, command: Command, code: str) -> None:
        tracer = tracing.current()
        now = self._clock.monotonic()
        is_fault = code in _FAULTS
        if not tracer.is_on or not (is_fault or now - command.received_at >= tracer.slow_s):
            return
        if self._sampler.may_report(now):
            tracer.record(
                command.request.type,
                kind=SpanKind.SERVER,
                start_ns=ns_of(command.received_at, monotonic=now),
                end_ns=ns_of(now, monotonic=now),
                attributes=_attributes(command),
                error=code if is_fault else None,
            )


def _attributes(command: Command) -> dict[str, Any]:
    attributes = {"parley.qos.class": command.qos_class.label}
    if command.connection.user is not None:
        attributes[USER_ID] = command.connection.user.user_id
    return attributes
