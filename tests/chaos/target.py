"""What a run is made against: a stack of its own, a stack on this machine, or a server somewhere."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.chaos.nemesis.processes import Processes
from tests.chaos.recorder.board import Door
from tests.chaos.restorer import Restorer
from tests.chaos.shim import control as shim
from tests.helpers.stack import FAST_CONFIG, Stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.nemesis.servers import Server


@dataclass(frozen=True)
class Target:
    """Where the edges are, and what else is within reach."""

    doors: list[Door]
    client_ca: str
    server_name: str = "localhost"  # in the edges' certificates
    home: Path | None = None  # of a stack on this machine
    processes: Processes | None = None
    control: shim.Control | None = None
    servers: list[Server] = field(default_factory=list)
    database_url: str | None = None  # PostgreSQL's, past all proxies
    restorer: Restorer | None = None  # of a stack of our own


def of_home(home: Path, host: str = "localhost") -> Target:
    """A stack that runs on this machine. Raises ValueError where there is none."""
    try:
        document = json.loads((home / "run" / "stack.json").read_text())
    except FileNotFoundError:
        raise ValueError(f"no stack is up in {home}") from None
    doors = [
        Door(entry["name"], host, entry["client_port"]) for entry in document["processes"] if "client_port" in entry
    ]
    return Target(doors, document["client_ca"], home=home, processes=Processes(home))


def of_addresses(host: str, ports: list[int], ca: str) -> Target:
    """Edges of which nothing is known but their addresses."""
    return Target([Door(f"edge-{number}", host, port) for number, port in enumerate(ports, 1)], ca, server_name=host)


@contextlib.contextmanager
def own(layout: str) -> Iterator[Target]:
    """A private stack of one of the LAYOUTS."""
    with LAYOUTS[layout]() as target:
        yield target


@contextlib.contextmanager
def own_sqlite(*, edges: int = 2) -> Iterator[Target]:
    """A private stack on SQLite, with one rooms process, whose disk and clock can fail where there is a compiler."""
    with contextlib.ExitStack() as exits:
        home = Path(tempfile.mkdtemp(prefix="parley-check-"))
        exits.callback(shutil.rmtree, home, ignore_errors=True)
        control = exits.enter_context(shim.Control(home)) if shim.is_available() else None
        environment = control.environment if control is not None else {}
        stack = Stack(home, edges=edges, config=FAST_CONFIG, environment=environment)
        exits.callback(stack.close)
        stack.start()
        found = of_home(home)
        yield Target(
            found.doors, found.client_ca, home=home, processes=found.processes, control=control,
            restorer=Restorer(stack),
        )  # fmt: skip


@contextlib.contextmanager
def own_postgres(*, edges: int = 2, rooms: int = 2) -> Iterator[Target]:
    """A private stack on PostgreSQL and Redis, both of its own, with several edges and rooms processes.

    Raises ValueError where they are not installed.
    """
    from tests.chaos.nemesis.servers import Postgres, Redis

    with contextlib.ExitStack() as exits:
        home = Path(tempfile.mkdtemp(prefix="parley-check-"))
        exits.callback(shutil.rmtree, home, ignore_errors=True)
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="parley-check-")))
        folder.chmod(0o755)  # PostgreSQL runs as another user
        control = exits.enter_context(shim.Control(folder)) if shim.is_available() else None
        environment = control.environment if control is not None else {}
        postgres = exits.enter_context(Postgres(control.environment_of_postgres if control is not None else {}))
        redis = exits.enter_context(Redis())
        extra = ["--rooms", str(rooms), "--database", postgres.url, "--redis", redis.url]
        stack = Stack(home, edges=edges, config=FAST_CONFIG, environment=environment, extra=extra)
        exits.callback(stack.close)
        stack.start()
        found = of_home(home)
        yield Target(
            found.doors, found.client_ca, home=home, processes=found.processes, control=control,
            servers=[postgres, redis], database_url=postgres.direct_url,
            restorer=Restorer(stack, ["--database", postgres.direct_url]),
        )  # fmt: skip


LAYOUTS: Final = {"sqlite": own_sqlite, "postgres": own_postgres}
"""SQLite, two edges and one rooms process; or PostgreSQL and Redis, two edges and two rooms processes."""
