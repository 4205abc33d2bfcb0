"""The listener: takes connections in, and counts, limits and times them before TLS has begun.

asyncio's servers show a connection only after its handshake, so a thousand silent ones would be invisible. Here each
is known from its first packet: it counts against its address, has 5 s for its handshake, and may be sent away for a
newer one. Where a balancer brings it, its address is in the header that the balancer sends first, and it counts from
there on.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import socket
from collections import Counter
from typing import Final

from services.common.clock import Clock
from services.common.config import split_host_port
from services.common.logs import get_logger
from services.common.tasks import TaskSet
from services.edge.admission import Admission, address_group
from services.edge.balancers import Balancers, LeftError, brings_header, read_header
from services.edge.client_tls import ClientTls
from services.edge.connection import Connection
from services.edge.proxy_protocol import ProxyHeaderError
from services.edge.read_turns import ReadTurns
from services.edge.shared import Shared
from services.edge.tls_transport import TlsTransport, shake_hands

_ACCEPTS_PER_TURN: Final = 64
"""A storm of connections must not keep the loop from the clients that are here."""

_HANDSHAKES_PER_TURN: Final = 4
"""Steps of them, each up to 1 ms of CPU: the rest waits for the loop's next turn."""

_BACKLOG: Final = 1_024

_SHUTDOWN_S: Final = 3.0
"""How long a closed connection may take to read what was written and to say goodbye itself."""

_UNSENT_BYTES: Final = 131_072
"""What the kernel may hold unsent for one connection; without this a slow reader takes megabytes there, in front of
which nothing urgent can go."""

_UNREAD_BYTES: Final = 16_384
"""What the kernel is asked to hold unread for one connection; it takes twice that, for what it needs itself. A client
that is not read for a while has some hundred texts there, and not the megabytes that it takes by itself, which all
would have to be served before anybody's latest."""

_HEADERS_MAX: Final = 1_024
"""Connections of balancers whose header is not there yet: it comes with the first packet."""

_OUT_OF_FILES_PAUSE_S: Final = 0.5
_REPORT_EVERY_S: Final = 10.0
_REASONS_MAX: Final = 16
_FULL: Final = "the limit of an address, or of all connections"

_log = get_logger(__name__)


async def _wait_for_bytes(accepted: socket.socket, deadline: float) -> None:
    """Until the client speaks. Raises TimeoutError; closes the socket where it was not worth going on.

    Thousands of connections that never speak would each have a TLS object; this way each costs a socket.
    """
    loop = asyncio.get_running_loop()
    spoke: asyncio.Future[None] = loop.create_future()
    # Until the reader is removed, each turn of the loop may report the same bytes.
    loop.add_reader(accepted.fileno(), lambda: None if spoke.done() else spoke.set_result(None))
    try:
        async with asyncio.timeout_at(deadline):
            await spoke
    except BaseException:
        loop.remove_reader(accepted.fileno())
        accepted.close()
        raise
    loop.remove_reader(accepted.fileno())


