from __future__ import annotations

from typing import Any

import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk.resources import Resource

from services.common.log_records import record_of, to_queue

RESOURCE = Resource({"service.name": "edge"})
NOW_NS = 1_800_000_000_000_000_000
TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def record(**event: Any) -> Any:
    return record_of(event, RESOURCE, now_ns=NOW_NS).log_record


def test_an_event_is_a_record_with_the_rest_as_attributes() -> None:
    made = record(event="listening", level="warning", ts="t", service="edge", port=8888, ok=True, share=0.5)
    assert (made.body, made.severity_text, made.severity_number) == ("listening", "warning", SeverityNumber.WARN)
    assert (made.timestamp, made.observed_timestamp) == (NOW_NS, NOW_NS)
    assert dict(made.attributes) == {"port": 8888, "ok": True, "share": 0.5}


@pytest.mark.parametrize(
    ("level", "number"),
    [("debug", 5), ("info", 9), ("warning", 13), ("error", 17), ("critical", 21), ("nothing we know", 9)],
)
def test_levels_are_severities(level: str, number: int) -> None:
    assert record(event="x", level=level).severity_number.value == number


def test_a_line_within_a_span_names_it_and_another_does_not() -> None:
    within = record(event="x", trace_id=TRACE_ID, span_id=SPAN_ID)
    assert (within.trace_id, within.span_id) == (int(TRACE_ID, 16), int(SPAN_ID, 16))
    assert within.trace_flags.sampled
    assert not {"trace_id", "span_id"} & set(within.attributes)
    without = record(event="x")
    assert (without.trace_id, without.span_id, without.trace_flags.sampled) == (0, 0, False)


def test_what_is_not_plain_becomes_text() -> None:
    made = record(event="x", big=2**63, small=-(2**63), names=["a", "b"], nothing=None, path=RESOURCE)
    assert made.attributes["big"] == str(2**63)
    assert made.attributes["small"] == -(2**63)
    assert made.attributes["names"] == '["a", "b"]'
    assert made.attributes["nothing"] == "null"
    assert isinstance(made.attributes["path"], str)


def test_events_are_put_as_records_of_the_process() -> None:
    queue: list[Any] = []
    to_queue(queue.append, RESOURCE)({"event": "x", "logger": "services.edge.hub"})
    [put] = queue
    assert put.resource is RESOURCE
    assert put.instrumentation_scope.name == "services.edge.hub"
    assert put.log_record.timestamp > 0
