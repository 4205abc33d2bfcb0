"""`parley backup` and `parley restore`: from parsed arguments to what they print."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

from deploy.backup import manifest as manifests
from deploy.backup import places
from deploy.backup.create import create
from deploy.backup.manifest import BackupError
from deploy.backup.restore import Request, restore
from deploy.local import lock
from deploy.local.failures import StartError
from deploy.local.layout import Layout
from deploy.local.options import DATABASE_SCHEMES, read_server

if TYPE_CHECKING:
    import argparse


def run_backup(arguments: argparse.Namespace) -> int:
    """0 when the backup is whole and on the disk. Raises StartError."""
    os.umask(0o077)
    layout = Layout(arguments.home.resolve())
    found = places.find(layout, read_server(arguments, "database", DATABASE_SCHEMES), os.environ)
    try:
        made = create(
            found,
            arguments.target.resolve(),
            certificates=arguments.certificates,
            now=datetime.now(UTC),
            version=version("parley"),
        )
    except OSError as error:
        raise StartError(f"backup: {error}") from error
    print(f"backup of {_told(made.counts)} in {made.directory} ({made.bytes / 1e6:.1f} MB)")
    print(f"digest {made.digest}")
    return 0


def run_restore(arguments: argparse.Namespace) -> int:
    """0 when everything is in its place. Raises StartError."""
    os.umask(0o077)
    directory = arguments.backup.resolve()
    manifest, digest = manifests.read(directory, digest=arguments.digest)
    manifests.verify(directory, manifest)
    if arguments.check:
        print(f"whole: {_told(manifest.counts)}, made {manifest.made_at} by parley {manifest.version}")
        print(f"digest {digest}")
        return 0
    layout = Layout(arguments.home.resolve())
    found = places.find(layout, read_server(arguments, "database", DATABASE_SCHEMES), os.environ)
    request = Request(directory, manifest, arguments.certificates, arguments.overwrite)
    try:
        layout.create()
        held = lock.acquire(layout.lock_file, home=layout.home)
        try:
            moved = restore(request, found, data=layout.data, mark=layout.restore_mark, now=datetime.now(UTC))
        finally:
            held.release()
    except OSError as error:
        raise BackupError(f"restore: {error}") from error
    for path in moved:
        print(f"moved out of the way: {path}")
    print(
        f"restored {_told(manifest.counts)}, as of {manifest.made_at}. Rooms begin a new epoch; everybody logs in anew."
    )
    return 0


def _told(counts: dict[str, int]) -> str:
    order = ("accounts", "rooms", "messages", "files")
    return ", ".join(f"{counts.get(name, 0)} {name}" for name in order)
