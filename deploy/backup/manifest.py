"""manifest.json: what a backup holds, file by file with its hash. A backup is whole when it fits, to the last byte.

The manifest is written last, and its own hash beside it. That hash is also what `parley backup` prints: whoever keeps
it elsewhere can tell a backup that somebody has changed, manifest and all (`parley restore --digest`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from deploy.backup.copying import HashedFile, measure
from deploy.local.failures import StartError

FORMAT: Final = 1
NAME: Final = "manifest.json"
DIGEST_NAME: Final = "manifest.sha256"
_BYTES_MAX: Final = 512 * 1024 * 1024  # some three million files
_FAULTS_SHOWN: Final = 5
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class BackupError(StartError):
    """A backup that is not whole, or does not fit; says why."""


@dataclass(frozen=True)
class Table:
    """A table of PostgreSQL: `path` holds its rows as COPY writes them, in the order of the primary key."""

    name: str
    columns: list[str]
    path: str


@dataclass(frozen=True)
class StoreEntry:
    """The database of one service. `revision` is its schema's; `tables` are PostgreSQL's, parents first."""

    service: str
    kind: str
    revision: str
    tables: list[Table] = field(default_factory=list)


@dataclass(frozen=True)
class Manifest:
    """All of a backup. `files` are the paths in it with size and SHA-256; `counts` are for people."""

    made_at: str
    version: str
    stores: list[StoreEntry]
    counts: dict[str, int]
    files: dict[str, tuple[int, str]]

    def store(self, service: str) -> StoreEntry:
        """What it says of a service's database. Raises BackupError."""
        for entry in self.stores:
            if entry.service == service:
                return entry
        raise BackupError(f"the backup has nothing of {service}")


def write(directory: Path, manifest: Manifest) -> str:
    """Writes the manifest and its hash, which it returns. Raises OSError."""
    data = json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1, sort_keys=True).encode() + b"\n"
    digest = hashlib.sha256(data).hexdigest()
    for name, content in ((NAME, data), (DIGEST_NAME, f"{digest}\n".encode())):
        file = HashedFile(directory / name)
        file.write(content)
        file.close()
    return digest


def read(directory: Path, *, digest: str | None = None) -> tuple[Manifest, str]:
    """The manifest and its hash, which must be `digest` where one is given. Raises BackupError."""
    try:
        with (directory / NAME).open("rb") as file:
            data = file.read(_BYTES_MAX)
        noted = (directory / DIGEST_NAME).read_text().strip()
    except FileNotFoundError as error:
        raise BackupError(f"{directory} is no backup, or one that was not finished: no {_name(error)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BackupError(f"{directory} cannot be read: {error}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != noted:
        raise BackupError(f"{directory / NAME} is damaged: it does not have the hash that is noted beside it")
    if digest is not None and found != digest.strip().lower():
        raise BackupError(f"{directory} is not the backup with the digest that you gave: its own is {found}")
    try:
        return _parse(json.loads(data)), found
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BackupError(f"{directory / NAME} is not a manifest: {error!r}") from error


def verify(directory: Path, manifest: Manifest) -> None:
    """Compares every file with the manifest. Raises BackupError, which names the first that differ."""
    faults = []
    try:
        present = _files(directory) - {NAME, DIGEST_NAME}
        faults += [f"{path}: missing" for path in sorted(manifest.files.keys() - present)]
        faults += [f"{path}: not in the manifest" for path in sorted(present - manifest.files.keys())]
        for path in sorted(manifest.files.keys() & present):
            if measure(directory / path) != manifest.files[path]:
                faults.append(f"{path}: changed or cut off")
    except OSError as error:
        faults.append(str(error))
    if faults:
        more = f"\n  and {len(faults) - _FAULTS_SHOWN} more" if len(faults) > _FAULTS_SHOWN else ""
        raise BackupError(f"{directory} is not whole:\n  " + "\n  ".join(faults[:_FAULTS_SHOWN]) + more)


def _files(directory: Path) -> set[str]:
    """All that is in it and is no folder, links too."""
    found = set()
    for parent, folders, names in os.walk(directory):
        place = Path(parent)
        links = [name for name in folders if (place / name).is_symlink()]
        found |= {(place / name).relative_to(directory).as_posix() for name in (*names, *links)}
    return found


def _parse(document: Any) -> Manifest:
    if document["format"] != FORMAT:
        raise ValueError(f"format {document['format']}, and this version knows {FORMAT}")
    stores = [
        StoreEntry(
            str(entry["service"]),
            str(entry["kind"]),
            str(entry["revision"]),
            [Table(str(t["name"]), [str(c) for c in t["columns"]], _path(t["path"])) for t in entry["tables"]],
        )
        for entry in document["stores"]
    ]
    files = {_path(path): (int(size), _sha256(sha256)) for path, (size, sha256) in document["files"].items()}
    counts = {str(name): int(count) for name, count in document["counts"].items()}
    return Manifest(str(document["made_at"]), str(document["version"]), stores, counts, files)


def _path(text: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or str(path) != text or text in {".", NAME, DIGEST_NAME}:
        raise ValueError(f"not a path in a backup: {text!r}")
    return text


def _sha256(text: str) -> str:
    if _SHA256.fullmatch(text) is None:
        raise ValueError(f"not a hash: {text!r}")
    return text


def _name(error: FileNotFoundError) -> str:
    return Path(error.filename).name
