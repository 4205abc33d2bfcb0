"""Redis, for commands: a few connections, a time limit on everything, and a refusal at once while it is away.

Redis wakes and shares; it is never the truth. So who calls must know at once that it is gone and go on without it: a
failure opens a breaker, while it is open calls fail without waiting, and one call at a time tries again, at growing
intervals. A frozen server thus costs one caller `TIMEOUT_S` and the others nothing.

Nothing is retried here: a command whose answer is missing may have been carried out.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import (
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.common.secret_file import read_secret
from services.common.wire.codes import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from services.common.clock import Clock
    from services.common.tasks import TaskSet

    Value = str | bytes | int | float

TIMEOUT_S: Final = 1.0
"""A call, with connecting if need be. A server in the same network takes a thousandth; one that saves or is swapped out
may pause for a few tenths."""

RETRY_FIRST_S: Final = 0.1
RETRY_MAX_S: Final = 0.5
"""Intervals between attempts while it is away. They need not be spread: there are tens of processes, not thousands. A
revocation that waits for it has half of its second left once it is back."""

WATCH_INTERVAL_S: Final = 1.0
"""A server of which nothing was heard for so long is asked whether it is there."""

CONNECTIONS_MAX: Final = 16
"""Commands at one time; more wait for a connection, within their time limit."""

_PORT: Final = 6379
_STORAGE_CODES: Final = ("LOADING", "MISCONF", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", "BUSY", "TRYAGAIN")
_log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class RedisAccess:
    """Where Redis is: `redis://[user[:password]@]host[:port][/database]`, or `rediss://` for TLS 1.3.

    The password is better kept in `password_file`, whose first line is read at start. `ca_file` is the authority that
    vouches for the server over TLS; without it the machine's own do. `name` shows in Redis' list of clients.
    Raises ValueError that names the configuration's key and holds no secret.
    """

    url: str = field(repr=False)
    name: str = "parley"
    password_file: Path | None = None
    ca_file: Path | None = None

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            is_whole = parts.hostname and parts.port != 0 and not parts.query and not parts.fragment
        except ValueError:
            is_whole = False  # its text might hold a part of the URL
        if not is_whole or parts.scheme not in {"redis", "rediss"} or not _is_database(parts.path):
            raise ValueError("redis_url: expected redis://host:port/number or rediss://…")
        if self.ca_file is not None and not self.is_secure:
            raise ValueError("redis_ca_file: needs a URL that begins with rediss://")
        if self.ca_file is not None and not self.ca_file.is_file():
            raise ValueError(f"redis_ca_file: {self.ca_file} is not a file")

    @property
    def is_secure(self) -> bool:
        """Whether it is spoken to over TLS."""
        return urlsplit(self.url).scheme == "rediss"

    @property
    def address(self) -> str:
        """host:port, for logs."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}:{parts.port or _PORT}"

    def scoped(self, name: str) -> str:
        """The name of a key or channel of Parley's. It holds the number of the database, because channels are the
        same in all of them: two installations may share a server by different numbers."""
        return f"parley:{urlsplit(self.url).path.strip('/') or 0}:{name}"

    @property
    def connection_class(self) -> type[Connection]:
        """The class of a connection to it, which takes `arguments`."""
        return SSLConnection if self.is_secure else Connection

    def arguments(self) -> dict[str, Any]:
        """What a connection to it is made with. Reads the password file."""
        parts = urlsplit(self.url)
        password = unquote(parts.password) if parts.password else None
        if self.password_file is not None:
            password = read_secret(self.password_file, key="redis_password_file")
        found: dict[str, Any] = {
            "host": parts.hostname,
            "port": parts.port or _PORT,
            "db": int(parts.path.strip("/") or 0),
            "username": unquote(parts.username) if parts.username else None,
            "password": password,
            "client_name": self.name,
            # Limits are set around calls. This one would use asyncio.wait_for, which until Python 3.12 may swallow a
            # cancellation, so that a task goes on which its owner waits for.
            "socket_timeout": None,
            "socket_connect_timeout": TIMEOUT_S,
            "socket_keepalive": True,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }
        if self.is_secure:
            found |= {
                "ssl_ca_certs": str(self.ca_file) if self.ca_file is not None else None,
                "ssl_min_version": ssl.TLSVersion.TLSv1_3,
            }
        return found


def _is_database(path: str) -> bool:
    number = path.strip("/")
    return not number or (number.isascii() and number.isdigit())


