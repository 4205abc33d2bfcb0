"""What the copy of a database came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from deploy.backup.manifest import StoreEntry

COUNTED: Final = {"auth": {"accounts": "accounts"}, "rooms": {"rooms": "rooms", "messages": "messages"}}
"""What people want to know of a backup, and the tables that tell."""


@dataclass(frozen=True)
class Snapshot:
    """Its entry in the manifest, the contents of files that it needs with their sizes, and counts for people."""

    entry: StoreEntry
    needed: dict[str, int]
    counts: dict[str, int]
