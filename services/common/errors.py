"""The one typed error of Parley, and how it travels over gRPC.

A `ParleyError` carries a code of the client protocol, because a client is who sees it in the end. Over gRPC the code
goes as trailing metadata (`parley-code`, `parley-retry-after`, and `parley-<name>` for each detail) beside the gRPC
status that fits it best, so that tools which know nothing of Parley see something sensible too. Everything that is
not a `ParleyError` is a defect: it is logged where it is caught and shown as `internal`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

import grpc

from services.common.wire.codes import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from grpc.aio import AioRpcError

CODE_KEY: Final = "parley-code"
RETRY_AFTER_KEY: Final = "parley-retry-after"
_DETAIL_PREFIX: Final = "parley-"
# All trailing metadata of a call must fit 8 KiB, gRPC's default limit; a message for people needs far less.
MESSAGE_CHARS_MAX: Final = 500
# Printable ASCII except `%` travels as it is; metadata values may hold nothing else.
_SAFE: Final = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) != "%")

_STATUS: Final[Mapping[ErrorCode, grpc.StatusCode]] = {
    ErrorCode.BAD_FRAME: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorCode.FRAME_TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorCode.BAD_JSON: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorCode.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorCode.UNKNOWN_TYPE: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorCode.BAD_USERNAME: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorCode.WEAK_PASSWORD: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorCode.BAD_ROOM_NAME: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorCode.TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorCode.HASH_MISMATCH: grpc.StatusCode.DATA_LOSS,
    ErrorCode.NOT_AUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    ErrorCode.INVALID_CREDENTIALS: grpc.StatusCode.UNAUTHENTICATED,
    ErrorCode.BAD_TOKEN: grpc.StatusCode.UNAUTHENTICATED,
    ErrorCode.USERNAME_TAKEN: grpc.StatusCode.ALREADY_EXISTS,
    ErrorCode.ROOM_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    ErrorCode.CONFLICT: grpc.StatusCode.ALREADY_EXISTS,
    ErrorCode.ALREADY_LOGGED_IN: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorCode.NO_SUCH_ROOM: grpc.StatusCode.NOT_FOUND,
    ErrorCode.NO_SUCH_FILE: grpc.StatusCode.NOT_FOUND,
    ErrorCode.NOT_A_MEMBER: grpc.StatusCode.PERMISSION_DENIED,
    ErrorCode.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    ErrorCode.RATE_LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorCode.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorCode.QUOTA_EXCEEDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorCode.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    ErrorCode.UNKNOWN_OUTCOME: grpc.StatusCode.UNKNOWN,
    ErrorCode.INTERNAL: grpc.StatusCode.INTERNAL,
}

# What a status means that no Parley code came with: gRPC itself made it, on this side or on the way.
_CODE_WITHOUT_METADATA: Final[Mapping[grpc.StatusCode, ErrorCode]] = {
    grpc.StatusCode.UNAVAILABLE: ErrorCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: ErrorCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED: ErrorCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ErrorCode.UNAVAILABLE,
    grpc.StatusCode.PERMISSION_DENIED: ErrorCode.FORBIDDEN,
    grpc.StatusCode.UNAUTHENTICATED: ErrorCode.FORBIDDEN,
}

# What grpc.aio says, with INTERNAL, when a stream ends while a message is being sent: the status is lost.
_FAILED_TO_SEND: Final = "Internal error from Core"


class ParleyError(Exception):
    """A refusal or a failure that a caller may act on.

    `message` is for people and must not hold secrets; `retry_after_s` says when trying again may help; `details` are
    short named values (names in lower case with `-`), such as `{"since-ms": "1790000000000"}`.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        retry_after_s: float | None = None,
        details: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{code.value}: {message}")
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s
        self.details: Mapping[str, str] = dict(details or {})


def to_status(code: ErrorCode) -> grpc.StatusCode:
    """The gRPC status that fits the code best."""
    return _STATUS[code]


def to_metadata(error: ParleyError) -> tuple[tuple[str, str], ...]:
    """The trailing metadata that carries the error."""
    metadata = [(CODE_KEY, error.code.value)]
    if error.retry_after_s is not None:
        metadata.append((RETRY_AFTER_KEY, f"{error.retry_after_s:.3f}"))
    metadata += [(_DETAIL_PREFIX + name, quote(value, safe=_SAFE)) for name, value in error.details.items()]
    return tuple(metadata)


def from_rpc_error(error: AioRpcError) -> ParleyError:
    """The typed error that a failed call carries, or the one that its bare status stands for.

    Without a Parley code the details say `status`: whether the call was carried out is then not known where the code
    is `unavailable`.
    """
    metadata = {key: value for key, value in _pairs(error) if isinstance(value, str)}
    status = error.code()
    message = error.details() or status.name
    try:
        code = ErrorCode(metadata[CODE_KEY])
    except (KeyError, ValueError):  # a peer newer than this one may send a code that this one does not know
        code = _CODE_WITHOUT_METADATA.get(status, ErrorCode.INTERNAL)
        if message == _FAILED_TO_SEND:
            code = ErrorCode.UNAVAILABLE
        return ParleyError(code, message, details={"status": status.name})
    details = {
        key.removeprefix(_DETAIL_PREFIX): unquote(value)
        for key, value in metadata.items()
        if key.startswith(_DETAIL_PREFIX) and key not in (CODE_KEY, RETRY_AFTER_KEY)
    }
    return ParleyError(code, message, retry_after_s=_seconds(metadata.get(RETRY_AFTER_KEY)), details=details)


def _pairs(error: AioRpcError) -> Iterable[tuple[str, str | bytes]]:
    return iter(error.trailing_metadata() or ())


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:
        return None
