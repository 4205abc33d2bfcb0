"""Rules about requests: which version knows which, what is allowed before login, and what others have to wait for."""

from __future__ import annotations

from typing import Final

from services.common.wire.requests import (
    REQUESTS,
    Authenticate,
    CreateRoom,
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

LOGINS: Final = frozenset({Authenticate, Resume})
"""What makes somebody of a client that is nobody."""

ENTERS_OR_LEAVES: Final = frozenset({*LOGINS, Logout, CreateRoom, JoinRoom, LeaveRoom})
"""What changes which rooms' messages come."""

BARRIERS: Final = ENTERS_OR_LEAVES | {Register, FileTransfer}
"""What changes the meaning of later frames, which therefore wait for the answer; and a file's pieces."""

AFTER_TEXTS: Final = frozenset({Logout, LeaveRoom})
"""What waits itself until the texts before it are answered, because they would not be accepted afterwards."""

CURRENT_ROOM: Final = frozenset({LeaveRoom, UserList, FileTransfer})
"""Where version 1 may leave the room out (in texts too)."""
