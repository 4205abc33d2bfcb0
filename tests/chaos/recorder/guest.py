"""A guest, who comes to see how sessions are kept: races logins, takes sessions over, logs out, shows dead tokens."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.chaos import events as e
from tests.chaos.recorder.board import PASSWORD, Board, Door
from tests.chaos.recorder.line import Line, RefusedError
from tests.chaos.recorder.wire import LostError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.recorder.wire import Frame

PAUSE_S = (0.5, 3.0)
STAY_S = 1.5
ANSWERS_S = 12.0
"""An edge that says nothing for longer than any request may take is no edge to this guest."""
QUIET_S = 15.0
"""After a login of which nobody knows what became of it, it may still be carried out for so long."""


@dataclass(eq=False)
class Entry:
    """Since when somebody was let in, and until when: `ended_at` is None where the connection is still there."""

    at: float
    ended_at: float | None = None
    was_taken: bool = False  # it ended because another login took it over


def at_once(entries: Sequence[Entry]) -> list[Entry]:
    """The most of these that were in at the same time.

    A connection that the server had closed before the other login was answered (its edge was restarted, say) is out,
    and lets that one in rightly. One that was taken over is not: a login without takeover must not do that.
    """
    groups = (
        [one for one in entries if one.at <= last.at and (one.was_taken or (one.ended_at or math.inf) > last.at)]
        for last in entries
    )
    return max(groups, key=len, default=[])


class Visit:
    """One connection of the guest's, and the token that it was given."""

    def __init__(self, guest: Guest, door: Door) -> None:
        self.door = door
        self.token = ""
        self.entry: Entry | None = None  # from the answer on
        self.conn = guest.next_conn()
        self._guest = guest
        self.line = Line(self._hear, self._lost, lambda _: None)

    async def log_in(self, *, takeover: bool, old: Visit | None = None) -> None:
        """`old` is the connection that this takes over. Raises LostError, RefusedError."""
        guest = self._guest
        await self.line.open(self.door.address, guest.board.trust)

        def entered(data: Frame) -> None:
            self.token = data["token"]
            self.entry = Entry(guest.board.log.now())
            guest.board.log.write(e.Open, c=guest.name, conn=self.conn, edge=self.door.edge)
            if old is not None and old.line.is_open:  # mostly it has ended before
                guest.board.log.write(e.Taken, c=guest.name, old=old.conn, conn=self.conn)

        asked = {"username": guest.name, "password": PASSWORD, "takeover": takeover}
        await self.line.ask("auth_request", asked, then=entered)

    async def log_out(self) -> None:
        """Raises LostError, RefusedError."""

        def left(_: Frame) -> None:
            self._guest.board.log.write(e.LogOut, c=self._guest.name, conn=self.conn)

        try:
            async with asyncio.timeout(ANSWERS_S):
                await self.line.ask("logout", {}, then=left)
        except TimeoutError:
            raise LostError("a logout has no answer") from None

    async def is_in(self) -> bool:
        """Whether the server still answers here, or another login took this over."""
        with contextlib.suppress(LostError, TimeoutError):
            async with asyncio.timeout(ANSWERS_S):
                await self.line.ask("heartbeat", {})
            return True
        return self.entry is not None and self.entry.was_taken

    def _hear(self, frame: Frame) -> None:
        if frame["type"] == "messages":
            self._guest.board.log.write(e.Heard, c=self._guest.name, conn=self.conn, room=frame["room_id"])
        elif frame["type"] == "goodbye" and self.entry is not None:
            self.entry.was_taken = frame["data"].get("reason") == "taken_over"

    def _lost(self, reason: str) -> None:
        if self.entry is not None:
            self.entry.ended_at = self._guest.board.log.now()
            self._guest.board.log.write(e.Close, c=self._guest.name, conn=self.conn, why=reason[:80])


