from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from services.common.clock import FakeClock
from services.common.counters import Counters
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.metrics.logs.otlp import BODY_CHARS_MAX, RECORDS_MAX, LogsCollector
from services.metrics.logs.records import Record
from services.metrics.otlp import RESOURCES_MAX, SCOPES_MAX
from tests.helpers.instances import T0
from tests.unit.metrics.test_otlp import Peer


class Stage:
    def __init__(self) -> None:
        self.kept: list[Record] = []
        self.failure: ParleyError | None = None
        self.counters = Counters()
        self.forwarded: list[tuple[str, Any, int]] = []
        store: Any = self
        self.collector = LogsCollector(
            store,
            counters=self.counters,
            clock=FakeClock(T0),
            forward=lambda *given: self.forwarded.append(given),
        )

    async def keep(self, records: Sequence[Record], *, now: float) -> int:
        if self.failure is not None:
            raise self.failure
        self.kept += records
        return 0

    async def export(self, request: ExportLogsServiceRequest) -> int:
        context: Any = Peer("rooms")
        return (await self.collector.Export(request, context)).partial_success.rejected_log_records


def new_request(count: int = 1, **fields: Any) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    resource_logs = request.resource_logs.add()
    resource_logs.resource.attributes.add(key="service.instance.id").value.string_value = "rooms-1"
    scope = resource_logs.scope_logs.add()
    for _ in range(count):
        record = scope.log_records.add(**{"time_unix_nano": 5, "severity_number": 13, **fields})
        record.body.string_value = "it happened"
    return request


async def test_a_record_is_kept_under_the_name_of_its_certificate() -> None:
    stage = Stage()
    request = new_request(trace_id=b"\x01" * 16, span_id=b"\x02" * 8)
    request.resource_logs[0].scope_logs[0].log_records[0].attributes.add(key="room_id").value.string_value = "r1"
    assert await stage.export(request) == 0
    assert stage.kept == [
        Record(
            time_ns=5,
            service="rooms",
            instance="rooms-1",
            level=13,
            body="it happened",
            trace_id="01" * 16,
            span_id="02" * 8,
            attributes={"room_id": "r1"},
        )
    ]
    assert stage.forwarded == [("logs", request, 1)]


async def test_what_is_no_record_is_refused_and_what_is_long_is_cut() -> None:
    stage = Stage()
    request = new_request(3)
    timeless, empty, long = request.resource_logs[0].scope_logs[0].log_records
    timeless.time_unix_nano = 0
    empty.body.Clear()
    long.body.string_value = "x" * (BODY_CHARS_MAX + 1)
    assert await stage.export(request) == 2
    assert [len(record.body) for record in stage.kept] == [BODY_CHARS_MAX]
    assert stage.counters.counter("parley.metrics.logs.refused").value == 2


async def test_a_store_that_is_busy_loses_them_and_says_so() -> None:
    stage = Stage()
    stage.failure = ParleyError(ErrorCode.OVERLOADED, "busy")
    assert await stage.export(new_request(3)) == 3


@pytest.mark.parametrize("what", ["records", "scopes", "resources"])
async def test_exports_have_a_size(what: str) -> None:
    stage = Stage()
    request = new_request(RECORDS_MAX + 1 if what == "records" else 1)
    for _ in range(SCOPES_MAX if what == "scopes" else 0):
        request.resource_logs[0].scope_logs.add()
    for _ in range(RESOURCES_MAX if what == "resources" else 0):
        request.resource_logs.add()
    with pytest.raises(ParleyError) as caught:
        await stage.export(request)
    assert caught.value.code is ErrorCode.TOO_LARGE
    assert not stage.kept
