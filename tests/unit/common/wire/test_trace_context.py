from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.wire.trace_context import CONTEXT_BYTES, format_traceparent, is_context, parse_traceparent

GOOD = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@given(st.binary(min_size=CONTEXT_BYTES, max_size=CONTEXT_BYTES).filter(is_context))
def test_what_is_written_is_read(context: bytes) -> None:
    assert parse_traceparent(format_traceparent(context)) == context


@given(st.text(max_size=600))
def test_garbage_is_no_context(text: str) -> None:
    assert parse_traceparent(text) is None


@pytest.mark.parametrize(
    "text",
    [
        GOOD[:-2] + "00",  # not sampled
        GOOD.upper(),
        GOOD + "-more",
        "ff" + GOOD[2:],
        GOOD[:3] + "0" * 32 + GOOD[35:],
        GOOD[:36] + "0" * 16 + GOOD[52:],
        GOOD + "\n",
        "cc" + GOOD[2:] + "-" + "x" * 600,
    ],
)
def test_what_is_malformed_or_not_sampled_is_no_context(text: str) -> None:
    assert parse_traceparent(text) is None


@pytest.mark.parametrize("text", [GOOD, "cc" + GOOD[2:], "cc" + GOOD[2:] + "-what-comes-later", GOOD[:-2] + "ff"])
def test_later_versions_and_more_flags_are_understood(text: str) -> None:
    assert parse_traceparent(text) == bytes.fromhex("4bf92f3577b34da6a3ce929d0e0e473600f067aa0ba902b7")
