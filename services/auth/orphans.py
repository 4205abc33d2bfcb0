"""Orphans: open sessions that their edge does not know, since the answers to their logins never arrived.

For how long an edge has not named one is counted by this process's own clock, from the renewal in which it was missed
first. The time of day may jump, and a session that was opened a moment ago would seem to have been forgotten long ago.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from collections.abc import Set as AbstractSet

    from services.auth.revocations import EdgeBoot


class Orphans:
    """Which sessions each edge has not named, and since when; `after_s` makes an orphan of one. Holds as much as the
    last renewal of each edge left unnamed."""

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._missed: dict[str, tuple[str, dict[str, float]]] = {}  # by the edge's name: its boot, and since when

    def find(self, edge: EdgeBoot, *, open_ids: AbstractSet[str], named: Collection[str], now: float) -> list[str]:
        """The orphans among the open sessions of a boot, at the monotonic time `now`, in seconds."""
        boot_id, before = self._missed.pop(edge.name, ("", {}))
        unnamed = open_ids - set(named)
        if not unnamed:
            return []
        missed = {one: before.get(one, now) if boot_id == edge.boot_id else now for one in unnamed}
        self._missed[edge.name] = edge.boot_id, missed
        return [one for one, since in missed.items() if now - since >= self._after_s]
