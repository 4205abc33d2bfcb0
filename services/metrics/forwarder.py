"""The forwarder: what comes in over OTLP goes on to another OTLP receiver, as it came.

Nobody waits for it: exports are queued, bounded in bytes, and sent one after the other. While the receiver is down or
slow the newest stay and the oldest go, counted. What an unreachable receiver could not take is tried again when it is
back; what it refuses is not.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

import grpc
import grpc.aio

from services.common.logs import get_logger
from services.metrics.otlp import exports_over

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.common.clock import Clock
    from services.common.counters import Counters

SIGNALS: Final = ("metrics", "spans", "logs")
QUEUE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Some ten minutes of a small installation, and what one may lose of a large one without noticing."""

EXPORT_S: Final = 10.0
"""OpenTelemetry's own default."""

LAST_S: Final = 1.0
"""What the end of the service may spend on what still waits."""

BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MAX_S: Final = 15.0
PORT_DEFAULT: Final = 4317
_WORTH_ANOTHER_TRY: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
"""By OTLP's specification; others say that the export itself is wrong."""

_log = get_logger(__name__)


class Receiver(NamedTuple):
    """Another OTLP receiver: its URL, the authority that vouches for it, and how many bytes may wait for it."""

    url: str
    ca_file: Path | None
    queue_bytes_max: int


class _Waiting(NamedTuple):
    signal: str
    data: bytes
    items: int


class Forwarder:
    """Sends exports on. `exports` has, by signal, what makes a call: a coroutine function (bytes, timeout)."""

    def __init__(
        self,
        exports: Mapping[str, Callable[..., Any]],
        *,
        counters: Counters,
        clock: Clock,
        queue_bytes_max: int = QUEUE_BYTES_MAX,
    ) -> None:
        self._exports = exports
        self._clock = clock
        self._queue_bytes_max = queue_bytes_max
        self._queue: deque[_Waiting] = deque()
        self._bytes = 0
        self._something_waits = asyncio.Event()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._is_reachable = True
        count = counters.counter
        self._sent = {
            signal: count("parley.metrics.forwarded", "1", "Items sent on.", attributes={"kind": signal})
            for signal in SIGNALS
        }
        self._lost = {
            signal: count("parley.metrics.forward.lost", "1", "Items not sent on.", attributes={"kind": signal})
            for signal in SIGNALS
        }
        counters.gauge("parley.metrics.forward.waiting", "By", "Bytes that wait to be sent on.", lambda: self._bytes)

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait."""
        return self._bytes

    def put(self, signal: str, request: Any, count: int) -> None:
        """Queue an export of `count` items; older ones make room. Never waits."""
        if not count:
            return
        data = request.SerializeToString()  # decoded it takes many times as much
        self._queue.append(_Waiting(signal, data, count))
        self._bytes += len(data)
        while self._bytes > self._queue_bytes_max:
            oldest = self._queue.popleft()
            self._bytes -= len(oldest.data)
            self._lost[oldest.signal].add(oldest.items)
        self._something_waits.set()
        self._is_empty.clear()

    async def emptied(self) -> None:
        """Returns when nothing waits."""
        await self._is_empty.wait()

    async def run(self) -> None:
        """Send on until cancelled."""
        backoff_s = BACKOFF_FIRST_S
        while True:
            await self._something_waits.wait()
            if not self._queue:
                self._something_waits.clear()
                self._is_empty.set()
                continue
            waiting = self._queue[0]
            if await self._send(waiting):
                backoff_s = BACKOFF_FIRST_S
                if self._queue and self._queue[0] is waiting:  # it may have made room meanwhile
                    self._queue.popleft()
                    self._bytes -= len(waiting.data)
            else:
                await self._clock.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)

    async def _send(self, waiting: _Waiting) -> bool:
        """One attempt; returns whether it was the last one for this export."""
        try:
            response = await self._exports[waiting.signal](waiting.data, timeout=EXPORT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() not in _WORTH_ANOTHER_TRY:
                self._lost[waiting.signal].add(waiting.items)
                self._report(is_reachable=False, reason=f"{error.code().name}: {error.details()}")
                return True
            self._report(is_reachable=False, reason=error.code().name)
            return False
        rejected = _rejected(response)
        self._lost[waiting.signal].add(min(rejected, waiting.items))
        self._sent[waiting.signal].add(max(0, waiting.items - rejected))
        self._report(is_reachable=True, reason="")
        return True

    def _report(self, *, is_reachable: bool, reason: str) -> None:
        """A line when the receiver goes, and one when it is back."""
        if is_reachable and not self._is_reachable:
            _log.info("telemetry is sent on again")
        elif not is_reachable and self._is_reachable:
            _log.warning("telemetry cannot be sent on", reason=reason)
        self._is_reachable = is_reachable


@asynccontextmanager
async def forwarding(
    receiver: Receiver | None, *, counters: Counters, clock: Clock
) -> AsyncIterator[Callable[[str, Any, int], object]]:
    """While this is open, what it gives takes exports (signal, request, count). Raises ValueError, OSError."""
    if receiver is None:
        yield _keep
        return
    channel = open_channel(receiver)
    forwarder = Forwarder(
        exports_over(channel), counters=counters, clock=clock, queue_bytes_max=receiver.queue_bytes_max
    )
    task = asyncio.create_task(forwarder.run(), name="forward")
    try:
        yield forwarder.put
    finally:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(forwarder.emptied(), LAST_S)
        task.cancel()
        await asyncio.wait([task])
        await channel.close()


def _keep(_signal: str, _request: Any, _count: int) -> None:
    """Nobody else wants it."""


def _rejected(response: Any) -> int:
    partial = response.partial_success
    return sum(int(value) for field, value in partial.ListFields() if field.name.startswith("rejected_"))


def parse_url(url: str) -> tuple[str, bool]:
    """`http://host[:4317]` or `https://…` as (host:port, whether over TLS). Raises ValueError."""
    parts = urlsplit(url)
    host = parts.hostname
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.path.strip("/") or parts.query:
        raise ValueError("expected http://HOST:PORT or https://HOST:PORT of an OTLP receiver over gRPC")
    port = parts.port if parts.port is not None else PORT_DEFAULT
    return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}"), parts.scheme == "https"


def open_channel(receiver: Receiver) -> grpc.aio.Channel:
    """A channel to the receiver. Raises ValueError, OSError."""
    target, is_secure = parse_url(receiver.url)
    options = [("grpc.enable_http_proxy", 0)]
    if not is_secure:
        return grpc.aio.insecure_channel(target, options=options)
    authority = receiver.ca_file.read_bytes() if receiver.ca_file is not None else None
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(authority), options=options)
