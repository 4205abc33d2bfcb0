"""Rules about requests: which version knows which, what is allowed before login, and what others have to wait for."""

from __future__ import annotations

from typing import Final

from services.common.wire.requests import (
    REQUESTS,
    Authenticate,
    CreateRoom,
    FileAck,
    FileCancel,
    FileGet,
    FileOffer,
    FileTransfer,
    Heartbeat,
    Hello,
    JoinRoom,
    LeaveRoom,
    ListRooms,
    Logout,
    Register,
    Request,
    Resume,
    TextMessage,
    UserList,
)

KNOWN: Final[dict[int, frozenset[type[Request]]]] = {
    1: frozenset(
        {
            Register,
            Authenticate,
            CreateRoom,
            JoinRoom,
            LeaveRoom,
            ListRooms,
            UserList,
            TextMessage,
            Heartbeat,
            FileTransfer,
        }
    ),
    2: frozenset(REQUESTS.values()) - {FileTransfer},
}
"""What each version may ask."""

BEFORE_LOGIN: Final = frozenset({Hello, Register, Authenticate, Resume, Heartbeat})
"""What is allowed to a client that is not logged in."""

BARRIERS: Final = frozenset({Register, Authenticate, Logout, CreateRoom, JoinRoom, LeaveRoom})
"""What changes the meaning of later frames, which therefore wait for the answer."""

AFTER_TEXTS: Final = frozenset({Logout, LeaveRoom})
"""What waits itself until the texts before it are answered, because they would not be accepted afterwards."""

FILES: Final = frozenset({FileOffer, FileGet, FileCancel, FileAck, FileTransfer})

CURRENT_ROOM: Final = frozenset({LeaveRoom, UserList})
"""Where version 1 may leave the room out (in texts too)."""
