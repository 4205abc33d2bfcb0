from __future__ import annotations

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import ParleyError, from_rpc_error, to_metadata, to_status
from services.common.wire.codes import ErrorCode


def received(status: grpc.StatusCode, message: str, *pairs: tuple[str, str]) -> AioRpcError:
    return AioRpcError(status, Metadata(), Metadata(*pairs), details=message)


@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_has_a_status_and_survives_the_way(code: ErrorCode) -> None:
    error = ParleyError(code, "why")
    assert to_status(code) is not grpc.StatusCode.OK
    back = from_rpc_error(received(to_status(code), error.message, *to_metadata(error)))
    assert (back.code, back.message, back.retry_after_s, back.details) == (code, "why", None, {})


names = st.from_regex(r"[a-z]([a-z-]{0,10}[a-z])?", fullmatch=True).filter(
    lambda name: name not in ("code", "retry-after")
)


@given(st.dictionaries(names, st.text(max_size=40), max_size=4), st.floats(0, 1e6))
def test_details_of_any_text_survive_the_way(details: dict[str, str], retry_after_s: float) -> None:
    error = ParleyError(ErrorCode.CONFLICT, "why", retry_after_s=retry_after_s, details=details)
    metadata = to_metadata(error)
    assert all(value.isascii() and value.isprintable() for _, value in metadata)
    back = from_rpc_error(received(to_status(error.code), "why", *metadata))
    assert back.details == details
    assert back.retry_after_s == pytest.approx(retry_after_s, abs=0.001)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (grpc.StatusCode.UNAVAILABLE, ErrorCode.UNAVAILABLE),
        (grpc.StatusCode.DEADLINE_EXCEEDED, ErrorCode.UNAVAILABLE),
        (grpc.StatusCode.CANCELLED, ErrorCode.UNAVAILABLE),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ErrorCode.UNAVAILABLE),
        (grpc.StatusCode.PERMISSION_DENIED, ErrorCode.FORBIDDEN),
        (grpc.StatusCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN),
        (grpc.StatusCode.UNKNOWN, ErrorCode.INTERNAL),
        (grpc.StatusCode.UNIMPLEMENTED, ErrorCode.INTERNAL),
    ],
)
def test_a_status_without_a_code_is_translated_and_named(status: grpc.StatusCode, code: ErrorCode) -> None:
    error = from_rpc_error(received(status, "gone"))
    assert (error.code, error.message, error.details) == (code, "gone", {"status": status.name})


def test_a_stream_that_ended_while_it_was_sending_is_unavailable() -> None:
    assert from_rpc_error(received(grpc.StatusCode.INTERNAL, "Internal error from Core")).code is ErrorCode.UNAVAILABLE
    assert from_rpc_error(received(grpc.StatusCode.INTERNAL, "internal error")).code is ErrorCode.INTERNAL


def test_a_code_of_a_newer_peer_falls_back_to_the_status() -> None:
    error = from_rpc_error(received(grpc.StatusCode.UNAVAILABLE, "x", ("parley-code", "from_the_future")))
    assert error.code is ErrorCode.UNAVAILABLE


@pytest.mark.parametrize(("text", "seconds"), [("x", None), ("", None), ("-3", 0.0), ("2.5", 2.5)])
def test_a_broken_retry_after_is_no_retry_after(text: str, seconds: float | None) -> None:
    pairs = (("parley-code", "overloaded"), ("parley-retry-after", text))
    assert from_rpc_error(received(grpc.StatusCode.RESOURCE_EXHAUSTED, "x", *pairs)).retry_after_s == seconds


def test_an_error_says_its_code_and_its_message() -> None:
    assert str(ParleyError(ErrorCode.NO_SUCH_ROOM, "no room r1")) == "no_such_room: no room r1"
