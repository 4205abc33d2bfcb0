from __future__ import annotations

import math

import pytest

from services.common.wire.requests import REQUESTS
from services.edge.qos.classes import DEFAULT_SETTINGS, ClassSettings, QosClass, class_of

EXPECTED = {
    QosClass.CRITICAL: {"hello", "heartbeat", "auth_request", "resume", "logout"},
    QosClass.HIGH: {
        "register_request", "create_room", "join_room", "leave_room", "list_rooms", "user_list", "file_offer",
        "file_get", "file_list", "file_cancel",
    },
    QosClass.NORMAL: {"text_message"},
    QosClass.LOW: {"history", "file_ack", "file_transfer", "trace", "trace_report"},
}  # fmt: skip


def test_every_request_has_the_class_of_the_protocol() -> None:
    assert {c: {t for t in REQUESTS if class_of(t) is c} for c in QosClass} == EXPECTED


@pytest.mark.parametrize("request_type", REQUESTS)
@pytest.mark.parametrize("wish", [None, 1, 2, 3, 4])
def test_a_wish_may_lower_and_never_raise(request_type: str, wish: int | None) -> None:
    given = class_of(request_type)
    assert class_of(request_type, wish=wish) == min(given, wish or given)
    assert class_of(request_type, wish=wish, may_raise=True) == (wish or given)
    assert isinstance(class_of(request_type, wish=wish), QosClass)


def test_the_targets_are_those_of_the_architecture() -> None:
    targets = {qos_class.label: settings.target_s for qos_class, settings in DEFAULT_SETTINGS.items()}
    assert targets == {"critical": 0.0, "high": 0.05, "normal": 0.2, "low": 1.0}


@pytest.mark.parametrize("target_s", [-0.001, 60.1, math.nan, math.inf])
def test_bad_targets(target_s: float) -> None:
    with pytest.raises(ValueError, match="target_s"):
        ClassSettings(target_s=target_s, share=1)


@pytest.mark.parametrize("share", [0, -1, 1_000_001])
def test_bad_shares(share: int) -> None:
    with pytest.raises(ValueError, match="share"):
        ClassSettings(target_s=1.0, share=share)