class Breaker:
    """When a server that is away may be tried again. Pure: time comes in."""

    def __init__(self) -> None:
        self._failure_count = 0
        self._retry_at = 0.0

    @property
    def is_closed(self) -> bool:
        """Whether the last attempt succeeded, or there was none."""
        return self._failure_count == 0

    def admits(self, now: float) -> bool:
        """Whether a call may be made now. While the server is away that is one call at a time."""
        if self._failure_count == 0:
            return True
        if now < self._retry_at:
            return False
        self._retry_at = now + TIMEOUT_S + RETRY_MAX_S  # until this attempt has ended
        return True

    def succeed(self) -> bool:
        """A call was answered. Returns whether the server had been away."""
        was_away, self._failure_count = self._failure_count > 0, 0
        return was_away

    def fail(self, now: float) -> bool:
        """A call was not answered. Returns whether that is news."""
        self._failure_count += 1
        self._retry_at = now + min(RETRY_MAX_S, RETRY_FIRST_S * 2 ** min(self._failure_count - 1, 16))
        return self._failure_count == 1


class RedisClient:
    """Commands to one server. Used from one event loop."""

    def __init__(self, access: RedisAccess, *, clock: Clock) -> None:
        self._clock = clock
        self._address = access.address
        self._breaker = Breaker()
        self._answered_at = float("-inf")
        pool = BlockingConnectionPool(
            max_connections=CONNECTIONS_MAX,
            timeout=TIMEOUT_S,
            connection_class=access.connection_class,
            **access.arguments(),
        )
        self._redis = Redis.from_pool(pool)
        self._redis.response_callbacks.clear()  # answers are what Redis says, not what redis-py makes of them

    @property
    def is_up(self) -> bool:
        """Whether it answered when it was last asked."""
        return self._breaker.is_closed

    def start(self, tasks: TaskSet) -> None:
        """Begins to watch it, so that `is_up` is true to life also when nobody calls."""
        tasks.spawn(self._watch(), name="redis watch")

    async def execute(self, *command: Value) -> Any:
        """One command, such as `execute("GET", key)`; its answer as Redis gives it, text as bytes.

        Raises ParleyError unavailable where Redis is away: then nobody knows whether the command was carried out.
        """
        return await self._call(self._redis.execute_command(*command))  # type: ignore[no-untyped-call]

    async def execute_all(self, commands: Sequence[Sequence[Value]]) -> list[Any]:
        """Commands in one round trip, carried out in this order, between which others' may come. As `execute`; where
        one of them fails the others are carried out nevertheless."""
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return list(await self._call(pipeline.execute()))

    async def run_script(self, script: str, *, keys: Sequence[str], arguments: Sequence[Value] = ()) -> Any:
        """A Lua script, which Redis runs as a whole and without anything in between. As `execute`."""
        call = self._redis.register_script(script)
        return await self._call(call(keys=list(keys), args=list(arguments)))

    async def check(self) -> None:
        """Asks whether it is there. Raises ParleyError unavailable."""
        await self.execute("PING")

    async def close(self) -> None:
        """Closes its connections."""
        await self._redis.aclose()

    async def _call(self, call: Any) -> Any:
        if not self._breaker.admits(self._clock.monotonic()):
            call.close()
            raise _unavailable()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await call
        except (RedisConnectionError, RedisTimeoutError, TimeoutError, OSError) as error:
            self._on_failure(error)
            raise _unavailable() from error
        except RedisError as error:
            self._on_answer()
            if not _is_servers_fault(error):
                raise
            _log.warning("redis refuses", address=self._address, reason=type(error).__name__)
            raise _unavailable() from error
        self._on_answer()
        return answer

    def _on_answer(self) -> None:
        self._answered_at = self._clock.monotonic()
        if self._breaker.succeed():
            _log.info("redis answers again", address=self._address)

    def _on_failure(self, error: Exception) -> None:
        if self._breaker.fail(self._clock.monotonic()):
            _log.warning("redis does not answer", address=self._address, reason=reason(error))

    async def _watch(self) -> None:
        while True:
            if not self.is_up or self._answered_at + WATCH_INTERVAL_S <= self._clock.monotonic():
                try:
                    await self.check()
                except ParleyError:
                    pass  # it is logged when it changes
                except RedisError as error:
                    _log.warning("redis refuses to be asked", address=self._address, reason=type(error).__name__)
            await self._clock.sleep(WATCH_INTERVAL_S if self.is_up else RETRY_FIRST_S)


def reason(error: BaseException) -> str:
    """What an error of the connection says, for logs: redis-py names the address in it, and no secret."""
    return f"{type(error).__name__}: {error}"[:200]


def _is_servers_fault(error: RedisError) -> bool:
    """Whether an answer says that the server is in trouble or badly set up, rather than that the command is wrong."""
    if isinstance(error, ReadOnlyError | OutOfMemoryError | NoPermissionError):
        return True
    return isinstance(error, ResponseError) and str(error).startswith(_STORAGE_CODES)


def _unavailable() -> ParleyError:
    return ParleyError(ErrorCode.UNAVAILABLE, "Redis does not answer")
