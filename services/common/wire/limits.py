"""Limits of the client protocol: one named number for everything that a peer could make large.

Both ends use these. What an operator may change (rates, idle times, queue shares) is configuration of the edge; what
is here is part of the protocol, so changing it is a new version of the protocol.
"""

from __future__ import annotations

from typing import Final

PROTOCOL_VERSION: Final = 2

PROTOCOL_VERSION_MAX: Final = 1_000
"""A later client may ask for a later version and is told which one it gets; a number beyond this is nonsense."""

LENGTH_BYTES: Final = 4
"""Every frame begins with its payload's length, unsigned big-endian."""

MAX_JSON_BYTES: Final = 65_536
"""A message of 4,000 four-byte characters, all escaped, still fits; an attacker's frame costs at most 64 KiB."""

MAX_CHUNK_BYTES: Final = 65_536
"""Data in one file chunk: large enough that headers cost nothing, small enough that a heartbeat is never far behind."""

FILE_ID_BYTES: Final = 16
CHUNK_OFFSET_BYTES: Final = 8
CHUNK_HEADER_BYTES: Final = 1 + FILE_ID_BYTES + CHUNK_OFFSET_BYTES
MAX_CHUNK_FRAME_BYTES: Final = CHUNK_HEADER_BYTES + MAX_CHUNK_BYTES

MAX_DEPTH: Final = 32
"""Nesting of JSON arrays and objects. The protocol itself needs 5."""

MAX_MESSAGE_ID_CHARS: Final = 128
"""`room_id-epoch-seq`: 16, 8 and 19 characters at most, and what other servers may do."""

MAX_ID_CHARS: Final = 64
"""A request id: room for a UUID in any notation."""

MAX_KEY_CHARS: Final = 64
"""A text's key, stored with every message for ever, therefore short."""

MAX_TEXT_CHARS: Final = 4_000
"""Code points in one text: about two printed pages."""

MAX_FIELD_CHARS: Final = 1_024
"""Names, passwords and topics on the wire: a sane ceiling; the services' own rules are narrower and have own codes."""

MAX_ROOM_REF_CHARS: Final = 64
"""A room's id, name or id prefix: room names have at most 64 characters."""

MAX_TOKEN_CHARS: Final = 256
"""Tokens have 43 characters; room for a longer kind later."""

MAX_DEVICE_CHARS: Final = 64
MAX_CLIENT_CHARS: Final = 64
"""What a client calls itself in ``hello``: it is shown to operators, so it is a label and not an essay."""

MAX_CURSOR_CHARS: Final = 256
MAX_QUERY_CHARS: Final = 64
"""Part of a room's name, which has at most 64 characters."""

PAGE_LIMIT_MAX: Final = 200
"""Entries in one page of rooms or of history: 200 texts of ordinary length fit into one frame."""

HISTORY_LIMIT_DEFAULT: Final = 50
HISTORY_LIMIT_MAX: Final = PAGE_LIMIT_MAX
FILES_LIMIT_DEFAULT: Final = 50
ROOMS_LIMIT_DEFAULT: Final = PAGE_LIMIT_MAX
"""All of them, for nearly everybody: version 1 knows no next page."""

ROOMS_LIMIT_MAX: Final = PAGE_LIMIT_MAX

MAX_RESUME_ROOMS: Final = 1_000
"""Positions in one ``resume``; at 40 bytes each they fit into one frame."""

RESUME_REPLAY_MAX: Final = 1_000
"""Missed messages per room that a resume replays; who missed more reads history page by page."""

MAX_SEQ: Final = 2**63 - 1
"""Sequence numbers are stored as signed 64-bit integers."""

MAX_FILENAME_CHARS: Final = 255
"""What the common file systems allow."""

MAX_MIME_CHARS: Final = 127
SHA256_HEX_CHARS: Final = 64
FILE_ID_HEX_CHARS: Final = 32

MAX_V1_CHUNK_CHARS: Final = 60_000
"""Base64 in one version-1 ``file_transfer``: leaves room for the envelope in a frame of 65,536 bytes."""

MAX_V1_PIECE_BYTES: Final = MAX_V1_CHUNK_CHARS // 4 * 3
"""What so much base64 says."""

MAX_V1_CHUNKS: Final = 1_000_000
"""Chunks that a version-1 transfer may announce; each is counted, so the number itself must be bounded."""

HEARTBEAT_S: Final = 30
IDLE_TIMEOUT_S: Final = 60
"""Two heartbeats: one may be lost in a network that is changing."""
