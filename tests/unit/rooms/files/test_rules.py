"""Names of files and quotas."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.rooms.files import rules
from services.rooms.files.rules import FileLimits, Offer, Usage

LIMITS = FileLimits(
    file_bytes_max=100,
    user_bytes_max=1_000,
    user_files_max=10,
    room_bytes_max=2_000,
    room_files_max=20,
    unfinished_max=3,
    transfers_max=5,
    free_bytes_min=0,
    retention_s=0,
    unfinished_retention_s=60,
)
OFFER = Offer(name="a.txt", size=100, sha256="0" * 64)


@pytest.mark.parametrize(
    "name", ["a", "a.txt", "ما.pdf", "naïve résumé.doc", "con", "CON.txt", "...", "-rf", "x" * 255, "ß" * 127, "🎉.png"]
)
def test_names(name: str) -> None:
    assert rules.is_file_name(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "../a", "a\\b", "\0", "a\n", "\x1b]0;x\x07", "\x9b2J", "x" * 256, "ß" * 128, "\u202ea"],
)
def test_what_is_no_name(name: str) -> None:
    assert not rules.is_file_name(name)


@given(st.text())
def test_a_name_is_never_a_path(name: str) -> None:
    if rules.is_file_name(name):
        assert len(name.encode()) <= 255
        assert not set("/\\\0\n\r\x1b") & set(name)


NOTHING = Usage(0, 0)


def quota(*, user: Usage = NOTHING, room: Usage = NOTHING) -> ErrorCode | None:
    try:
        rules.check_user_quota(OFFER, LIMITS, user)
        rules.check_room_quota(OFFER, LIMITS, room)
    except ParleyError as error:
        return error.code
    return None


def test_quotas_end_exactly_where_they_say() -> None:
    assert quota(user=Usage(9, 900, 2), room=Usage(19, 1_900)) is None
    for full in (
        quota(user=Usage(3, 0, 3)),
        quota(user=Usage(10, 0)),
        quota(user=Usage(1, 901)),
        quota(room=Usage(20, 0)),
        quota(room=Usage(1, 1_901)),
    ):
        assert full is ErrorCode.QUOTA_EXCEEDED
