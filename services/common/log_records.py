"""Log records: the events of our logs in OpenTelemetry's form."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import TraceFlags

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.sdk.resources import Resource

_SEVERITIES: Final = {
    "debug": SeverityNumber.DEBUG,
    "info": SeverityNumber.INFO,
    "warning": SeverityNumber.WARN,
    "error": SeverityNumber.ERROR,
    "critical": SeverityNumber.FATAL,
}
_PLAIN: Final = (str, bool, int, float)
# What is told otherwise.
_NOT_ATTRIBUTES: Final = frozenset({"event", "level", "ts", "service", "trace_id", "span_id"})
_INT_MAX: Final = 2**63


def to_queue(put: Callable[[ReadableLogRecord], object], resource: Resource) -> Callable[[Mapping[str, Any]], object]:
    """A taker of log events that puts each of them, as a record."""

    def take(event: Mapping[str, Any]) -> None:
        put(record_of(event, resource, now_ns=time.time_ns()))

    return take


def record_of(event: Mapping[str, Any], resource: Resource, *, now_ns: int) -> ReadableLogRecord:
    """The record of an event that `logs` has cleaned."""
    level = str(event.get("level", "info"))
    trace_id = str(event.get("trace_id", ""))
    return ReadableLogRecord(
        LogRecord(
            timestamp=now_ns,
            observed_timestamp=now_ns,
            trace_id=int(trace_id, 16) if trace_id else 0,
            span_id=int(str(event["span_id"]), 16) if trace_id else 0,
            trace_flags=TraceFlags(TraceFlags.SAMPLED if trace_id else TraceFlags.DEFAULT),
            severity_text=level,
            severity_number=_SEVERITIES.get(level, SeverityNumber.INFO),
            body=str(event.get("event", "")),
            attributes={key: _plain(value) for key, value in event.items() if key not in _NOT_ATTRIBUTES},
        ),
        resource,
        InstrumentationScope(str(event.get("logger", ""))),
    )


def _plain(value: object) -> str | bool | int | float:
    if isinstance(value, int) and not -_INT_MAX <= value < _INT_MAX:
        return str(value)
    return value if isinstance(value, _PLAIN) else json.dumps(value, default=str)
