"""What a line of the audit log says about a request."""

from __future__ import annotations

from google.protobuf import descriptor_pb2
from parley.auth.v1 import auth_pb2
from parley.edge.v1 import edge_pb2
from parley.metrics.v1 import metrics_pb2

from services.common.audit import TARGET_FIELDS_MAX, VALUE_CHARS_MAX, describe


def test_secrets_are_blanked() -> None:
    login = auth_pb2.LoginRequest(username="ada", password="p", edge=auth_pb2.EdgeBoot(name="edge-1"))
    assert describe(login) == {"username": "ada", "password": "[redacted]", "edge": {"name": "edge-1"}}
    assert describe(auth_pb2.ResumeRequest(token="t")) == {"token": "[redacted]"}
    assert describe(edge_pb2.SendNoticeRequest(text="t")) == {"text": "[redacted]"}


def test_lists_messages_and_maps() -> None:
    update = edge_pb2.UpdateQosRequest(concurrency=8, classes=[edge_pb2.QosClassUpdate(name="low", target_ms=5)])
    assert describe(update) == {"concurrency": 8, "classes": [{"name": "low", "target_ms": 5.0}]}
    assert describe(metrics_pb2.GetStatisticsResponse(values={"a": 1})).keys() == {"values"}


def test_what_is_long_is_cut() -> None:
    found = describe(auth_pb2.EndSessionsRequest(session_ids=["x" * 5_000] * 5_000))
    assert len(found["session_ids"]) == TARGET_FIELDS_MAX
    assert len(found["session_ids"][0]) == VALUE_CHARS_MAX + 1


def test_what_is_deep_is_cut() -> None:
    message = descriptor_pb2.DescriptorProto(name="x")
    for _ in range(50):
        message = descriptor_pb2.DescriptorProto(nested_type=[message])
    assert "…" in repr(describe(message))
