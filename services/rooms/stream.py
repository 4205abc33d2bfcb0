"""One edge's stream: what it follows, what waits to be sent on it, and how it catches up when it was slow.

Everything that comes in is put into a queue and never waited for, so a slow edge holds nobody up. What waits is
bounded: messages of rooms by their bytes, beyond which a room is left behind and read from the log when the edge has
caught up; presence by the number of changes, beyond which a room's changes become one count. Results are never
dropped; an edge that does not read them is not read from either.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.common.wire.codes import ErrorCode
from services.rooms.follow import Follow, Piece
from services.rooms.messages import Head, Run, split
from services.rooms.presence import Action, Change

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from services.common.clock import Clock
    from services.rooms.bus import MembershipEnded
    from services.rooms.counts import RoomsCounts
    from services.rooms.log import Answer, MessageLog
    from services.rooms.messages import Outcome, Publish

PARCEL_BYTES_MAX: Final = 768 * 1024
"""Messages in one parcel; the last run that fits in may pass it by 256 KiB, so that a parcel is below 1 MiB."""

RESULTS_MAX: Final = 8_192
"""Results in one parcel, at some 40 bytes each; more than this many waiting, and the edge is not read from."""

CHANGES_MAX: Final = 4_096
"""Presence changes that may wait for one edge, which are a parcel of 200 KB."""

PAGE_MAX: Final = 200
"""Messages in one page of the log; 3.2 MB at their very longest, 40 KB as a rule."""

HEADS_MAX: Final = 1_000
"""Rooms whose position is asked for in one read, so that an edge that starts with 10,000 rooms makes ten."""

_PASSING: Final = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.OVERLOADED})
"""Refusals that say nothing against a message."""

_RETRY_S: Final = 1.0
_log = get_logger(__name__)


class Encoded(Piece, Protocol):
    """A piece with the form in which it is sent."""

    @property
    def payload(self) -> Any:
        """What the response carries."""
        ...


class Parcel(NamedTuple):
    """What is sent at once, in this order."""

    results: Sequence[tuple[Publish, Outcome]]
    ended: Sequence[MembershipEnded]
    pieces: Sequence[Encoded]
    changes: Sequence[Change]
    asks_who_is_here: bool = False


class Stream:
    """The outgoing half of an Attach. `encode` makes the form in which a run waits and is sent."""

    def __init__(
        self,
        boot_id: str,
        *,
        log: MessageLog,
        encode: Callable[[Run], Encoded],
        clock: Clock,
        counts: RoomsCounts,
        bytes_max: int,
    ) -> None:
        self.boot_id = boot_id
        self.follows: dict[str, Follow[Encoded]] = {}
        self.is_broken = False
        self._log = log
        self._encode = encode
        self._clock = clock
        self._counts = counts
        self._bytes_max = bytes_max
        self._results: list[tuple[Publish, Outcome]] = []
        self._ended: list[MembershipEnded] = []
        self._pieces: deque[tuple[Follow[Encoded], Encoded]] = deque()
        self._changes: list[Change] = []
        self._must_ask = False
        self._waiting_bytes = 0  # of the queued pieces
        self._held_bytes = 0  # of those that wait in the follows
        self._unresolved: dict[str, Follow[Encoded]] = {}
        self._behind: dict[str, Follow[Encoded]] = {}
        self._pending_count = 0
        self._is_finishing = False
        self._something_waits = asyncio.Event()
        self._may_catch_up = asyncio.Event()
        self._results_taken = asyncio.Event()
        self.stopped = asyncio.Event()

    # What comes in. Nothing here waits.

    def stop(self) -> None:
        """Take no more requests from this edge; what is under way is still answered."""
        self.stopped.set()

    def finish(self) -> None:
        """No more requests will come: the stream is finished when what is under way has been answered and sent."""
        self._is_finishing = True
        self._something_waits.set()

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will be sent."""
        return self._is_finishing and self._pending_count == 0 and not self._results

    def publish(self, publishes: Sequence[Publish], watcher: Answer | None = None) -> None:
        """Stores messages; their results come back on this stream. A `watcher` is told them first."""
        self._pending_count += len(publishes)
        if watcher is None:
            self._log.append(publishes, self._answer)
            return

        def answer(publishes: Sequence[Publish], outcomes: Sequence[Outcome] | None) -> None:
            watcher(publishes, outcomes)
            self._answer(publishes, outcomes)

        self._log.append(publishes, answer)

    def refuse(self, publishes: Sequence[Publish], outcome: Outcome) -> None:
        """Answers messages that are not to be stored."""
        self._results += [(publish, outcome) for publish in publishes]
        self._something_waits.set()

    def _answer(self, publishes: Sequence[Publish], outcomes: Sequence[Outcome] | None) -> None:
        self._pending_count -= len(publishes)
        if outcomes is None:
            # Whether they are stored is unknown, and no result says that. The end of the stream does: the edge asks
            # again with the same keys.
            self.is_broken = True
            self.stop()
        else:
            self._results += zip(publishes, outcomes, strict=True)
            if outcomes and outcomes[0].code in _PASSING:  # what is refused so is refused together
                # It may come again, and what is on its way behind it must not be stored before. On the next stream
                # the edge sends what it then wants.
                self.stop()
        self._something_waits.set()

    def add_ended(self, ended: MembershipEnded) -> None:
        """Somebody is no longer a member of a room."""
        self._ended.append(ended)
        self._something_waits.set()

    def add_changes(self, changes: Sequence[Change]) -> None:
        """People came or went in followed rooms."""
        self._changes += changes
        if len(self._changes) > CHANGES_MAX:
            self._counts.presence_dropped.add(len(self._changes))
            latest = {change.room_id: change.online_count for change in self._changes}
            self._changes = [Change(room_id, Action.COUNT, "", count) for room_id, count in latest.items()]
        self._something_waits.set()

    def follow(self, room_id: str, epoch: str, after_seq: int, head: Head | None) -> None:
        """The edge wants the messages of a room behind `after_seq`, from now on. `head` where it is known here."""
        self.unfollow(room_id)
        follow = self.follows[room_id] = Follow(room_id, epoch, after_seq)
        # A head that is behind what the edge knows comes from the bus, which is a moment behind the log.
        if head is not None and head.epoch == epoch and head.last_seq >= after_seq:
            self._advance(follow, follow.resolve(head.epoch, head.last_seq), held_before=0)
        else:
            self._unresolved[room_id] = follow
            self._may_catch_up.set()

    def unfollow(self, room_id: str) -> None:
        """The edge does not want a room any more; what is queued of it is not sent."""
        follow = self.follows.pop(room_id, None)
        if follow is not None:
            self._held_bytes -= follow.held_bytes
            follow.end()
            self._unresolved.pop(room_id, None)
            self._behind.pop(room_id, None)

    def offer(self, room_id: str, piece: Encoded) -> None:
        """A live piece of a followed room."""
        follow = self.follows[room_id]
        held_before = follow.held_bytes
        is_full = self._waiting_bytes + self._held_bytes + piece.size > self._bytes_max
        ready = follow.offer(piece, is_full=is_full)
        if ready is not None:
            self._queue(follow, ready)
            return
        self._held_bytes += follow.held_bytes - held_before
        if follow.is_resolved and not follow.is_live and room_id not in self._behind:
            self._behind[room_id] = follow
            self._may_catch_up.set()

    def announce(self, room_id: str, head: Head) -> None:
        """A followed room is known to have come so far; what of it has not come here is read from the log."""
        follow = self.follows[room_id]
        held_before = follow.held_bytes
        follow.announce(head.epoch, head.last_seq)
        self._advance(follow, (), held_before=held_before)

    def ask_who_is_here(self) -> None:
        """The edge is to say again who is connected to it."""
        self._must_ask = True
        self._something_waits.set()

    # What goes out.

    async def wait(self) -> None:
        """Returns when `take` may have something, or the stream is finished."""
        await self._something_waits.wait()

    async def wait_for_room(self) -> None:
        """Returns when so few results wait that more may be asked for."""
        while len(self._results) > RESULTS_MAX:
            self._results_taken.clear()
            await self._results_taken.wait()

    def take(self) -> Parcel | None:
        """What waits, in the order in which it must be sent; None where nothing does."""
        results, self._results = self._results[:RESULTS_MAX], self._results[RESULTS_MAX:]
        ended, self._ended = self._ended, []
        changes, self._changes = self._changes, []
        must_ask, self._must_ask = self._must_ask, False
        pieces: list[Encoded] = []
        size = 0
        while self._pieces and size < PARCEL_BYTES_MAX:
            follow, piece = self._pieces.popleft()
            self._waiting_bytes -= piece.size
            # A broken stream has messages whose result it will never send: they must not be shown on it either.
            if not follow.is_ended and not self.is_broken:
                pieces.append(piece)
                size += piece.size
        if self._is_low and (self._behind or self._unresolved):
            self._may_catch_up.set()
        self._results_taken.set()
        if results or ended or pieces or changes or must_ask:
            return Parcel(results, ended, pieces, changes, must_ask)
        self._something_waits.clear()
        return None

    @property
    def waiting_bytes(self) -> int:
        """Bytes of messages that wait to be sent or to be merged."""
        return self._waiting_bytes + self._held_bytes

    # Catching up.

    @property
    def _is_low(self) -> bool:
        return self._waiting_bytes <= self._bytes_max // 2

    async def catch_up(self) -> None:
        """Reads from the log what the followed rooms lack, whenever they lack something and the edge keeps up."""
        while True:
            await self._may_catch_up.wait()
            self._may_catch_up.clear()
            try:
                while self._is_low and (self._unresolved or self._behind):
                    if self._unresolved:
                        await self._resolve([*self._unresolved.values()][:HEADS_MAX])
                    else:
                        await self._read_page(next(iter(self._behind.values())))
            except ParleyError as error:
                await self._clock.sleep(error.retry_after_s or _RETRY_S)
                self._may_catch_up.set()

    async def _resolve(self, follows: Sequence[Follow[Encoded]]) -> None:
        heads = await self._log.heads([follow.room_id for follow in follows])
        for follow in follows:
            head = heads.get(follow.room_id)
            if follow.is_ended:
                continue
            del self._unresolved[follow.room_id]
            if head is None:
                _log.warning("follow of an unknown room", room_id=follow.room_id)
                self.unfollow(follow.room_id)
            else:
                held_before = follow.held_bytes
                self._advance(follow, follow.resolve(head.epoch, head.last_seq), held_before=held_before)

    async def _read_page(self, follow: Follow[Encoded]) -> None:
        room_id = follow.room_id
        page = await self._log.page(room_id, after_seq=follow.position, up_to_seq=follow.target, limit=PAGE_MAX)
        self._counts.pages_read.add()
        if follow.is_ended:
            return
        del self._behind[room_id]
        if page is None or (not page.messages and follow.position < follow.target):
            _log.error("the log lacks what was announced", room_id=room_id, after_seq=follow.position)
        if page is None:
            self.unfollow(room_id)
            return
        pieces = [self._encode(run) for run in split(room_id, page.head.epoch, page.messages)]
        held_before = follow.held_bytes
        self._advance(follow, follow.add_page(page.head.epoch, pieces), held_before=held_before)

    def _advance(self, follow: Follow[Encoded], ready: Sequence[Encoded], *, held_before: int) -> None:
        """Queues what can be sent, and sees to what is still missing."""
        self._held_bytes += follow.held_bytes - held_before
        for piece in ready:
            self._queue(follow, piece)
        if not follow.is_resolved:
            self._unresolved[follow.room_id] = follow
        elif not follow.is_live:
            self._behind[follow.room_id] = follow  # behind the others: they take turns
        else:
            return
        self._may_catch_up.set()

    def _queue(self, follow: Follow[Encoded], piece: Encoded) -> None:
        self._pieces.append((follow, piece))
        self._waiting_bytes += piece.size
        self._something_waits.set()
