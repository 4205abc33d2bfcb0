"""What `parley up` was asked to do, checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deploy.local.failures import StartError
from deploy.local.ports import CLIENT_PORT, LOOPBACK

if TYPE_CHECKING:
    import argparse

EDGES_MAX = 32  # more processes than a machine has cores only cost memory
ROOMS_MAX = 16
DATABASE_SCHEMES = ("postgresql", "postgresql+psycopg")
REDIS_SCHEMES = ("redis", "rediss")


@dataclass(frozen=True, kw_only=True)
class Server:
    """A database or Redis server that is not part of the stack. The files' paths are absolute."""

    url: str = field(repr=False)  # may hold a password
    password_file: Path | None = None
    ca_file: Path | None = None

    def settings(self, prefix: str) -> dict[str, str]:
        """What a service is told of it: `<prefix>_url`, and the files where there are any."""
        files = {"password_file": self.password_file, "ca_file": self.ca_file}
        told = {f"{prefix}_{key}": str(path) for key, path in files.items() if path is not None}
        return {f"{prefix}_url": self.url, **told}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The arguments of `parley up`."""

    home: Path
    host: str = LOOPBACK
    port: int = CLIENT_PORT
    edges: int = 1
    rooms: int = 1
    database: Server | None = None
    redis: Server | None = None
    otlp: str | None = None
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
    parser.add_argument("--rooms", type=int, default=1, metavar="N", help="rooms processes (default: 1)")
    add_server(parser, "database", "PostgreSQL for accounts, rooms and messages (default: SQLite files in the home)")
    add_server(parser, "redis", "Redis, by which several rooms processes wake each other")
    parser.add_argument(
        "--otlp",
        metavar="URL",
        help="another OTLP receiver over gRPC for all metrics, spans and logs (http://HOST:4317)",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file for the services")


def from_arguments(arguments: argparse.Namespace) -> Options:
    """Checks what was parsed. Raises StartError, naming the argument."""
    if not 1 <= arguments.edges <= EDGES_MAX:
        raise StartError(f"--edges {arguments.edges}: between 1 and {EDGES_MAX}")
    if not (arguments.port >= 1 and arguments.port + arguments.edges - 1 <= 65_535):
        raise StartError(f"--port {arguments.port}: the edges' ports must be between 1 and 65535")
    if not arguments.host:
        raise StartError("--host: must not be empty")
    database = read_server(arguments, "database", DATABASE_SCHEMES)
    redis = read_server(arguments, "redis", REDIS_SCHEMES)
    if not 1 <= arguments.rooms <= ROOMS_MAX:
        raise StartError(f"--rooms {arguments.rooms}: between 1 and {ROOMS_MAX}")
    if arguments.rooms > 1 and (database is None or redis is None):
        raise StartError(
            f"--rooms {arguments.rooms}: needs --database, which they share, and --redis, by which they wake each other"
        )
    if redis is not None and database is None:
        raise StartError("--redis: needs --database: what is in files of this home belongs to one process")
    return Options(
        home=arguments.home.resolve(),
        host=arguments.host,
        port=arguments.port,
        edges=arguments.edges,
        rooms=arguments.rooms,
        database=database,
        redis=redis,
        otlp=arguments.otlp,
        config=arguments.config.resolve() if arguments.config is not None else None,
    )


def add_server(parser: argparse.ArgumentParser, name: str, purpose: str) -> None:
    """Declares what `read_server` reads: a URL, and files with a password and an authority."""
    parser.add_argument(f"--{name}", metavar="URL", help=purpose)
    parser.add_argument(
        f"--{name}-password-file", type=Path, metavar="FILE", help="its password: arguments can be read by all users"
    )
    parser.add_argument(f"--{name}-ca-file", type=Path, metavar="FILE", help="verify it over TLS with this authority")


def read_server(arguments: argparse.Namespace, name: str, schemes: tuple[str, ...]) -> Server | None:
    """The server that the arguments name. Raises StartError, naming the argument."""
    url = getattr(arguments, name)
    files = {key: getattr(arguments, f"{name}_{key}") for key in ("password_file", "ca_file")}
    for key, path in files.items():
        option = f"--{name}-{key.replace('_', '-')}"
        if path is None:
            continue
        if url is None:
            raise StartError(f"{option}: needs --{name}")
        if not path.is_file():
            raise StartError(f"{option} {path}: there is no such file")
    if url is None:
        return None
    try:
        scheme = urlsplit(url).scheme
    except ValueError as error:
        raise StartError(f"--{name}: not a URL ({error})") from error
    if scheme not in schemes:  # the URL may hold a password, and is not repeated
        raise StartError(f"--{name}: a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    return Server(url=url, **{key: path.resolve() if path is not None else None for key, path in files.items()})
