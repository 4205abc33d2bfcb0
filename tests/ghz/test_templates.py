from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest
from grpc_health.v1 import health_pb2

from tests.ghz.settings import SettingsError
from tests.ghz.templates import FIELDS, Request, Template, call_fields

CHECK = health_pb2.DESCRIPTOR.services_by_name["Health"].methods_by_name["Check"]
NOW = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
VALUES = call_fields(Request(number=7, worker="g0c3"), CHECK, NOW)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{.RequestNumber}}", "7"),
        ("a {{ .WorkerID }} b", "a g0c3 b"),
        ("{{.FullyQualifiedName}}", "grpc.health.v1.Health.Check"),
        ("{{.MethodName}}/{{.ServiceName}}", "Check/Health"),
        ("{{.InputName}} {{.OutputName}}", "HealthCheckRequest HealthCheckResponse"),
        ("{{.IsClientStreaming}} {{.IsServerStreaming}}", "false false"),
        ("{{.Timestamp}}", "2026-01-02T03:04:05+00:00"),
        ("{{.TimestampUnix}}", "1767323045"),
        ("{{.TimestampUnixMilli}}", "1767323045678"),
        ("{{.TimestampUnixNano}}", "1767323045678901000"),
        ("nothing { here }", "nothing { here }"),
    ],
)
def test_fields_are_filled_in(text: str, expected: str) -> None:
    assert Template(text).fill(VALUES) == expected


def test_every_field_that_may_be_named_is_there() -> None:
    assert set(VALUES) == FIELDS


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("{{newUUID}}", r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}"),
        ("{{.UUID}}", r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}"),
        ("{{randomString 5}}", r"[A-Za-z0-9]{5}"),
        ("{{ randomString 0 }}", r"[A-Za-z0-9]{2,16}"),
        ("{{randomInt 3 6}}", r"[345]"),
        ("{{randomInt -5 0}}", r"0"),
    ],
)
def test_functions_are_called_for_each_request(text: str, pattern: str) -> None:
    template = Template(text)
    assert not template.is_constant
    assert all(re.fullmatch(pattern, template.fill(VALUES)) for _ in range(20))


@pytest.mark.parametrize(
    "text", ["{{if .X}}a{{end}}", "{{.Unknown}}", "{{randomInt 1}}", "{{randomInt 5 2}}", "{{upper .UUID}}", "{{}}"]
)
def test_what_is_not_understood_is_refused_before_the_run(text: str) -> None:
    with pytest.raises(SettingsError):
        Template(text)


def test_functions_can_be_left_out() -> None:
    with pytest.raises(SettingsError):
        Template("{{newUUID}}", with_functions=False)


def test_filled_in_text_is_still_json() -> None:
    filled = Template(json.dumps({"a": "{{.Timestamp}}", "b": "ä{{randomString 3}}"})).fill(VALUES)
    assert json.loads(filled)["a"] == "2026-01-02T03:04:05+00:00"
