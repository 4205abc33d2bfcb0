"""A gRPC channel that outlives its certificates: it opens another one when they were renewed, and drops no call.

A channel keeps the certificates that it was opened with. So there is always a current one, which new calls take; when
the files have changed another one is connected, becomes the current one once it serves, and the one before is closed
when its last call has ended. A stream may so go on for weeks on a connection of the old certificate, which TLS looks at
only once. Where the new certificates do not get through while the old ones do, the old ones stay.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from services.common.certificates import CHECK_S
from services.common.logs import get_logger
from services.common.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.common.certificates import CertificateFiles, Certificates

CONNECT_S: Final = 5.0
"""How long the new certificates have to get through. Longer than a service takes to read its own again."""

_RETRY_S: Final = 10.0
_log = get_logger(__name__)


class _Generation:
    """One channel, the certificates that it was opened with, and its calls."""

    def __init__(self, channel: grpc.aio.Channel, certificates: Certificates) -> None:
        self.channel = channel
        self.certificates = certificates
        self._call_count = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def hold(self, call: Any) -> None:
        self._call_count += 1
        self._idle.clear()
        call.add_done_callback(self._release)

    def _release(self, _call: Any) -> None:
        self._call_count -= 1
        if not self._call_count:
            self._idle.set()

    async def retire(self) -> None:
        try:
            await self._idle.wait()
        finally:
            await self.channel.close()


class _Method:
    """What a stub calls: makes the call on whichever channel is the current one."""

    def __init__(self, owner: RenewingChannel, kind: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        self._owner = owner
        self._kind = kind
        self._arguments = arguments
        self._options = options
        self._made: tuple[_Generation, Any] | None = None

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        generation = self._owner.take()
        if self._made is None or self._made[0] is not generation:
            self._made = (generation, getattr(generation.channel, self._kind)(*self._arguments, **self._options))
        call = self._made[1](*arguments, **options)
        generation.hold(call)
        return call


class RenewingChannel(grpc.aio.Channel):
    """`open_one` opens a channel with the certificates that it is given. To be made inside the event loop."""

    def __init__(self, files: CertificateFiles, open_one: Callable[[Certificates], grpc.aio.Channel]) -> None:
        self._files = files
        self._open_one = open_one
        self._current = _Generation(open_one(files.current), files.current)
        self._checked_at = float("-inf")
        self._renewing = False
        self._tasks = TaskSet()
        self._is_closed = False

    def take(self) -> _Generation:
        """The channel for a call that begins now."""
        now = asyncio.get_running_loop().time()
        if now - self._checked_at >= CHECK_S and not self._is_closed:
            self._checked_at = now
            if not self._renewing and self._files.refresh() is not self._current.certificates:
                self._renewing = True
                self._tasks.spawn(self._renew(), name="channel with new certificates")
        return self._current

    async def _renew(self) -> None:
        try:
            certificates = self._files.current
            new = _Generation(self._open_one(certificates), certificates)
            try:
                is_through = await _connects(new.channel)
            except BaseException:
                await new.channel.close()
                raise
            if not is_through and self._current.channel.get_state() is grpc.ChannelConnectivity.READY:
                await new.channel.close()
                _log.warning("the renewed certificates do not get through: those from before stay in use")
                await asyncio.sleep(_RETRY_S)
                return
            old, self._current = self._current, new
            self._tasks.spawn(old.retire(), name="channel with old certificates")
        finally:
            self._renewing = False

    async def close(self, grace: float | None = None) -> None:
        """Closes all of it."""
        self._is_closed = True
        await self._current.channel.close(grace)
        await self._tasks.close()

    async def __aenter__(self) -> RenewingChannel:  # noqa: PYI034 - gRPC's own signature
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Of the current channel."""
        return self._current.channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Of the current channel."""
        await self._current.channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Returns when the current channel is connected."""
        await self._current.channel.channel_ready()

    def unary_unary(self, *arguments: Any, **options: Any) -> Any:
        """What a stub calls."""
        return _Method(self, "unary_unary", arguments, options)

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:
        """What a stub calls."""
        return _Method(self, "unary_stream", arguments, options)

    def stream_unary(self, *arguments: Any, **options: Any) -> Any:
        """What a stub calls."""
        return _Method(self, "stream_unary", arguments, options)

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:
        """What a stub calls."""
        return _Method(self, "stream_stream", arguments, options)


async def _connects(channel: grpc.aio.Channel) -> bool:
    try:
        async with asyncio.timeout(CONNECT_S):
            await channel.channel_ready()
    except TimeoutError:
        return False
    return True
