"""Requests: one typed structure for everything that a client may ask, and their validation.

What is checked here is syntax: types, lengths, ranges, control characters. What a username, a password or a room name
must be is decided by the services, which know the rules; here they only have to be of a sane size.
"""

from __future__ import annotations

import binascii
from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Meta

from services.common.wire import limits
from services.common.wire.codes import ErrorCode
from services.common.wire.envelope import Envelope, WireError
from services.common.wire.text import is_clean_line, is_clean_text

_Field = Annotated[str, Meta(max_length=limits.MAX_FIELD_CHARS)]
_Token = Annotated[str, Meta(min_length=1, max_length=limits.MAX_TOKEN_CHARS)]
_RoomRef = Annotated[str, Meta(min_length=1, max_length=limits.MAX_ROOM_REF_CHARS)]
_Key = Annotated[str, Meta(min_length=1, max_length=limits.MAX_KEY_CHARS)]
_Seq = Annotated[int, Meta(ge=0, le=limits.MAX_SEQ)]
_PageLimit = Annotated[int, Meta(ge=1, le=limits.PAGE_LIMIT_MAX)]
_FileId = Annotated[str, Meta(pattern=rf"^[0-9a-f]{{{limits.FILE_ID_HEX_CHARS}}}\Z")]
_Sha256 = Annotated[str, Meta(pattern=rf"^[0-9a-fA-F]{{{limits.SHA256_HEX_CHARS}}}\Z")]
_FileName = Annotated[str, Meta(min_length=1, max_length=limits.MAX_FILENAME_CHARS)]


class Hello(msgspec.Struct, frozen=True):
    """Asks for version 2 of the protocol, and says what the client is (``name/version``, for operators)."""

    type: ClassVar[str] = "hello"
    protocol: Annotated[int, Meta(ge=limits.PROTOCOL_VERSION, le=limits.PROTOCOL_VERSION_MAX)]
    client: Annotated[str, Meta(max_length=limits.MAX_CLIENT_CHARS)] = ""


class Register(msgspec.Struct, frozen=True):
    """Asks for an account."""

    type: ClassVar[str] = "register_request"
    username: str
    password: str


class Authenticate(msgspec.Struct, frozen=True):
    """Logs in; ``takeover`` ends another session of the account, ``device`` is shown in lists of sessions."""

    type: ClassVar[str] = "auth_request"
    username: _Field
    password: _Field
    takeover: bool = False
    device: Annotated[str, Meta(max_length=limits.MAX_DEVICE_CHARS)] = ""


class Position(msgspec.Struct, frozen=True):
    """How far a client has read a room: everything up to ``seq`` of ``epoch``."""

    epoch: Annotated[str, Meta(min_length=1, max_length=limits.MAX_ID_CHARS)]
    seq: _Seq


class Resume(msgspec.Struct, frozen=True):
    """Goes on with a session after a lost connection: its token, and the position in each room by room id."""

    type: ClassVar[str] = "resume"
    token: _Token
    rooms: Annotated[dict[_RoomRef, Position], Meta(max_length=limits.MAX_RESUME_ROOMS)] = {}


class Logout(msgspec.Struct, frozen=True):
    """Ends the session and kills its token."""

    type: ClassVar[str] = "logout"


class CreateRoom(msgspec.Struct, frozen=True):
    """Creates a room and enters it."""

    type: ClassVar[str] = "create_room"
    name: _Field
    topic: _Field = ""
    private: bool = False


class JoinRoom(msgspec.Struct, frozen=True):
    """Becomes a member; ``room_id`` is an id, an exact name or a unique prefix of an id."""

    type: ClassVar[str] = "join_room"
    room_id: _RoomRef


class LeaveRoom(msgspec.Struct, frozen=True):
    """Ends a membership; without ``room_id``, of the current room of a version-1 client."""

    type: ClassVar[str] = "leave_room"
    room_id: _RoomRef | None = None


class ListRooms(msgspec.Struct, frozen=True):
    """Asks for a page of the rooms that the user may see; ``cursor`` is the ``next_cursor`` of the page before."""

    type: ClassVar[str] = "list_rooms"
    query: Annotated[str, Meta(max_length=limits.MAX_QUERY_CHARS)] = ""
    limit: _PageLimit = limits.ROOMS_LIMIT_DEFAULT
    cursor: Annotated[str, Meta(max_length=limits.MAX_CURSOR_CHARS)] = ""


class UserList(msgspec.Struct, frozen=True):
    """Asks who is in a room; without ``room_id``, in the current room of a version-1 client."""

    type: ClassVar[str] = "user_list"
    room_id: _RoomRef | None = None


class TextMessage(msgspec.Struct, frozen=True, gc=False):
    """A text for a room; without ``room_id``, for the current room of a version-1 client.

    ``follows`` says whether the sender's text in front of it, in this room, has no answer yet.
    """

    type: ClassVar[str] = "text_message"
    text: str
    room_id: _RoomRef | None = None
    key: _Key | None = None
    follows: bool | None = None


