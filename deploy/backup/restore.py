"""Puts a backup in the place of an installation that is down.

First everything is verified, then everything is prepared beside its place, then things change places, SQLite's with a
rename, PostgreSQL's with a commit. What was there is never deleted but for tables in PostgreSQL: files move to
data/replaced-TIME. A mark keeps `parley up` from starting on a restore that was cut off; doing it again completes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from deploy.backup import postgres, sqlite
from deploy.backup.copying import copy, measure, sync_directory
from deploy.backup.create import CERTIFICATES, FILES, PEPPER
from deploy.backup.manifest import BackupError

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from deploy.backup.manifest import Manifest
    from deploy.backup.places import Places, Store

_COMPANIONS: Final = ("", "-wal", "-shm", "-journal")


@dataclass(frozen=True)
class Request:
    """What is to be restored: a verified backup, and whether certificates come with it and what is there may go."""

    directory: Path
    manifest: Manifest
    certificates: bool
    overwrite: bool


def restore(request: Request, places: Places, *, data: Path, mark: Path, now: datetime) -> list[str]:
    """Returns what was moved out of the way. `data` is the home's folder of data, `mark` says that this is under way.

    The installation must be down. Raises BackupError and OSError; up to a failure of the disk in the last step nothing
    has changed then.
    """
    _check_kinds(request, places)
    _check_down(places)
    if not request.overwrite and (found := _in_the_way(request, places)):
        raise BackupError("there is something already, which only --overwrite replaces:\n  " + "\n  ".join(found))
    staged = {store.service: _stage(store, request) for store in places.stores if not store.is_postgres}
    aside = data / f"replaced-{now:%Y%m%d-%H%M%S}"
    moved: list[str] = []
    mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    mark.touch(mode=0o600)
    _restore_contents(request, places)
    moved += _place(request.directory / PEPPER, places.pepper, aside)
    if request.certificates:
        for name in _certificates(request):
            moved += _place(
                request.directory / name, places.certificates / name.removeprefix(f"{CERTIFICATES}/"), aside
            )
    for store in places.stores:
        if store.is_postgres:
            postgres.load(store, request.manifest, request.directory)
        else:
            moved += _swap(staged[store.service], store.path, aside)
    mark.unlink()
    sync_directory(mark.parent)
    return moved


def _check_kinds(request: Request, places: Places) -> None:
    for store in places.stores:
        kind = request.manifest.store(store.service).kind
        if kind != store.kind:
            raise BackupError(f"{store.service}: the backup is of {kind}, and here is {store.kind}")
    if request.certificates and not _certificates(request):
        raise BackupError("the backup was made without --certificates")


def _check_down(places: Places) -> None:
    for store in places.stores:
        if store.is_postgres and (count := postgres.others(store)):
            raise BackupError(f"{store.service} is running: its role has {count} other connections to the database")


def _in_the_way(request: Request, places: Places) -> list[str]:
    found = [
        f"{store.service} in PostgreSQL" if store.is_postgres else str(store.path)
        for store in places.stores
        if (postgres.is_used(store) if store.is_postgres else store.path.exists())
    ]
    names = {PEPPER: places.pepper}
    if request.certificates:
        names |= {name: places.certificates / name.removeprefix(f"{CERTIFICATES}/") for name in _certificates(request)}
    return found + [
        str(path) for name, path in names.items() if path.exists() and measure(path) != request.manifest.files[name]
    ]


def _certificates(request: Request) -> list[str]:
    return [name for name in request.manifest.files if name.startswith(f"{CERTIFICATES}/")]


def _stage(store: Store, request: Request) -> Path:
    name = f"databases/{store.service}.db"
    if name not in request.manifest.files:
        raise BackupError(f"{store.service}: the backup has no {name}")
    store.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = store.path.with_name(f".{store.path.name}.restoring")
    sqlite.stage(request.directory / name, request.manifest.files[name], target, store)
    return target


def _restore_contents(request: Request, places: Places) -> None:
    """Adds the contents that are not there. A content's name is its hash, so nothing can be in the way but damage."""
    for name, expected in request.manifest.files.items():
        if not name.startswith(f"{FILES}/"):
            continue
        sha256 = expected[1]
        target = places.contents / sha256[:2] / sha256
        if target.exists() and measure(target) == expected:
            continue
        _put(request.directory / name, target, expected)


def _place(source: Path, target: Path, aside: Path) -> list[str]:
    """Puts a file where it belongs; one that differs goes out of the way, and is named in the answer."""
    moved = []
    expected = measure(source)
    if target.exists():
        if measure(target) == expected:
            return []
        moved = [_move(target, aside)]
    _put(source, target, expected)
    return moved


def _put(source: Path, target: Path, expected: tuple[int, str]) -> None:
    draft = target.with_name(f".{target.name}.restoring")
    draft.unlink(missing_ok=True)
    if copy(source, draft) != expected:
        raise BackupError(f"{source} was changed while it was read")
    draft.replace(target)
    sync_directory(target.parent)


def _swap(staged: Path, path: Path, aside: Path) -> list[str]:
    """A database for another. Its companions go with it: a journal that is not its own would destroy it."""
    moved = []
    for suffix in _COMPANIONS:
        old = path.with_name(path.name + suffix)
        if old.exists():
            moved.append(_move(old, aside))
    staged.replace(path)
    sync_directory(path.parent)
    return moved


def _move(path: Path, aside: Path) -> str:
    aside.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = aside / path.name
    try:
        path.replace(target)
    except OSError:  # another disk: a copy, which is there before the original goes
        copy(path, target)
        path.unlink()
    sync_directory(aside)
    return str(target)