class Guest:
    """One user; a member of the first room, so that something comes on its connections."""

    def __init__(self, name: str, board: Board, seed: int) -> None:
        self.name = name
        self.board = board
        self.is_stopping = False
        self._dice = random.Random(f"{seed}:{name}")
        self._visits = 0
        self._unknown_at: float | None = None  # when a login was last sent whose answer never came

    def next_conn(self) -> str:
        """A name for the next connection."""
        self._visits += 1
        return f"{self.name}#{self._visits}"

    async def live(self) -> None:
        """Until `is_stopping`."""
        await self._register()
        while not self.is_stopping:
            lines: list[Line] = []
            try:
                await self._act(lines)
            except (LostError, RefusedError) as error:
                self.board.losses[f"guest: {error}"[:60]] += 1
            finally:
                for line in lines:
                    line.hang_up("the visit is over")
            await asyncio.sleep(self._dice.uniform(*PAUSE_S))

    async def _register(self) -> None:
        while not self.is_stopping:
            line = Line(lambda _: None, lambda _: None, lambda _: None)
            try:
                await line.open(self._dice.choice(self.board.doors).address, self.board.trust)
                credentials = {"username": self.name, "password": PASSWORD}
                try:
                    await line.ask("register_request", credentials)
                except RefusedError as error:
                    if error.code != "username_taken":
                        raise
                await line.ask("auth_request", {**credentials, "takeover": True})
                await line.ask("join_room", {}, self.board.rooms[0])
            except (LostError, RefusedError):
                await asyncio.sleep(1.0)
            else:
                return
            finally:
                line.hang_up("registered")

    def _visit(self, lines: list[Line], door: Door | None = None) -> Visit:
        visit = Visit(self, door or self._dice.choice(self.board.doors))
        lines.append(visit.line)
        return visit

    async def _act(self, lines: list[Line]) -> None:
        """Takes over what there is, is taken over in turn, logs out, shows the dead token, and races."""
        first = await self._enter(self._visit(lines))
        await asyncio.sleep(self._dice.uniform(0, STAY_S))
        second = await self._enter(self._visit(lines), old=first)
        await asyncio.sleep(self._dice.uniform(0, STAY_S))
        await second.log_out()
        await self._show_dead(second, lines)
        await asyncio.sleep(self._dice.uniform(0, STAY_S))  # and nothing may come on the old connections
        now = self.board.log.now()
        if self._unknown_at is None or now - self._unknown_at > QUIET_S:
            await self.race(lines, [*self.board.doors, self._dice.choice(self.board.doors)])

    async def _enter(self, visit: Visit, old: Visit | None = None) -> Visit:
        try:
            await visit.log_in(takeover=True, old=old)
        except LostError:
            self._unknown_at = self.board.log.now()
            raise
        return visit

    async def _show_dead(self, dead: Visit, lines: list[Line]) -> None:
        visit = self._visit(lines)
        await visit.line.open(visit.door.address, self.board.trust)
        accepted, code = True, ""
        try:
            await visit.line.ask("resume", {"token": dead.token, "rooms": {}})
        except RefusedError as error:
            accepted, code = False, error.code
        self.board.log.write(
            e.DeadToken, c=self.name, conn=dead.conn, edge=visit.door.edge, accepted=accepted, code=code
        )

    async def race(self, lines: list[Line], doors: Sequence[Door]) -> None:
        """A login at each of these doors at once; the winner logs out. Their connections come into `lines`."""
        visits = [self._visit(lines, door) for door in doors]
        results = await asyncio.gather(*(visit.log_in(takeover=False) for visit in visits), return_exceptions=True)
        codes = [
            result.code if isinstance(result, RefusedError) else "lost" for result in results if result is not None
        ]
        if "lost" in codes:
            self._unknown_at = self.board.log.now()
        entered = [visit for visit in visits if visit.entry is not None]
        together = at_once([visit.entry for visit in entered if visit.entry is not None])
        won = [visit for visit in entered if visit.entry in together]
        if len(won) > 1:  # an edge that is gone, of which nobody could tell us yet, does not answer any more
            said = await asyncio.gather(*(visit.is_in() for visit in won))
            won = [visit for visit, is_in in zip(won, said, strict=True) if is_in] or won[:1]
        self.board.log.write(e.Race, c=self.name, won=[visit.door.edge for visit in won], codes=codes)
        for visit in won:
            if visit.line.is_open:
                await visit.log_out()