class History(msgspec.Struct, frozen=True):
    """Asks for a page of a room's log: after a seq, before a seq, or (neither) the newest."""

    type: ClassVar[str] = "history"
    room_id: _RoomRef
    after: _Seq | None = None
    before: _Seq | None = None
    limit: _PageLimit = limits.HISTORY_LIMIT_DEFAULT


class Heartbeat(msgspec.Struct, frozen=True):
    """Says that the client is alive, and asks how far each room has been sent."""

    type: ClassVar[str] = "heartbeat"


class FileOffer(msgspec.Struct, frozen=True):
    """Offers a file to a room; ``sha256`` in lower-case hex.

    ``transfer_id`` is the sender's own name for this transfer: the same again is the same file, even when it is posted.
    """

    type: ClassVar[str] = "file_offer"
    room_id: _RoomRef
    name: _FileName
    size: Annotated[int, Meta(ge=0, le=limits.MAX_SEQ)]
    sha256: _Sha256
    mime: Annotated[str, Meta(max_length=limits.MAX_MIME_CHARS)] = ""
    transfer_id: _FileId | None = None

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "sha256", self.sha256.lower())


class FileGet(msgspec.Struct, frozen=True):
    """Asks for a file from an offset on; no more than ``window`` bytes may be under way, where that is given."""

    type: ClassVar[str] = "file_get"
    file_id: _FileId
    offset: _Seq = 0
    window: _Seq | None = None


class FileList(msgspec.Struct, frozen=True):
    """Asks for a page of a room's files, the newest first: those posted before a seq, or the newest."""

    type: ClassVar[str] = "file_list"
    room_id: _RoomRef
    before: _Seq | None = None
    limit: _PageLimit = limits.FILES_LIMIT_DEFAULT


class FileCancel(msgspec.Struct, frozen=True):
    """Ends a transfer in either direction."""

    type: ClassVar[str] = "file_cancel"
    file_id: _FileId


class FileAck(msgspec.Struct, frozen=True):
    """Says that everything before ``offset`` of a file has been received, and how much may be under way from now on."""

    type: ClassVar[str] = "file_ack"
    file_id: _FileId
    offset: _Seq
    window: _Seq | None = None


class FileTransfer(msgspec.Struct, frozen=True):
    """A piece of a file from a version-1 client, for its current room; ``data`` is base64."""

    type: ClassVar[str] = "file_transfer"
    transfer_id: _FileId
    filename: _FileName
    chunk_num: Annotated[int, Meta(ge=0)]
    total_chunks: Annotated[int, Meta(ge=1, le=limits.MAX_V1_CHUNKS)]
    data: Annotated[str, Meta(max_length=limits.MAX_V1_CHUNK_CHARS)]
    room_id: _RoomRef | None = None

    def content(self) -> bytes:
        """The piece itself, decoded; ``parse_request`` has made sure that it is base64."""
        return binascii.a2b_base64(self.data, strict_mode=True)


class GetTrace(msgspec.Struct, frozen=True):
    """Asks where the time of an own message went; ``message_id`` is ``room_id-epoch-seq``."""

    type: ClassVar[str] = "trace"
    message_id: Annotated[str, Meta(min_length=1, max_length=limits.MAX_MESSAGE_ID_CHARS)]


class TraceReport(msgspec.Struct, frozen=True):
    """Says what the client has measured of an own message whose frame had a ``traceparent``; times are Unix µs."""

    type: ClassVar[str] = "trace_report"
    traceparent: Annotated[str, Meta(max_length=limits.MAX_ID_CHARS)]
    sent_at_us: _Seq
    acknowledged_at_us: _Seq
    shown_at_us: _Seq


Request = (
    Hello
    | Register
    | Authenticate
    | Resume
    | Logout
    | CreateRoom
    | JoinRoom
    | LeaveRoom
    | ListRooms
    | UserList
    | TextMessage
    | History
    | Heartbeat
    | FileOffer
    | FileGet
    | FileList
    | FileCancel
    | FileAck
    | FileTransfer
    | GetTrace
    | TraceReport
)

REQUESTS: Final[dict[str, type[Request]]] = {
    kind.type: kind for kind in (
        Hello, Register, Authenticate, Resume, Logout, CreateRoom, JoinRoom, LeaveRoom, ListRooms, UserList, GetTrace,
        TextMessage, History, Heartbeat, FileOffer, FileGet, FileList, FileCancel, FileAck, FileTransfer, TraceReport,
    )}  # fmt: skip
"""Every request by its type."""

_ONE_LINE: Final[dict[type[Request], tuple[str, ...]]] = {
    Hello: ("client",),
    Authenticate: ("device",),
    CreateRoom: ("topic",),
    JoinRoom: ("room_id",),
    LeaveRoom: ("room_id",),
    ListRooms: ("query", "cursor"),
    UserList: ("room_id",),
    TextMessage: ("room_id", "key"),
    History: ("room_id",),
    FileOffer: ("room_id", "name", "mime"),
    FileList: ("room_id",),
    FileTransfer: ("room_id", "filename"),
}
"""Fields without control characters. Names and passwords are not among them: the services have codes for those."""

