"""What `parley up` was asked to do, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.local.failures import StartError
from deploy.local.ports import CLIENT_PORT, LOOPBACK

if TYPE_CHECKING:
    import argparse

EDGES_MAX = 32  # more processes than a machine has cores only cost memory


@dataclass(frozen=True, kw_only=True)
class Options:
    """The arguments of `parley up`."""

    home: Path
    host: str = LOOPBACK
    port: int = CLIENT_PORT
    edges: int = 1
    config: Path | None = None

    @property
    def client_ports(self) -> range:
        """The edges' client ports, in the edges' order."""
        return range(self.port, self.port + self.edges)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what `from_arguments` reads."""
    parser.add_argument(
        "--home", type=Path, default=Path(), metavar="DIR", help="where all files are kept (default: .)"
    )
    parser.add_argument("--host", default=LOOPBACK, metavar="H", help="address for clients (default: %(default)s)")
    parser.add_argument("--port", type=int, default=CLIENT_PORT, metavar="P", help="first edge's port (default: 8888)")
    parser.add_argument("--edges", type=int, default=1, metavar="N", help="edge processes, on ports P, P+1, …")
    parser.add_argument("--rooms", type=int, default=1, metavar="N", help="rooms processes (1: SQLite has one writer)")
    parser.add_argument("--database", metavar="URL", help="where the data is; for now only its own SQLite files")
    parser.add_argument("--redis", metavar="URL", help="for several rooms processes; not supported yet")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file for the services")


def from_arguments(arguments: argparse.Namespace) -> Options:
    """Checks what was parsed. Raises StartError, naming the argument."""
    if not 1 <= arguments.edges <= EDGES_MAX:
        raise StartError(f"--edges {arguments.edges}: between 1 and {EDGES_MAX}")
    if not (arguments.port >= 1 and arguments.port + arguments.edges - 1 <= 65_535):
        raise StartError(f"--port {arguments.port}: the edges' ports must be between 1 and 65535")
    if not arguments.host:
        raise StartError("--host: must not be empty")
    _refuse_what_needs_a_database_server(arguments)
    return Options(
        home=arguments.home.resolve(),
        host=arguments.host,
        port=arguments.port,
        edges=arguments.edges,
        config=arguments.config.resolve() if arguments.config is not None else None,
    )


def _refuse_what_needs_a_database_server(arguments: argparse.Namespace) -> None:
    if arguments.rooms != 1:
        raise StartError(
            f"--rooms {arguments.rooms}: only 1 works, because the data is in SQLite and SQLite has one writer"
        )
    if arguments.database is not None:
        raise StartError("--database: only the home's own SQLite files are supported, which need no URL")
    if arguments.redis is not None:
        raise StartError("--redis: one rooms process needs no Redis, and more than one is not supported")
