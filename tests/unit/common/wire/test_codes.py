from __future__ import annotations

from services.common.wire.codes import CLOSING_CODES, ErrorCode

CODES = """
bad_frame frame_too_large bad_json bad_request unknown_type not_authenticated invalid_credentials username_taken
bad_username weak_password already_logged_in bad_token no_such_room room_exists bad_room_name not_a_member forbidden
conflict rate_limited overloaded too_large quota_exceeded hash_mismatch no_such_file unavailable unknown_outcome
internal
"""


def test_the_codes_are_those_of_the_protocol() -> None:
    assert set(ErrorCode) == set(CODES.split())
    assert all(code.name == code.value.upper() for code in ErrorCode)


def test_only_lost_frame_boundaries_close_a_connection() -> None:
    assert {ErrorCode.BAD_FRAME, ErrorCode.FRAME_TOO_LARGE} == CLOSING_CODES
