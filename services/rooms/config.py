"""What the rooms service is told at start."""

from __future__ import annotations

from dataclasses import dataclass

from services.common.config import ServiceConfig
from services.rooms.presence import CROWD, GRACE_S


@dataclass(frozen=True, kw_only=True)
class RoomsConfig(ServiceConfig):
    """Configuration of a rooms instance (`[rooms]`, `PARLEY_ROOMS_…`).

    `database_url` is SQLAlchemy's; left out, it is the file `data/rooms.db` in the home.
    """

    name: str = "rooms-1"
    database_url: str | None = None

    rooms_per_owner_max: int = 100
    """One person cannot fill the list of rooms; a community that needs more has several owners."""

    rooms_per_member_max: int = 500
    """At each login a person's rooms are read, sent and marked: 500 are some 50 KB and a few milliseconds."""

    publish_queue_max: int = 8_192
    """Messages that may wait to be stored: about 0.2 s of work. One more is refused at once, which helps its sender
    more than waiting. Text that waits is bounded with it, by 16 KB a message."""

    stream_bytes_max: int = 8 * 1024 * 1024
    """Messages that may wait for one edge: some 50,000 of ordinary size. Beyond it they stay in the log, and are read
    from there when the edge has caught up."""

    follows_max: int = 100_000
    """Rooms that one edge may follow; each costs about 200 bytes here."""

    presence_grace_s: float = GRACE_S
    presence_crowd: int = CROWD

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in (
            "rooms_per_owner_max",
            "rooms_per_member_max",
            "publish_queue_max",
            "stream_bytes_max",
            "follows_max",
            "presence_crowd",
        ):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}: must be at least 1")
        if self.presence_grace_s < 0:
            raise ValueError("presence_grace_s: must not be negative")

    @property
    def url(self) -> str:
        """Where the database is."""
        return self.database_url or f"sqlite:///{self.home / 'data' / 'rooms.db'}"
