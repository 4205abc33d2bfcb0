"""A guest, who comes to see how sessions are kept: races logins, takes sessions over, logs out, shows dead tokens."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from tests.chaos import events as e
from tests.chaos.recorder.board import PASSWORD, Board, Door
from tests.chaos.recorder.line import Line, RefusedError
from tests.chaos.recorder.wire import LostError

if TYPE_CHECKING:
    from tests.chaos.recorder.wire import Frame

PAUSE_S = (0.5, 3.0)
STAY_S = 1.5
QUIET_S = 15.0
"""After a login of which nobody knows what became of it, it may still be carried out for so long."""


class Visit:
    """One connection of the guest's, and the token that it was given."""

    def __init__(self, guest: Guest, door: Door) -> None:
        self.door = door
        self.token = ""
        self.conn = guest.next_conn()
        self._guest = guest
        self.line = Line(self._hear, self._lost, lambda _: None)

    async def log_in(self, *, takeover: bool, old: Visit | None = None) -> None:
        """`old` is the connection that this takes over. Raises LostError, RefusedError."""
        guest = self._guest
        await self.line.open(self.door.address, guest.board.trust)

        def entered(data: Frame) -> None:
            self.token = data["token"]
            guest.board.log.write(e.Open, c=guest.name, conn=self.conn, edge=self.door.edge)
            if old is not None and old.line.is_open:  # mostly it has ended before
                guest.board.log.write(e.Taken, c=guest.name, old=old.conn, conn=self.conn)

        asked = {"username": guest.name, "password": PASSWORD, "takeover": takeover}
        await self.line.ask("auth_request", asked, then=entered)

    async def log_out(self) -> None:
        """Raises LostError, RefusedError."""
        gone = self._guest.board.log.write
        await self.line.ask("logout", {}, then=lambda _: gone(e.LogOut, c=self._guest.name, conn=self.conn))

    def _hear(self, frame: Frame) -> None:
        if frame["type"] == "messages":
            self._guest.board.log.write(e.Heard, c=self._guest.name, conn=self.conn, room=frame["room_id"])

    def _lost(self, reason: str) -> None:
        if self.token:
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
            await self._race(lines)

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

    async def _race(self, lines: list[Line]) -> None:
        """Several logins at once, through all edges; the winner logs out."""
        visits = [self._visit(lines, door) for door in (*self.board.doors, self._dice.choice(self.board.doors))]
        results = await asyncio.gather(*(visit.log_in(takeover=False) for visit in visits), return_exceptions=True)
        won = [visit for visit, result in zip(visits, results, strict=True) if result is None]
        codes = [
            result.code if isinstance(result, RefusedError) else "lost" for result in results if result is not None
        ]
        if "lost" in codes:
            self._unknown_at = self.board.log.now()
        self.board.log.write(e.Race, c=self.name, won=[visit.door.edge for visit in won], codes=codes)
        for visit in won:
            await visit.log_out()
