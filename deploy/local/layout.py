"""Where a stack keeps its files: every path below its home, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE_DIRECTORY = 0o700  # keys, databases and logs are for the owner's eyes


@dataclass(frozen=True)
class Layout:
    """The paths of one home. `home` is absolute."""

    home: Path

    @property
    def certificates(self) -> Path:
        """Certificate authorities, certificates, private keys and other secrets."""
        return self.home / "certificates"

    @property
    def data(self) -> Path:
        """Databases."""
        return self.home / "data"

    @property
    def logs(self) -> Path:
        """What the services write for people and programs to read."""
        return self.home / "logs"

    @property
    def graphs(self) -> Path:
        """Pictures that the metrics service draws."""
        return self.home / "monitoring" / "graphs"

    @property
    def run(self) -> Path:
        """What is true only while the stack is up."""
        return self.home / "run"

    @property
    def server_log(self) -> Path:
        """One JSON line per event, of all services."""
        return self.logs / "server.log"

    @property
    def stats_file(self) -> Path:
        """One JSON line of statistics per interval."""
        return self.logs / "performance_stats.json"

    @property
    def pepper(self) -> Path:
        """The key of the passwords' pre-hash; without it no password can be verified any more."""
        return self.certificates / "auth-pepper.key"

    @property
    def assertion_key(self) -> Path:
        """The key with which auth signs assertions of sessions."""
        return self.certificates / "assertion-key.pem"

    @property
    def assertion_keys(self) -> Path:
        """The public keys with which they are verified."""
        return self.certificates / "assertion-public.pem"

    @property
    def lock_file(self) -> Path:
        """Held for as long as any process of the stack lives."""
        return self.run / "lock"

    @property
    def restore_mark(self) -> Path:
        """There while `parley restore` is at work, and where it was cut off."""
        return self.data / "restore-in-progress"

    @property
    def prometheus_targets(self) -> Path:
        """What Prometheus is to scrape."""
        return self.run / "prometheus.json"

    @property
    def stack_file(self) -> Path:
        """Tells other programs of the stack that is up."""
        return self.run / "stack.json"

    def ready_file(self, process: str) -> Path:
        """Where the process named `process` says that it serves."""
        return self.run / f"{process}.ready.json"

    def database_url(self, service: str) -> str:
        """SQLAlchemy's name for the service's SQLite database."""
        return f"sqlite:///{self.data / service}.db"

    def create(self) -> None:
        """Makes the directories. Raises OSError."""
        self.home.mkdir(parents=True, exist_ok=True)
        for directory in (self.certificates, self.data, self.logs, self.run):
            directory.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
        self.graphs.mkdir(parents=True, exist_ok=True)

    def remove_stale(self) -> None:
        """Removes what an earlier stack left in run/. Only for whoever holds the lock."""
        for path in self.run.iterdir():
            if path != self.lock_file and path.is_file():
                path.unlink()
