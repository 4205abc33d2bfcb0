"""Error codes: every reason that Parley gives when it does not do what was asked.

The same codes travel to clients (in ``error``, ``auth_response`` and ``register_response``) and between services (in
gRPC trailing metadata), so a refusal keeps its meaning from the store to the screen.
"""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """A code a program may branch on; the text beside it is for people and may change."""

    BAD_FRAME = "bad_frame"
    FRAME_TOO_LARGE = "frame_too_large"
    BAD_JSON = "bad_json"
    BAD_REQUEST = "bad_request"
    UNKNOWN_TYPE = "unknown_type"
    NOT_AUTHENTICATED = "not_authenticated"
    INVALID_CREDENTIALS = "invalid_credentials"
    USERNAME_TAKEN = "username_taken"
    BAD_USERNAME = "bad_username"
    WEAK_PASSWORD = "weak_password"  # noqa: S105 - a code, not a password
    ALREADY_LOGGED_IN = "already_logged_in"
    BAD_TOKEN = "bad_token"  # noqa: S105 - a code, not a token
    NO_SUCH_ROOM = "no_such_room"
    ROOM_EXISTS = "room_exists"
    BAD_ROOM_NAME = "bad_room_name"
    NOT_A_MEMBER = "not_a_member"
    FORBIDDEN = "forbidden"
    CONFLICT = "conflict"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    TOO_LARGE = "too_large"
    QUOTA_EXCEEDED = "quota_exceeded"
    HASH_MISMATCH = "hash_mismatch"
    NO_SUCH_FILE = "no_such_file"
    UNAVAILABLE = "unavailable"
    UNKNOWN_OUTCOME = "unknown_outcome"
    INTERNAL = "internal"


CLOSING_CODES = frozenset({ErrorCode.BAD_FRAME, ErrorCode.FRAME_TOO_LARGE})
"""After these the byte stream has no known frame boundary any more, so the connection is closed."""
