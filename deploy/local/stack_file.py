"""run/stack.json: what other programs need to know of the stack that is up.

{"client_ca": path, "grpc_ca": path, "processes": [{"name": "edge-1", "pid": n, "client_port": p,
"grpc": "host:port", "prometheus": "host:port"}, …]}; only edges have a client_port. Beside it run/prometheus.json
lists the same processes in the form that Prometheus reads targets from (file_sd_configs).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One process of the stack."""

    name: str
    pid: int
    grpc: str
    prometheus: str
    client_port: int | None = None


def write(path: Path, *, client_ca: Path, grpc_ca: Path, entries: Iterable[Entry]) -> None:
    """Replaces the file in one step, so that a reader never sees half of it. Raises OSError."""
    document = {
        "client_ca": str(client_ca),
        "grpc_ca": str(grpc_ca),
        "processes": [_as_json(entry) for entry in entries],
    }
    _replace(path, document)


def write_targets(path: Path, entries: Iterable[Entry]) -> None:
    """Replaces the list of what Prometheus scrapes, in one step. Raises OSError."""
    document = [
        {
            "targets": [entry.prometheus],
            "labels": {"service": entry.name.rpartition("-")[0] or entry.name, "process": entry.name},
        }
        for entry in entries
    ]
    _replace(path, document)


def _replace(path: Path, document: object) -> None:
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
        file.write("\n")
    temporary.replace(path)


def _as_json(entry: Entry) -> dict[str, object]:
    row: dict[str, object] = {"name": entry.name, "pid": entry.pid}
    if entry.client_port is not None:
        row["client_port"] = entry.client_port
    row["grpc"] = entry.grpc
    row["prometheus"] = entry.prometheus
    return row
