"""What the rooms service is told at start."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from services.common.config import ServiceConfig
from services.common.db import PostgresAccess
from services.common.redis_client import RedisAccess
from services.rooms.files.rules import FileLimits
from services.rooms.presence import CROWD, GRACE_S


@dataclass(frozen=True, kw_only=True)
class RoomsConfig(ServiceConfig):
    """Configuration of a rooms instance (`[rooms]`, `PARLEY_ROOMS_…`).

    `database_url` is SQLAlchemy's, without a password, which is in `database_password_file`; left out, it is the file
    `data/rooms.db` in the home. `database_ca_file` makes PostgreSQL prove who it is.
    """

    name: str = "rooms-1"
    database_url: str | None = field(default=None, repr=False)
    database_password_file: Path | None = None
    database_ca_file: Path | None = None

    redis_url: str | None = field(default=None, repr=False)
    redis_password_file: Path | None = None
    redis_ca_file: Path | None = None
    """Where rooms instances wake each other, `redis://…` or `rediss://…`; needed where there are several. They must
    share a database that can be shared, too."""

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

    files_dir: Path | None = None
    """Where file bytes are kept; left out, it is `data/files` in the home."""

    file_bytes_max: int = 100 * 1024 * 1024
    """One file: a minute at 14 Mbit/s."""

    files_per_user_max: int = 1_000
    file_bytes_per_user_max: int = 2 * 1024**3
    files_per_room_max: int = 2_000
    file_bytes_per_room_max: int = 10 * 1024**3
    """Quotas hold for what is kept, unfinished files included. They are counted anew at each offer, which at 2,000
    files takes 0.2 ms."""

    unfinished_files_max: int = 32
    """Files that one person may be sending: more than anybody looks at, and few enough that offers cannot fill a
    quota that others need."""

    file_transfers_max: int = 128
    """Uploads, and as many downloads, at one time: an upload takes up to 5 MB of memory, a download 1 MB."""

    file_retention_days: float = 90.0
    """How long posted files are kept; 0: for ever. Afterwards their messages remain."""

    unfinished_retention_hours: float = 24.0
    """How long somebody may take to go on with an upload that broke."""

    disk_free_bytes_min: int = 256 * 1024**2
    """What files leave free on their disk: the message log may need it."""

    assertion_keys_file: Path | None = None
    """The public keys with which assertions of sessions are verified; `home`/certificates/assertion-public.pem."""

    check_assertions: bool = True
    """Off for tests and load tests only: then an edge may act for anybody."""

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
            "file_bytes_max",
            "files_per_user_max",
            "file_bytes_per_user_max",
            "files_per_room_max",
            "file_bytes_per_room_max",
            "unfinished_files_max",
            "file_transfers_max",
        ):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}: must be at least 1")
        for key in ("presence_grace_s", "file_retention_days", "unfinished_retention_hours", "disk_free_bytes_min"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key}: must not be negative")
        self.access.arguments()  # a password that cannot be read is told by its key, and now
        if self.redis_access is not None:
            self.redis_access.arguments()
            if not self.is_shared:
                raise ValueError("redis_url: needs a database that several instances can share, PostgreSQL")

    @property
    def files_path(self) -> Path:
        """Where file bytes are."""
        return self.files_dir or self.home / "data" / "files"

    @property
    def assertion_keys_path(self) -> Path:
        """Where the keys are that verify assertions."""
        return self.assertion_keys_file or self.home / "certificates" / "assertion-public.pem"

    @property
    def file_limits(self) -> FileLimits:
        """How much is taken."""
        return FileLimits(
            file_bytes_max=self.file_bytes_max,
            user_bytes_max=self.file_bytes_per_user_max,
            user_files_max=self.files_per_user_max,
            room_bytes_max=self.file_bytes_per_room_max,
            room_files_max=self.files_per_room_max,
            unfinished_max=self.unfinished_files_max,
            transfers_max=self.file_transfers_max,
            free_bytes_min=self.disk_free_bytes_min,
            retention_s=self.file_retention_days * 86_400,
            unfinished_retention_s=self.unfinished_retention_hours * 3_600,
        )

    @property
    def url(self) -> str:
        """Where the database is."""
        return self.database_url or f"sqlite:///{self.home / 'data' / 'rooms.db'}"

    @property
    def access(self) -> PostgresAccess:
        """What a PostgreSQL URL leaves out."""
        return PostgresAccess(
            schema="rooms", name=self.name, password_file=self.database_password_file, ca_file=self.database_ca_file
        )

    @property
    def redis_access(self) -> RedisAccess | None:
        """Where Redis is, if there is one. Raises ValueError."""
        if self.redis_url is None:
            return None
        return RedisAccess(
            url=self.redis_url, name=self.name, password_file=self.redis_password_file, ca_file=self.redis_ca_file
        )

    @property
    def is_shared(self) -> bool:
        """Whether other instances may use the same database: all can but SQLite, which belongs to one instance."""
        return not self.url.startswith("sqlite")