_convert = msgspec.convert


def parse_request(envelope: Envelope) -> Request:
    """Make the typed request of an envelope. ``room_id`` counts wherever it stands; inside ``data`` it goes first.

    Raises WireError: unknown_type; too_large for a text above 4,000 characters; bad_username or weak_password where
    those of a registration are beyond all bounds; bad_request for anything else that is missing, wrong or out of range.
    """
    if envelope.type == "text_message" and (text := _ordinary_text(envelope)) is not None:
        return text
    kind = REQUESTS.get(envelope.type)
    if kind is None:
        raise _refusal(envelope, ErrorCode.UNKNOWN_TYPE, "no such type of request")
    data = envelope.data
    if envelope.room_id is not None and data.get("room_id") is None:
        data = {**data, "room_id": envelope.room_id}
    try:
        request: Request = _convert(data, kind)
    except msgspec.ValidationError as error:
        raise _refusal(envelope, ErrorCode.BAD_REQUEST, _explain(error)) from None
    if None in data.values():  # a field that may be absent may still not be null; only room_id may
        for name in kind.__struct_fields__:
            if name != "room_id" and data.get(name, "") is None:
                raise _refusal(envelope, ErrorCode.BAD_REQUEST, f"{name} must not be null")
    for name in _ONE_LINE.get(kind, ()):
        value: str | None = getattr(request, name)
        if value is not None and not is_clean_line(value):
            raise _refusal(envelope, ErrorCode.BAD_REQUEST, f"{name} must not hold control characters")
    check = _CHECKS.get(kind)
    if check is not None and (wrong := check(request)) is not None:
        raise _refusal(envelope, *wrong)
    return request


def _ordinary_text(envelope: Envelope) -> TextMessage | None:
    """Make the request that nearly all requests are, at a third of the cost; None leaves it to the exact way."""
    data = envelope.data
    text = data.get("text")
    room_id = data.get("room_id")
    if room_id is None:
        room_id = envelope.room_id
    key = data.get("key", "-")
    follows = data.get("follows", False)
    if (
        type(text) is str
        and 0 < len(text) <= limits.MAX_TEXT_CHARS
        and (room_id is None or _is_ordinary(room_id, limits.MAX_ROOM_REF_CHARS))
        and _is_ordinary(key, limits.MAX_KEY_CHARS)
        and type(follows) is bool
        and is_clean_text(text)
    ):
        return TextMessage(text, room_id, key if "key" in data else None, follows if "follows" in data else None)
    return None


def _is_ordinary(value: object, max_chars: int) -> bool:
    return type(value) is str and 0 < len(value) <= max_chars and value.isprintable()


def _refusal(envelope: Envelope, code: ErrorCode, message: str) -> WireError:
    return WireError(code, message, re=envelope.id, type=envelope.type)


def _explain(error: msgspec.ValidationError) -> str:
    """Turn "Expected `str`, got `int` - at `$.key`" into "key: Expected `str`, got `int`"."""
    what, separator, where = str(error).partition(" - at `$.")
    return f"{where.rstrip('`')}: {what}" if separator else what


_Wrong = tuple[ErrorCode, str]


def _check_text(request: TextMessage) -> _Wrong | None:
    length = len(request.text)
    if length > limits.MAX_TEXT_CHARS:
        return ErrorCode.TOO_LARGE, f"a text has at most {limits.MAX_TEXT_CHARS} characters, this one {length}"
    if length == 0:
        return ErrorCode.BAD_REQUEST, "text must not be empty"
    if not is_clean_text(request.text):
        return ErrorCode.BAD_REQUEST, "text must not hold control characters other than line feed and tab"
    return None


def _check_register(request: Register) -> _Wrong | None:
    if len(request.username) > limits.MAX_FIELD_CHARS:
        return ErrorCode.BAD_USERNAME, "the username is too long"
    if len(request.password) > limits.MAX_FIELD_CHARS:
        return ErrorCode.WEAK_PASSWORD, "the password is too long"
    return None


def _check_history(request: History) -> _Wrong | None:
    if request.after is not None and request.before is not None:
        return ErrorCode.BAD_REQUEST, "give after or before, not both"
    return None


def _check_resume(request: Resume) -> _Wrong | None:
    for room_id, position in request.rooms.items():
        if not (is_clean_line(room_id) and is_clean_line(position.epoch)):
            return ErrorCode.BAD_REQUEST, "rooms must not hold control characters"
    return None


def _check_transfer(request: FileTransfer) -> _Wrong | None:
    if request.chunk_num >= request.total_chunks:
        return ErrorCode.BAD_REQUEST, "chunk_num must be below total_chunks"
    try:
        request.content()
    except ValueError:
        return ErrorCode.BAD_REQUEST, "data must be base64"
    return None


_CHECKS: Final[dict[type[Request], Any]] = {
    TextMessage: _check_text,
    Register: _check_register,
    History: _check_history,
    Resume: _check_resume,
    FileTransfer: _check_transfer,
}
"""What the field types above cannot say."""
