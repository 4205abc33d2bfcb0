"""What `run/stack.json` says about a stack that runs on this machine: its authorities, its edges, its gRPC ports."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STACK_FILE = Path("run") / "stack.json"

MAX_STACK_BYTES = 1_048_576
"""Some hundred bytes a process; a file that is larger is not ours."""


@dataclass(frozen=True)
class Process:
    """One running service: `name` such as edge-1, `grpc` as host:port, `client_port` at edges only."""

    name: str
    grpc: str
    client_port: int | None = None

    @property
    def service(self) -> str:
        """edge, auth, rooms or metrics."""
        return self.name.rpartition("-")[0] or self.name


@dataclass(frozen=True)
class Stack:
    """A stack on this machine."""

    client_ca: Path
    grpc_ca: Path
    processes: tuple[Process, ...]

    @property
    def client_ports(self) -> tuple[int, ...]:
        """The ports that serve clients, in the order of the edges."""
        return tuple(process.client_port for process in self.processes if process.client_port is not None)

    def of_service(self, service: str) -> tuple[Process, ...]:
        """The processes of one service."""
        return tuple(process for process in self.processes if process.service == service)


def read_stack(home: Path) -> Stack | None:
    """The stack whose home is `home`, or None where none was started. Raises ValueError for an unreadable file."""
    path = home / STACK_FILE
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_STACK_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    try:
        content = json.loads(raw)
        return Stack(
            client_ca=home / content["client_ca"],
            grpc_ca=home / content["grpc_ca"],
            processes=tuple(_process(entry) for entry in content["processes"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not the description of a running stack ({error!r})") from error


def _process(entry: dict[str, Any]) -> Process:
    port = entry.get("client_port")
    return Process(str(entry["name"]), str(entry.get("grpc", "")), int(port) if port else None)
