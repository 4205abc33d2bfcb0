"""Keeps one connection to the server alive: makes it, makes it again when it is lost, and knows when to stop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from client.backoff import Backoff
from client.clock import Clock
from client.connection import Connection
from client.errors import ConnectError, TrustError
from client.events import State
from client.replies import Positions, ServerInfo
from client.tasks import TaskSet
from client.transport import Connector
from services.common.wire.envelope import ServerEnvelope
from services.common.wire.frames import Chunk

STAY_AWAY_MAX_S = 300.0
"""A server may ask for patience, but not for more than a person has."""


class Link:
    """The connection that there is now, if any.

    `on_up` is called with every new connection after the greeting; it must not wait. `on_down` is awaited after each
    end of one. `on_state` hears of CONNECTING (why, and seconds until the next attempt) and, at the end, CLOSED.
    """

    def __init__(
        self,
        connector: Connector,
        *,
        client: str,
        clock: Clock,
        uniform: Callable[[float, float], float],
        on_event: Callable[[ServerEnvelope], None],
        on_positions: Callable[[Positions], None],
        on_chunk: Callable[[Chunk], None],
        on_up: Callable[[Connection], None],
        on_down: Callable[[], Awaitable[None]],
        on_state: Callable[[State, str, float | None], None],
    ) -> None:
        self.connection: Connection | None = None
        self.server: ServerInfo | None = None
        self._connector = connector
        self._client = client
        self._clock = clock
        self._backoff = Backoff(uniform)
        self._on_event = on_event
        self._on_positions = on_positions
        self._on_chunk = on_chunk
        self._on_up = on_up
        self._on_down = on_down
        self._on_state = on_state
        self._stay_away_s: float | None = None
        self._tasks = TaskSet()

    async def start(self) -> None:
        """Connects, and stays connected from then on. Raises ConnectError or TrustError when that fails at first."""
        connection = await self._open()
        self._up(connection)
        self._tasks.spawn(self._run(connection), name="link")

    async def close(self) -> None:
        """Ends it for good."""
        if self.connection is not None:
            self.connection.end("the client closed it")
            self.connection = None
        await self._tasks.close()
        await self._on_down()
        self._on_state(State.CLOSED, "", None)

    def stay_away(self, seconds: float) -> float:
        """The server asked to come back so much later; returns how long that will be."""
        self._stay_away_s = min(STAY_AWAY_MAX_S, max(0.0, seconds))
        return self._stay_away_s

    async def _open(self) -> Connection:
        transport = await self._connector.connect()
        connection = Connection(
            transport,
            clock=self._clock,
            on_event=self._on_event,
            on_positions=self._on_positions,
            on_chunk=self._on_chunk,
        )
        self._tasks.spawn(connection.run(), name="connection")
        try:
            self.server = await connection.hello(self._client)
        except BaseException:
            connection.end("the greeting failed")
            raise
        return connection

    def _up(self, connection: Connection) -> None:
        self.connection = connection
        self._on_up(connection)

    async def _run(self, connection: Connection) -> None:
        while True:
            began = self._clock.monotonic()
            reason = await connection.ended()
            self.connection = None
            await self._on_down()
            self._backoff.ended(lived_s=self._clock.monotonic() - began)
            try:
                connection = await self._reconnect(reason)
            except TrustError as error:
                self._on_state(State.CLOSED, str(error), None)
                return
            self._up(connection)

    async def _reconnect(self, reason: str) -> Connection:
        while True:
            wait_s, self._stay_away_s = self._stay_away_s, None
            if wait_s is None:
                wait_s = self._backoff.next_delay_s()
            self._on_state(State.CONNECTING, reason, wait_s)
            await self._clock.sleep(wait_s)
            try:
                return await self._open()
            except ConnectError as error:
                reason = str(error)
