"""The bus of an installation with several rooms instances: what happens here is told to the others, in batches.

What is to be told waits in a bounded queue; one task sends what has gathered while the batch before was under way.
Nobody waits for it, and it may lose: a batch that the transport does not take, or that does not fit into the queue, is
dropped. But whoever listens learns of it. Each instance numbers its batches, and a jump is delivered as `Lost`, as is
every moment at which the transport begins to hear (again); then the database and the edges are asked (see repair).

A stored run is told as the position that its room has reached: the messages are in the log.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.rooms.bus import LocalBus, Lost, MembershipEnded, PresenceTold, Reached
from services.rooms.messages import Run
from services.rooms.presence_news import News

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.common.clock import Clock
    from services.common.tasks import TaskSet
    from services.rooms.bus import Event, Listener
    from services.rooms.counts import BusCounts

QUEUE_BYTES_MAX: Final = 8 * 1024 * 1024
"""What may wait to be told: some 50,000 arrivals of people. Beyond it all of it is dropped, and others ask."""

ROOMS_MAX: Final = 10_000
"""Rooms whose new positions may wait, and that one batch names: 500 KB."""

BATCH_BYTES_MAX: Final = 256 * 1024
"""Events in one batch; the last one that fits in may pass it."""

BATCH_INTERVAL_S: Final = 0.005
"""Batches go at most so often: one costs some 50 µs of CPU here and at each listener. The first goes at once."""

RETRY_S: Final = 0.1
"""How long nothing is tried after a batch was not taken. What gathers meanwhile waits."""

MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
"""A batch that is longer than any that is made is not looked at."""

SENDERS_MAX: Final = 256
"""Instances whose numbers are remembered, restarts included."""

_log = get_logger(__name__)


class Ended(msgspec.Struct, tag="ended", array_like=True, frozen=True):
    """A membership has ended; see bus.MembershipEnded."""

    room_id: str
    user_id: str
    last_seq: int
    except_boot_id: str
    username: str
    number: int


class Batch(msgspec.Struct, array_like=True, frozen=True):
    """What one instance tells: its `number`-th batch. `reached` has rooms with epoch and last number."""

    sender_id: str
    number: int
    reached: list[tuple[str, str, int]]
    events: list[Ended | News]


class _Draft(msgspec.Struct, array_like=True):
    """A batch whose events are encoded already."""

    sender_id: str
    number: int
    reached: list[tuple[str, str, int]]
    events: list[msgspec.Raw]


class Transport(Protocol):
    """Carries batches to all instances, this one included, or loses them."""

    @property
    def is_up(self) -> bool:
        """Whether batches can be expected to arrive."""
        ...

    def start(self, tasks: TaskSet, *, on_message: Callable[[bytes], None], on_subscribed: Callable[[], None]) -> None:
        """Begins to hear. `on_subscribed` is called whenever what was published before may have been missed."""
        ...

    async def publish(self, message: bytes) -> None:
        """Sends a batch. Raises ParleyError unavailable where it may not have been taken."""
        ...

    async def close(self) -> None:
        """Ends; the tasks have ended before."""
        ...


class SharedBus:
    """A bus over a transport. `sender_id` names this run of this instance."""

    is_shared = True

    def __init__(self, transport: Transport, *, sender_id: str, clock: Clock, counts: BusCounts) -> None:
        self._local = LocalBus()
        self._transport = transport
        self._sender_id = sender_id
        self._clock = clock
        self._counts = counts
        self._reached: dict[str, tuple[str, int]] = {}
        self._events: deque[bytes] = deque()
        self._queued_bytes = 0
        self._number = 0
        self._something_waits = asyncio.Event()
        self._heard: OrderedDict[str, int] = OrderedDict()  # sender id -> number of its last batch
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Batch)

    @property
    def is_up(self) -> bool:
        """Whether other instances can be expected to hear what happens here, and this one them."""
        return self._transport.is_up

    def start(self, tasks: TaskSet) -> None:
        """Begins to tell and to hear."""
        self._transport.start(tasks, on_message=self._on_message, on_subscribed=self._on_subscribed)
        tasks.spawn(self._tell(), name="bus")

    async def close(self) -> None:
        """Ends; the tasks have ended before."""
        await self._transport.close()

    # What happens here.

    def publish(self, event: Run | MembershipEnded) -> None:
        """Sends an event to all listeners, here and elsewhere."""
        if isinstance(event, Run):
            # An earlier position that still waits is replaced: the log has what lies between.
            self._reached[event.room_id] = (event.epoch, event.last_seq)
            if len(self._reached) > ROOMS_MAX:
                self._drop()
            self._something_waits.set()
        else:
            self._queue(
                Ended(
                    event.room_id,
                    event.user_id,
                    event.last_seq,
                    event.except_boot_id,
                    event.username,
                    event.number,
                )
            )
        self._local.deliver(event)

    def send(self, event: PresenceTold) -> None:
        """Sends an event to the listeners of all other instances."""
        self._queue(event.news)

    def deliver(self, event: Event) -> None:
        """Sends an event to the listeners of this instance only."""
        self._local.deliver(event)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Calls `listener` with each event from now on; call what this returns to end that."""
        return self._local.subscribe(listener)

    def _queue(self, event: Ended | News) -> None:
        encoded = self._encoder.encode(event)
        self._events.append(encoded)
        self._queued_bytes += len(encoded)
        if self._queued_bytes > QUEUE_BYTES_MAX:
            self._drop()
        self._something_waits.set()

    def _drop(self) -> None:
        """Lets go of everything that waits. The number that it would have had is left out: that tells the others."""
        self._counts.dropped.add(len(self._events) + len(self._reached))
        self._reached.clear()
        self._events.clear()
        self._queued_bytes = 0
        self._number += 1

    async def _tell(self) -> None:
        while True:
            await self._something_waits.wait()
            batch = self._take()
            if batch is None:
                self._something_waits.clear()
                continue
            try:
                await self._transport.publish(batch)
            except ParleyError:
                self._counts.failed.add()
                await self._clock.sleep(RETRY_S)
            else:
                self._counts.sent.add()
                await self._clock.sleep(BATCH_INTERVAL_S)

    def _take(self) -> bytes | None:
        """The next batch; None where nothing waits."""
        reached = [(room_id, epoch, last_seq) for room_id, (epoch, last_seq) in self._reached.items()]
        self._reached.clear()
        events: list[msgspec.Raw] = []
        size = 0
        while self._events and size < BATCH_BYTES_MAX:
            encoded = self._events.popleft()
            size += len(encoded)
            events.append(msgspec.Raw(encoded))
        self._queued_bytes -= size
        if not reached and not events:
            return None
        self._number += 1
        return self._encoder.encode(_Draft(self._sender_id, self._number, reached, events))

    # What happens elsewhere.

    def _on_subscribed(self) -> None:
        self._counts.lost.add()
        self._local.deliver(Lost())

    def _on_message(self, message: bytes) -> None:
        try:
            if len(message) > MESSAGE_BYTES_MAX:
                raise msgspec.ValidationError("too long")
            batch = self._decoder.decode(message)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            _log.warning("a batch of another instance cannot be read", reason=str(error)[:200], size=len(message))
            self._on_subscribed()
            return
        if batch.sender_id != self._sender_id:
            self._hear(batch)

    def _hear(self, batch: Batch) -> None:
        last = self._heard.get(batch.sender_id, 0)
        if batch.number <= last:
            return  # a batch that was given up, and came late: what it says is known by other ways, and old
        self._heard[batch.sender_id] = batch.number
        self._heard.move_to_end(batch.sender_id)
        if len(self._heard) > SENDERS_MAX:
            self._heard.popitem(last=False)
        if batch.number > last + 1:
            self._on_subscribed()
        for room_id, epoch, last_seq in batch.reached:
            self._local.deliver(Reached(room_id, epoch, last_seq))
        for event in batch.events:
            self._local.deliver(_event(event))


def _event(told: Ended | News) -> MembershipEnded | PresenceTold:
    if isinstance(told, Ended):
        return MembershipEnded(
            told.room_id, told.user_id, told.last_seq, told.except_boot_id, told.username, number=told.number
        )
    return PresenceTold(told)
