"""Routes: which rooms instance answers for a room.

Every instance can serve every room, so a route is about locality, not about truth: while all edges send a room's texts
to one instance, that instance writes them in few transactions and wakes nobody. Rendezvous hashing over the instances
that are there moves only the rooms of one that comes or goes, and gives all edges the same answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

_CACHE_MAX: Final = 100_000
"""Rooms whose instance is remembered: a hash for each instance and text would cost more than the text."""


def ranked(key: str, targets: Iterable[str]) -> list[str]:
    """The instances in the order in which they are to serve `key`."""
    return sorted(targets, key=lambda target: (_weight(key, target), target), reverse=True)


def _weight(key: str, target: str) -> bytes:
    return hashlib.blake2b(f"{target}\0{key}".encode(), digest_size=8).digest()


class Routes:
    """The instances, by target, and those of them that are there; while none is, the last ones keep their rooms."""

    def __init__(self, targets: Iterable[str]) -> None:
        self.targets = tuple(targets)
        self._live: set[str] = set()
        self._serving = self.targets
        self._owners: dict[str, str] = {}

    @property
    def live_count(self) -> int:
        """How many instances are there."""
        return len(self._live)

    def owner(self, room: str) -> str:
        """The instance of a room."""
        owner = self._owners.get(room)
        if owner is None:
            if len(self._owners) >= _CACHE_MAX:
                self._owners.clear()
            owner = self._owners[room] = ranked(room, self._serving)[0]
        return owner

    def candidates(self, key: str) -> list[str]:
        """The instances that may be asked about `key`, the best first."""
        return ranked(key, self._serving)

    def set_live(self, target: str, is_live: bool) -> bool:
        """An instance has come or gone; return whether rooms may have another instance now."""
        if is_live:
            self._live.add(target)
        else:
            self._live.discard(target)
        serving = tuple(one for one in self.targets if one in self._live) or self._serving
        if serving == self._serving:
            return False
        self._serving = serving
        self._owners.clear()
        return True
