from __future__ import annotations

import pytest

from services.metrics.traces.spans import is_message_id, is_trace_id


@pytest.mark.parametrize("text", ["r7d0c4m1zz9k-a1b2c3-1", "r7d0c4m1zz9k-a1b2c3-9007199254740993"])
def test_message_ids(text: str) -> None:
    assert is_message_id(text)


@pytest.mark.parametrize(
    "text",
    ["", "-", "r7d0-a1b2", "r7d0-a1b2-0", "r7d0-a1b2-01", "r7d0-a1b2--1", "R7d0-a1b2-1", "r7d0-a1b2-1\n", "r-e-٣"],
)
def test_what_is_no_message_id(text: str) -> None:
    assert not is_message_id(text)


@pytest.mark.parametrize("text", ["", "0" * 32, "A" * 32, "a" * 31, "a" * 33, "g" * 32, "a" * 32 + "\n"])
def test_what_is_no_trace_id(text: str) -> None:
    assert is_trace_id("0" * 31 + "1")
    assert not is_trace_id(text)
