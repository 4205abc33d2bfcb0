"""What rooms counts, for statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.common.counters import Counters

_BATCH_BOUNDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
_SECONDS_BOUNDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class FileCounts:
    """The metrics of files."""

    def __init__(self, counters: Counters) -> None:
        self.posted = counters.counter("parley.rooms.files.posted", "1", "Files posted.")
        self.removed = counters.counter("parley.rooms.files.removed", "1", "Contents removed from the store.")
        self.bytes_in = counters.counter("parley.rooms.files.bytes_received", "By", "Bytes of files received.")
        self.bytes_out = counters.counter("parley.rooms.files.bytes_sent", "By", "Bytes of files sent.")
        self._counters = counters

    def watch(self, uploads: Callable[[], int], downloads: Callable[[], int]) -> None:
        """Where the numbers of transfers under way come from."""
        self._counters.gauge("parley.rooms.files.uploads", "1", "Uploads under way.", uploads)
        self._counters.gauge("parley.rooms.files.downloads", "1", "Downloads under way.", downloads)


class BusCounts:
    """The metrics of a bus between instances."""

    def __init__(self, counters: Counters) -> None:
        self.sent = counters.counter("parley.rooms.bus.sent", "1", "Batches that were told to other instances.")
        self.failed = counters.counter("parley.rooms.bus.failed", "1", "Batches that could not be told.")
        self.dropped = counters.counter("parley.rooms.bus.dropped", "1", "Events that did not fit into the queue.")
        self.lost = counters.counter("parley.rooms.bus.lost", "1", "Times that others' events may have been missed.")


class RoomsCounts:
    """The service's metrics. `on_commit` is told how long each transaction took."""

    def __init__(self, counters: Counters, *, on_commit: Callable[[float], object] = lambda _: None) -> None:
        self._tell_commit = on_commit
        self.stored = counters.counter("parley.rooms.messages.stored", "1", "Messages stored.")
        self.duplicates = counters.counter("parley.rooms.messages.duplicate", "1", "Publishes that were stored before.")
        self.refused = counters.counter("parley.rooms.messages.refused", "1", "Publishes that were not stored.")
        self.batch_size = counters.histogram(
            "parley.rooms.commit.batch_size", "1", _BATCH_BOUNDS, "Messages in one transaction."
        )
        self.commit_duration = counters.histogram(
            "parley.rooms.commit.duration", "s", _SECONDS_BOUNDS, "Time of one transaction with its sync."
        )
        self.presence_dropped = counters.counter(
            "parley.rooms.presence.coalesced", "1", "Presence changes that a slow edge got as counts."
        )
        self.pages_read = counters.counter(
            "parley.rooms.feed.pages_read", "1", "Pages of the log that streams which were behind have read."
        )
        self.reads = counters.counter("parley.rooms.database.reads", "1", "Reads of the database.")
        self.files = FileCounts(counters)
        self.bus = BusCounts(counters)
        self._counters = counters
        self.room_count = 0
        counters.gauge("parley.rooms.count", "1", "Rooms.", lambda: self.room_count)

    def on_commit(self, _count: int, seconds: float) -> None:
        """Told by the database after each transaction."""
        self.commit_duration.observe(seconds)
        self._tell_commit(seconds)
