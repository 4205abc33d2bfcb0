"""Gives up what nobody finishes, takes the bytes from what is old, and removes what the database does not know.

At the start, and then once in a while. Each step stands for itself: what fails is tried again in the next round.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.rooms.files import rules, store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.common.clock import Clock
    from services.common.db import Database
    from services.rooms.files.contents import ContentStore
    from services.rooms.files.rules import FileLimits
    from services.rooms.files.store import WhichKnown
    from services.rooms.files.uploads import Uploads

SWEEP_INTERVAL_S: Final = 60.0
"""How much longer than its time something may be there."""

ORPHANS_INTERVAL_S: Final = 3_600.0
"""Orphans come from crashes and restored backups, and are looked for at the start; later rounds are a second look."""

PAGE: Final = 500
"""Files in one transaction: a few milliseconds of the writer, between which messages are stored."""

_log = get_logger(__name__)


class Sweeper:
    """Sweeps."""

    def __init__(
        self,
        database: Database,
        *,
        contents: ContentStore,
        uploads: Uploads,
        clock: Clock,
        limits: FileLimits,
    ) -> None:
        self._database = database
        self._contents = contents
        self._uploads = uploads
        self._clock = clock
        self._limits = limits
        self._looked_at: float | None = None

    async def run(self) -> None:
        """Sweeps until cancelled."""
        while True:
            try:
                await self.sweep()
            except ParleyError as error:
                _log.warning("files cannot be swept", code=error.code, reason=error.message)
            await self._clock.sleep(SWEEP_INTERVAL_S)

    async def sweep(self) -> None:
        """One round. Raises ParleyError where the storage fails."""
        await self._give_up_unfinished()
        if self._limits.retention_s:
            await self._expire_posted()
        await self._remove_unwanted()
        now = self._clock.monotonic()
        if self._looked_at is None or now - self._looked_at >= ORPHANS_INTERVAL_S:
            await self._remove_orphans()
            self._looked_at = now

    def _before_ms(self, age_s: float) -> int:
        return int((self._clock.now() - age_s) * 1_000)

    async def _give_up_unfinished(self) -> None:
        before_ms = self._before_ms(self._limits.unfinished_retention_s)
        due = await self._database.read(lambda c: store.unfinished_before(c, before_ms, PAGE))
        for file_id in due:
            if not self._uploads.is_under_way(file_id):
                with contextlib.suppress(ParleyError):  # posted or cancelled just now
                    await self._uploads.give_up(file_id)
                    _log.info("unfinished file given up", file_id=file_id)

    async def _expire_posted(self) -> None:
        before_ms = self._before_ms(self._limits.retention_s)
        while hashes := await self._database.write(lambda c: store.expire_posted(c, before_ms=before_ms, limit=PAGE)):
            for sha256 in hashes:
                await self._uploads.collect(sha256)

    async def _remove_unwanted(self) -> None:
        """Contents whose last file went while nobody could remove them."""
        for sha256 in await self._database.read(lambda c: store.unwanted_contents(c, PAGE)):
            await self._uploads.collect(sha256)

    async def _remove_orphans(self) -> None:
        """What is in the store and not in the database.

        The store is listed first: what is found there was in the database before it came there, and if it is not in it
        now, nobody wants it.
        """
        parts = await self._contents.part_ids()
        for part_id in await self._unknown(parts, store.known_parts):
            if rules.is_file_id(part_id):
                await self._contents.discard(part_id)
                _log.warning("orphan removed", part_id=part_id)
        hashes = await self._contents.hashes()
        for sha256 in await self._unknown(hashes, store.known_contents):
            if rules.is_sha256(sha256):
                await self._uploads.collect_orphan(sha256)
                _log.warning("orphan removed", sha256=sha256)

    async def _unknown(self, found: Sequence[str], known: WhichKnown) -> list[str]:
        if not found:
            return []
        known_ones = await self._database.read(lambda c: known(c, found))
        return [one for one in found if one not in known_ones]
