"""A private PostgreSQL: one server for each test process, on a free port, in a directory of its own, and a fresh
database for each test that asks for `postgres_url`.

def test_something(postgres_url: str) -> None: ...       # postgresql://parley@127.0.0.1:PORT/test_1
def test_a_crash(own_postgres: PostgresServer) -> None:  # a server that the test may kill
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.helpers.servers import find_program, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

USER = "parley"
_START_TIMEOUT_S = 60.0


class PostgresServer:
    """A server of our own. `stop`, `kill` and `start` may follow each other; its databases stay."""

    def __init__(self, *, settings: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> None:
        directories = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        self._postgres = find_program("postgres", *directories)
        self.host = "127.0.0.1"
        self.port = free_port()
        self._settings = settings
        self._environment = environment or {}
        self._root = Path(tempfile.mkdtemp(prefix="parley-postgres-"))
        self._as_user = _as_user(self._root)
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        self.data = self._root / "data"
        initdb = find_program("initdb", Path(self._postgres).parent, *directories)
        self._run(
            [initdb, "-D", str(self.data), "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        )

    def url(self, database: str) -> str:
        """Where a database is."""
        return f"postgresql://{USER}@{self.host}:{self.port}/{database}"

    @property
    def pid(self) -> int:
        """The server's first process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts it and waits until it serves."""
        # What is on the disk survives the end of a process without a sync, and no test ends the machine.
        settings = ("fsync=off", "max_connections=200", "shared_buffers=32MB", *self._settings)
        flags = [part for setting in settings for part in ("-c", setting)]
        command = [self._postgres, "-D", str(self.data), "-p", str(self.port), "-h", self.host, "-k", str(self._root)]
        options = {**self._as_user, "env": {**self._as_user["env"], **self._environment}}
        with (self._root / "log").open("ab") as log:
            self._process = subprocess.Popen([*command, *flags], stdout=log, stderr=log, **options)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError((self._root / "log").read_text()) from None
                time.sleep(0.02)
            else:
                return

    @property
    def is_running(self) -> bool:
        """Whether its first process lives."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Ends it at once and in order; connections are cut."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Ends it as a crash does: no process of it has time for anything."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGSTOP)  # or it would start children anew
            for pid in _children(self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._end(signal.SIGKILL)

    def make_database(self) -> str:
        """A new, empty database's URL."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Runs one statement as the superuser, and returns its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description is not None else []

    def close(self) -> None:
        """Ends it and removes what it wrote."""
        self.stop()
        shutil.rmtree(self._root, ignore_errors=True)

    def _end(self, signal_number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(signal_number)
            self._process.wait(_START_TIMEOUT_S)
            self._process = None

    def _run(self, command: Sequence[str]) -> None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_START_TIMEOUT_S, **self._as_user)
        assert done.returncode == 0, done.stderr


def _as_user(directory: Path) -> dict[str, Any]:
    """Arguments for subprocess: PostgreSQL refuses to run as root."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
    arguments: dict[str, Any] = {"cwd": directory, "env": environment}
    if os.geteuid() != 0:
        return arguments
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        user = pwd.getpwnam("nobody")
    os.chown(directory, user.pw_uid, user.pw_gid)
    return arguments | {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        return [int(child) for child in tasks.read_text().split()]
    except (FileNotFoundError, ProcessLookupError):  # it has ended already, and is a zombie without children
        return []


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The server that all tests of this process share: nobody stops it."""
    server = PostgresServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """A fresh database on the shared server."""
    return postgres_server.make_database()


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server of this test alone, running."""
    server = PostgresServer()
    server.start()
    yield server
    server.close()
