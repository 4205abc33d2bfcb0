"""The JSON envelope: strict parsing of what clients send, lenient parsing of what servers send.

Nearly every request is flat: known keys in the envelope, scalars in ``data``. Those are decoded straight into typed
fields, where the decoder itself checks types, ranges and UTF-8 and nothing is left to look at. Whatever does not fit
is decoded as plain JSON, checked value by value, and judged with an exact message.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NoReturn

import msgspec

from services.common.wire import limits
from services.common.wire.codes import ErrorCode
from services.common.wire.frames import encode_json

RequestId = str | int | float

_INT_MIN = -(2**63)
_INT_MAX = 2**64 - 1
_PRIORITIES = (1, 2, 3, 4)

_ABSENT: Any = None
"""The value of a key that the frame does not have; a JSON null in its place is a wrong type."""


class WireError(Exception):
    """JSON from the other side that breaks the protocol.

    ``re`` is the request's id and ``type`` its type, where they could be read, so that the answer can name the
    request and have the form that its type asks for.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        re: RequestId | None = None,
        type: str | None = None,  # noqa: A002 - the protocol's word
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.re = re
        self.type = type

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class Envelope(msgspec.Struct, kw_only=True):
    """A client's frame. ``priority`` is a wish (1 low to 4 critical); ``room_id`` is what the envelope itself says.

    ``traceparent`` is W3C trace context, unchecked; what is no string there is as good as absent.
    """

    type: str
    id: RequestId | None = None
    data: dict[str, Any] = {}
    priority: int | None = None
    room_id: str | None = None
    traceparent: str = ""


_Int = Annotated[int, msgspec.Meta(ge=_INT_MIN, le=2**63 - 1)]
_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.MAX_ID_CHARS)]


class _FlatEnvelope(Envelope, kw_only=True, forbid_unknown_fields=True):
    """An Envelope in which the decoder can check everything by itself."""

    id: _Id | _Int | float = _ABSENT
    data: dict[str, str | _Int | float | bool | None] = {}
    priority: Literal[1, 2, 3, 4] = _ABSENT
    timestamp: str = ""  # ignored


_decode_flat = msgspec.json.Decoder(_FlatEnvelope).decode
_decode_any = msgspec.json.Decoder().decode


def parse(payload: bytes) -> Envelope:
    """Read a client's JSON frame.

    Raises WireError: bad_json where it is not strict JSON (invalid UTF-8, lone surrogates, NaN and Infinity, numbers
    out of the 64-bit range, nesting above 32), bad_request where a key of the envelope has a wrong type.
    """
    try:
        return _decode_flat(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _parse_slowly(payload)


def _parse_slowly(payload: bytes) -> Envelope:
    frame = _load(payload)
    request_id = frame.get("id", _ABSENT)
    type_ = frame.get("type")

    def refuse(message: str) -> NoReturn:
        re = request_id if _is_id(request_id) else None
        raise WireError(ErrorCode.BAD_REQUEST, message, re=re, type=type_ if isinstance(type_, str) else None)

    if "id" in frame and not _is_id(request_id):
        refuse(f"id must be a string of 1 to {limits.MAX_ID_CHARS} characters or a number")
    if not isinstance(type_, str):
        refuse("type must be a string")
    data = frame.get("data", {})
    if not isinstance(data, dict):
        refuse("data must be an object")
    priority = frame.get("priority", _ABSENT)
    if "priority" in frame and (type(priority) is not int or priority not in _PRIORITIES):
        refuse("priority must be 1, 2, 3 or 4")
    room_id = frame.get("room_id")
    if room_id is not None and not isinstance(room_id, str):
        refuse("room_id must be a string or null")
    traceparent = frame.get("traceparent")
    if not isinstance(traceparent, str):
        traceparent = ""
    return Envelope(type=type_, id=request_id, data=data, priority=priority, room_id=room_id, traceparent=traceparent)


def _is_id(value: object) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= limits.MAX_ID_CHARS
    return type(value) in (int, float)


def _load(payload: bytes) -> dict[str, Any]:
    """Decode a JSON object strictly. Raises WireError bad_json."""
    try:
        frame = _decode_any(payload)
    except UnicodeDecodeError:
        raise WireError(ErrorCode.BAD_JSON, "the frame is not valid UTF-8") from None
    except RecursionError:
        raise WireError(ErrorCode.BAD_JSON, f"nesting is limited to {limits.MAX_DEPTH} levels") from None
    except msgspec.MsgspecError as error:
        raise WireError(ErrorCode.BAD_JSON, f"the frame is not valid JSON: {error}") from None
    if not isinstance(frame, dict):
        raise WireError(ErrorCode.BAD_JSON, "the frame is not a JSON object")
    _check_values(frame)
    return frame


def _check_values(frame: dict[str, Any]) -> None:
    """Check depth and number range, level by level, so that no input can exhaust the stack."""
    level: list[Any] = [frame]
    for _ in range(limits.MAX_DEPTH):
        deeper: list[Any] = []
        for container in level:
            for value in container.values() if type(container) is dict else container:
                kind = type(value)
                if kind is int:
                    if not _INT_MIN <= value <= _INT_MAX:
                        raise WireError(ErrorCode.BAD_JSON, "a number is out of the 64-bit range")
                elif kind is dict or kind is list:
                    deeper.append(value)
        if not deeper:
            return
        level = deeper
    raise WireError(ErrorCode.BAD_JSON, f"nesting is limited to {limits.MAX_DEPTH} levels")


class ServerEnvelope(msgspec.Struct, kw_only=True):
    """A server's frame, as a client of either version sees it; unknown keys are ignored."""

    type: str
    re: RequestId | None = None
    data: dict[str, Any] = {}
    room_id: str | None = None
    priority: int = 2
    id: RequestId | None = None
    timestamp: str | None = None


_decode_server = msgspec.json.Decoder(ServerEnvelope).decode


def parse_server(payload: bytes) -> ServerEnvelope:
    """Read a server's JSON frame. Raises WireError bad_json or bad_request."""
    try:
        return _decode_server(payload)
    except msgspec.ValidationError as error:
        raise WireError(ErrorCode.BAD_REQUEST, f"not a frame of this protocol: {error}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WireError(ErrorCode.BAD_JSON, f"not valid JSON: {error}") from None
    except RecursionError:
        raise WireError(ErrorCode.BAD_JSON, "nested too deeply") from None


class _RequestFrame(msgspec.Struct, kw_only=True, omit_defaults=True):
    type: str
    id: RequestId | None = None
    room_id: str | None = None
    priority: int | None = None
    traceparent: str | None = None
    data: dict[str, Any] = {}


_encode = msgspec.json.Encoder().encode


def encode_request(
    type: str,  # noqa: A002 - the protocol's word, as is id
    data: dict[str, Any] | None = None,
    *,
    id: RequestId | None = None,  # noqa: A002
    room_id: str | None = None,
    priority: int | None = None,
    traceparent: str | None = None,
) -> bytes:
    """Make a client's frame, length included; keys that are None are left out.

    Raises ValueError where the frame would be too large or a string holds lone surrogates.
    """
    frame = _RequestFrame(
        type=type, id=id, room_id=room_id, priority=priority, traceparent=traceparent, data=data or {}
    )
    return encode_json(_encode(frame))
