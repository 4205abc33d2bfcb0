"""Makes a backup of an installation, running or not: databases, contents of files, the pepper, certificates on request.

It is written to TARGET.part, synced, and renamed: a folder without `.part` is whole. Contents of files come first and,
once the databases' snapshot says which ones it needs, what is missing still; so nothing that expires meanwhile is lost.
"""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from deploy.backup import manifest as manifests
from deploy.backup import postgres, sqlite
from deploy.backup.copying import copy, sync_directory
from deploy.backup.manifest import BackupError, Manifest, StoreEntry

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from pathlib import Path

    from deploy.backup.places import Places

PEPPER: Final = "auth-pepper.key"
CERTIFICATES: Final = "certificates"
FILES: Final = "files"
_PRIVATE: Final = 0o700


@dataclass(frozen=True)
class Made:
    """A finished backup. `digest` is its manifest's hash: whoever knows it can tell this backup from any other."""

    directory: Path
    counts: dict[str, int]
    bytes: int
    digest: str


def create(places: Places, target: Path, *, certificates: bool, now: datetime, version: str) -> Made:
    """Raises BackupError, and OSError for a disk that fails or is full. What it had begun is removed then."""
    if target.exists():
        raise BackupError(f"{target} is there already")
    part = target.with_name(f"{target.name}.part")
    try:
        part.mkdir(mode=_PRIVATE, parents=True)
    except FileExistsError:
        raise BackupError(
            f"{part} is there: another backup is being made, or one was cut off; remove it in that case"
        ) from None
    try:
        made = _fill(places, part, certificates=certificates, now=now, version=version)
        for directory in [part, *(path for path in part.rglob("*") if path.is_dir())]:
            sync_directory(directory)
        part.rename(target)
        sync_directory(target.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return Made(target, made.counts, made.bytes, made.digest)


def _fill(places: Places, part: Path, *, certificates: bool, now: datetime, version: str) -> Made:
    contents = _copy_contents(places.contents, part, present_hashes(places.contents))
    files: dict[str, tuple[int, str]] = {}
    entries: list[StoreEntry] = []
    counts: Counter[str] = Counter()
    needed: dict[str, int] = {}
    for store in places.stores:
        snapshot, stored = (postgres if store.is_postgres else sqlite).dump(store, part)
        files |= stored
        entries.append(snapshot.entry)
        counts.update(snapshot.counts)
        needed |= snapshot.needed
    contents |= _copy_contents(places.contents, part, needed.keys() - contents.keys())
    for unneeded in contents.keys() - needed.keys():  # expired, or not posted yet
        (part / content_path(unneeded)).unlink()
    for sha256, size in needed.items():
        if contents.get(sha256) != size:
            raise BackupError(f"the content {sha256} of a file is missing from {places.contents}")
        files[content_path(sha256)] = (size, sha256)
    counts["files"] = len(needed)
    files[PEPPER] = _copy_pepper(places, part)
    if certificates:
        files |= _copy_certificates(places, part)
    document = Manifest(now.isoformat(timespec="seconds"), version, entries, dict(counts), files)
    digest = manifests.write(part, document)
    return Made(part, dict(counts), sum(size for size, _ in files.values()), digest)


def content_path(sha256: str) -> str:
    """Where a content is in a backup."""
    return f"{FILES}/{sha256[:2]}/{sha256}"


def present_hashes(directory: Path) -> set[str]:
    """The contents that are kept in a directory of contents."""
    return {path.name for path in directory.glob("??/*")}


def _copy_contents(source: Path, part: Path, hashes: Iterable[str]) -> dict[str, int]:
    """Copies contents, each of which must still have the hash that is its name; those that have gone are left out."""
    copied = {}
    for sha256 in hashes:
        target = part / content_path(sha256)
        try:
            size, found = copy(source / sha256[:2] / sha256, target)
        except FileNotFoundError:
            continue
        if found != sha256:
            raise BackupError(f"{source / sha256[:2] / sha256} is damaged: it has another hash than its name says")
        copied[sha256] = size
    return copied


def _copy_pepper(places: Places, part: Path) -> tuple[int, str]:
    try:
        return copy(places.pepper, part / PEPPER)
    except FileNotFoundError:
        raise BackupError(f"{places.pepper} is missing, without which no password can be verified") from None


def _copy_certificates(places: Places, part: Path) -> dict[str, tuple[int, str]]:
    names = sorted(
        path.name
        for path in places.certificates.iterdir()
        # Passwords of databases stay with their databases.
        if path.suffix == ".pem" and path.is_file() and not path.name.startswith(".")
    )
    return {f"{CERTIFICATES}/{name}": copy(places.certificates / name, part / CERTIFICATES / name) for name in names}
