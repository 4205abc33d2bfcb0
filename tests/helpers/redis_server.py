"""A private Redis: one server for each test process, on a free port, in a directory of its own, emptied for each test
that asks for `redis_url`.

def test_something(redis_url: str) -> None: ...    # redis://127.0.0.1:PORT/0
def test_a_crash(own_redis: RedisServer) -> None:  # a server that the test may kill
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from services.common import redis_channel, redis_client
from tests.helpers.servers import find_program, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_START_TIMEOUT_S = 30.0
PATIENCE_S = 30.0


def be_patient(patch: pytest.MonkeyPatch) -> None:
    """A Redis that answers late, as on a machine that stalls, is not taken to be away: for tests in which it is there,
    or gone altogether."""
    patch.setattr(redis_client, "TIMEOUT_S", PATIENCE_S)
    patch.setattr(redis_channel, "TIMEOUT_S", PATIENCE_S)
    patch.setattr(redis_channel, "SILENCE_S", PATIENCE_S)


class RedisServer:
    """A server of our own, without persistence. `stop`, `kill` and `start` may follow each other."""

    def __init__(self, *, arguments: Sequence[str] = ()) -> None:
        self._program = find_program("redis-server")
        self.host = "127.0.0.1"
        self.port = free_port()
        self._arguments = arguments
        self._root = Path(tempfile.mkdtemp(prefix="parley-redis-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://{self.host}:{self.port}/0"

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts it and waits until it serves."""
        command = [self._program, "--port", str(self.port), "--bind", self.host, "--dir", str(self._root)]
        command += ["--save", "", "--appendonly", "no", *self._arguments]
        with (self._root / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            client = redis.Redis(host=self.host, port=self.port)
            try:
                client.ping()
            except redis.AuthenticationError:
                return  # it serves, those who know the password
            except redis.ConnectionError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError((self._root / "log").read_text()) from None
                time.sleep(0.02)
            else:
                return
            finally:
                client.close()

    def flush(self) -> None:
        """Forgets everything."""
        client = redis.Redis(host=self.host, port=self.port)
        client.flushall()
        client.close()

    def stop(self) -> None:
        """Ends it in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it as a crash does."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """Ends it and removes what it wrote."""
        self.kill()
        shutil.rmtree(self._root, ignore_errors=True)

    def _end(self, signal_number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(signal_number)
            self._process.wait(_START_TIMEOUT_S)
            self._process = None


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The server that all tests of this process share: nobody stops it."""
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The shared server, emptied."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server of this test alone, running."""
    server = RedisServer()
    server.start()
    yield server
    server.close()