class Listener:
    """Accepts on one address ("host:port"), until closed."""

    def __init__(
        self,
        shared: Shared,
        *,
        address: str,
        tls: ClientTls,
        handshake_s: float,
        balancers: Balancers,
        tasks: TaskSet,
    ) -> None:
        self._shared = shared
        self._admission: Admission[Connection] = shared.admission
        self._clock: Clock = shared.clock
        self._address = address
        self._tls = tls
        self._handshake_s = handshake_s
        self._balancers = balancers
        self._tasks = tasks
        self._numbers = itertools.count(1)
        self._handshakes: dict[Connection, asyncio.Task[None]] = {}
        self._headers: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(_HANDSHAKES_PER_TURN)
        self._read_turns = ReadTurns(shared.call_soon)
        self._transports: set[TlsTransport] = set()  # also those of connections that have left and are being closed
        self._socket: socket.socket | None = None
        self._refused: Counter[str] = Counter()  # since the last report, by reason
        self._reported_at = float("-inf")
        self._report_timer: asyncio.TimerHandle | None = None

    @property
    def handshake_count(self) -> int:
        """Connections whose handshake is under way."""
        return len(self._handshakes)

    def start(self) -> int:
        """Listen; return the port. Raises OSError."""
        host, port = split_host_port(self._address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        listening = socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both)
        listening.setblocking(False)
        # Both are inherited by the accepted sockets.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        self._socket = listening
        self._listen()
        port = listening.getsockname()[1]
        assert isinstance(port, int)
        return port

    def close(self) -> None:
        """Accept no more. Handshakes that are under way end without a connection. Idempotent."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self._report_timer is not None:
            self._report_timer.cancel()
            self._report()
        for task in (*self._handshakes.values(), *self._headers):
            task.cancel()

    def abort(self) -> None:
        """Accept no more, and end all connections at once."""
        self.close()
        for transport in list(self._transports):
            transport.abort()

    def _listen(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        assert self._socket is not None  # the reader was removed before it was closed
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                accepted, peer = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._pause(error)
                return
            accepted.setblocking(False)
            # Not inherited from the listening socket: there it would be the most that the window can ever be.
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UNREAD_BYTES)
            if self._balancers.has(peer[0]):
                self._take_header(accepted, peer[0])
            else:
                self._admit(accepted, peer[0], address_group(peer[0]))

    def _pause(self, error: OSError) -> None:
        """The process is out of files or memory: what waits stays in the backlog for a moment."""
        assert self._socket is not None
        _log.error("cannot accept", reason=errno.errorcode.get(error.errno or 0, str(error)))
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket.fileno())
        loop.call_later(_OUT_OF_FILES_PAUSE_S, self._listen)

    def _take_header(self, accepted: socket.socket, balancer: str) -> None:
        if len(self._headers) >= _HEADERS_MAX:
            self._turn_away(accepted, "too many connections of balancers without a header yet")
            return
        task = self._tasks.spawn(self._admit_by_header(accepted, balancer), name="header")
        self._headers.add(task)
        task.add_done_callback(self._headers.discard)

    async def _admit_by_header(self, accepted: socket.socket, balancer: str) -> None:
        try:
            async with asyncio.timeout(self._handshake_s):
                host = await read_header(accepted)
        except ProxyHeaderError as error:
            self._turn_away(accepted, f"from {balancer}, which is in proxy_networks: {error}")
        except TimeoutError:
            self._turn_away(accepted, f"from {balancer}, which is in proxy_networks: no header came")
        except (LeftError, OSError):
            accepted.close()
        except asyncio.CancelledError:
            accepted.close()
            raise
        else:
            # The balancer's own connections are its checks: they are nobody's, and under no limit of an address.
            self._admit(accepted, host or balancer, None if host is None else address_group(host))

    def _turn_away(self, accepted: socket.socket, reason: str) -> None:
        accepted.close()
        self._count_refused(reason)

    def _admit(self, accepted: socket.socket, host: str, group: str | None) -> None:
        connection = Connection(self._shared, connection_id=next(self._numbers), address=host)
        victims = self._admission.arrive(connection, group)
        if victims is None:
            self._turn_away(accepted, _FULL)
            return
        for victim in victims:
            self._count_refused(_FULL)
            handshake = self._handshakes.get(victim)
            if handshake is not None:
                handshake.cancel()
            else:
                victim.close("idle")
        if group is not None:
            self._shared.traffic.accepted.add()
        self._handshakes[connection] = self._tasks.spawn(self._shake_hands(connection, accepted), name="handshake")

    async def _shake_hands(self, connection: Connection, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._handshake_s
        try:
            await _wait_for_bytes(accepted, deadline)
            if brings_header(accepted):
                accepted.close()
                connection.abort()
                self._count_refused(f"a PROXY header from {connection.address}, which is not in proxy_networks")
                return
            patience_s = deadline - loop.time()
            secured = await shake_hands(accepted, self._tls.context(), patience_s=patience_s, turns=self._turns)
        except OSError:  # ssl.SSLError, time-outs and resets are OSErrors: not TLS, not 1.3, too slow, or gone
            connection.abort()
        except asyncio.CancelledError:
            connection.abort()
            raise
        else:
            transport = TlsTransport(
                secured,
                connection,
                turns=self._read_turns,
                shutdown_s=_SHUTDOWN_S,
                on_lost=self._transports.discard,
            )
            self._transports.add(transport)
            transport.start()
        finally:
            del self._handshakes[connection]

    def _count_refused(self, reason: str) -> None:
        self._shared.traffic.refused.add()
        if len(self._refused) < _REASONS_MAX or reason in self._refused:
            self._refused[reason] += 1
        wait_s = self._reported_at + _REPORT_EVERY_S - self._clock.monotonic()
        if wait_s <= 0:
            self._report()
        elif self._report_timer is None:
            self._report_timer = asyncio.get_running_loop().call_later(wait_s, self._report)

    def _report(self) -> None:
        """Say who was refused since the last time; at most once in a while, whatever comes."""
        self._report_timer = None
        self._reported_at = self._clock.monotonic()
        reasons, self._refused = dict(self._refused), Counter()
        _log.warning(
            "connections refused",
            reasons=reasons,
            open=self._admission.count,
            not_logged_in=self._admission.anonymous_count,
        )
