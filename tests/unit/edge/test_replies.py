from __future__ import annotations

import json
from typing import Any

import pytest

from services.common.wire.codes import ErrorCode
from services.common.wire.events import VERSION_1_TYPES
from services.edge.decisions import Reply, failure
from services.edge.qos.classes import QosClass
from services.edge.replies import encode, goodbye

REASONS = ["draining", "replaced", "revoked", "slow_consumer", "idle", "protocol_error"]


def decoded(reply: Reply, version: int) -> dict[str, Any]:
    data = encode(reply, version=version, number=9, now=1_800_000_000.0)
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    frame: dict[str, Any] = json.loads(data[4:])
    return frame


def test_the_same_reply_in_both_versions() -> None:
    reply = Reply("success", {"room_id": "room0001"}, "x", "room0001", QosClass.NORMAL)
    assert decoded(reply, 2) == {
        "type": "success",
        "re": "x",
        "room_id": "room0001",
        "data": {"room_id": "room0001"},
    }
    assert decoded(reply, 1) == {
        **decoded(reply, 2),
        "id": 9,
        "priority": 2,
        "timestamp": "2027-01-15T08:00:00.000+00:00",
    }


def test_before_its_version_is_known_a_client_is_answered_as_version_2() -> None:
    reply = failure("hello", None, ErrorCode.BAD_REQUEST, "protocol: 2")
    assert decoded(reply, 0) == decoded(reply, 2)


@pytest.mark.parametrize("reason", REASONS)
def test_goodbyes(reason: str) -> None:
    last = decoded(goodbye(reason, version=2, reconnect_after_ms=250), 2)
    assert (last["type"], last["data"]) == ("goodbye", {"reason": reason, "reconnect_after_ms": 250})
    assert last["priority"] == 4
    last = decoded(goodbye(reason, version=1, reconnect_after_ms=250), 1)
    assert last["type"] in VERSION_1_TYPES
    assert ErrorCode(last["data"]["code"])
    assert last["data"]["error"]


@pytest.mark.parametrize(
    ("request_type", "type_"),
    [
        ("register_request", "register_response"),
        ("auth_request", "auth_response"),
        ("resume", "auth_response"),
        ("join_room", "error"),
        (None, "error"),
    ],
)
def test_failures(request_type: str | None, type_: str) -> None:
    reply = failure(request_type, 1, ErrorCode.OVERLOADED, "later", retry_after_s=1.23456, details={"since": "then"})
    expected = {"error": "later", "code": "overloaded", "retry_after_s": 1.235, "since": "then"}
    assert reply.type == type_
    assert reply.data == (expected if type_ == "error" else {"success": False, **expected})
