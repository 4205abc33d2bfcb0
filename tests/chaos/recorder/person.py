"""A person with a raw connection, who comes back whenever it breaks."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from tests.chaos import events as e
from tests.chaos.recorder.board import PASSWORD, Board
from tests.chaos.recorder.cabinet import Cabinet
from tests.chaos.recorder.line import Line, RefusedError
from tests.chaos.recorder.mailbox import Mailbox, identify
from tests.chaos.recorder.seat import Seat, Standing
from tests.chaos.recorder.wire import Frame, LostError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.chaos.recorder.pipe import Pipe

PAGE = 200
BACKOFF_MAX_S = 1.0
RETRY_S = 0.4
LINGER_S = 1.0  # how long a connection stays after it was logged out: nothing may come on it


class Person:
    """`habits` decides what the person does while they are logged in; everything else is how they stay so."""

    def __init__(self, name: str, board: Board, seed: int, habits: Callable[[Person], Awaitable[None]]) -> None:
        self.name = name
        self.board = board
        self.dice = random.Random(f"{seed}:{name}")
        self.mailbox = Mailbox(name, board, self.dice)
        self.cabinet = Cabinet(name, board, self.dice)
        self.pipes: dict[str, Pipe] = {}  # by room; of talkers
        self.seats = {room: Seat(room) for room in board.rooms}
        self.line = self._new_line()
        self.conn = ""
        self.is_in = False  # logged in at the moment
        self.is_stopping = False
        self.back_at: list[tuple[float, float, str]] = []  # (lost at, back at, edge)
        self._habits = habits
        self._token = ""
        self._dead: tuple[str, str] | None = None  # the token of a connection that was logged out, and its name
        self._is_registered = False
        self._lives = 0
        self._lost_at: float | None = None
        self._wait_s: float | None = None
        self._loads: set[asyncio.Task[None]] = set()

    def _new_line(self) -> Line:
        return Line(self._on_event, self._on_lost, self.cabinet.on_chunk)

    # Coming back

    async def live(self) -> None:
        """Until `is_stopping`."""
        backoff_s = 0.05
        while not self.is_stopping:
            try:
                await self._one_life()
                backoff_s = 0.05
            except (LostError, RefusedError) as error:
                self.board.losses[str(error)[:60]] += 1
                backoff_s = min(BACKOFF_MAX_S, backoff_s * 2)
            finally:
                self.line.hang_up("given up")
                for load in self._loads:
                    load.cancel()
            wait_s, self._wait_s = self._wait_s, None
            await asyncio.sleep(self.dice.uniform(0.5, 1.0) * backoff_s if wait_s is None else wait_s)

    async def _one_life(self) -> None:
        self._lives += 1
        door = self.dice.choice(self.board.doors)
        self.conn = f"{self.name}#{self._lives}"
        self.line = line = self._new_line()
        await line.open(door.address, self.board.trust)
        await self._log_in(door.edge)
        try:
            async with asyncio.TaskGroup() as tasks:
                doing = [
                    tasks.create_task(line.watch(self.dice.uniform(2.0, 7.0), self._on_heartbeat)),
                    tasks.create_task(self._resend_until_lost()),
                    tasks.create_task(self._act()),
                ]
                await line.lost.wait()
                for task in doing:
                    task.cancel()
        except* LostError:
            pass

    async def _act(self) -> None:
        await self._habits(self)

    async def _resend_until_lost(self) -> None:
        while self.line.is_open:
            self.mailbox.resend(self.line, self.conn)
            await asyncio.sleep(RETRY_S)

    async def _log_in(self, edge: str) -> None:
        """Resumes where that is possible, registers where nobody did yet. Raises LostError, RefusedError."""
        credentials = {"username": self.name, "password": PASSWORD}
        if not self._is_registered:
            try:
                await self.line.ask("register_request", credentials)
            except RefusedError as error:
                if error.code != "username_taken":  # the answer to an earlier try was lost
                    self._wait_s = error.retry_after_s
                    raise
            self._is_registered = True
        await self._try_dead_token(edge)
        if self._token and self.dice.random() < 0.9:
            positions = {
                seat.room: {"epoch": seat.epoch, "seq": seat.have}
                for seat in self.seats.values()
                if seat.epoch and seat.standing in {Standing.IN, Standing.PARTING}
            }
            asked = {"token": self._token, "rooms": positions}
            try:
                await self.line.ask("resume", asked, then=lambda data: self._entered(edge, data, positions))
            except RefusedError as error:
                if error.code != "bad_token":
                    self._wait_s = error.retry_after_s
                    raise
                self._token = ""
            else:
                return
        try:
            await self.line.ask(
                "auth_request", {**credentials, "takeover": True}, then=lambda data: self._entered(edge, data, {})
            )
        except RefusedError as error:
            self._wait_s = error.retry_after_s
            raise

    async def _try_dead_token(self, edge: str) -> None:
        """A token that was logged out opens nothing, on no edge. Raises LostError."""
        if self._dead is None:
            return
        (token, conn), self._dead = self._dead, None
        accepted, code = True, ""
        try:
            await self.line.ask("resume", {"token": token, "rooms": {}})
        except RefusedError as error:
            accepted, code = False, error.code
        self.board.log.write(e.DeadToken, c=self.name, conn=conn, edge=edge, accepted=accepted, code=code)
        if accepted:
            raise LostError("a dead token was accepted")

    async def log_out(self) -> None:
        """Ends the session; the next life begins with a login. Raises LostError, RefusedError."""

        def gone(_: Frame) -> None:
            self.board.log.write(e.LogOut, c=self.name, conn=self.conn)
            self._dead, self._token = (self._token, self.conn), ""

        await self.line.ask("logout", {}, then=gone)
        await asyncio.sleep(self.dice.uniform(0, LINGER_S))
        self.line.hang_up("logged out")

    def _entered(self, edge: str, data: Frame, positions: dict[str, Frame]) -> None:
        """Logged in: where every room begins on this connection."""
        log = self.board.log
        self._token = data["token"]
        self.is_in = True
        opened = log.write(e.Open, c=self.name, conn=self.conn, edge=edge)
        if self._lost_at is not None:
            self.back_at.append((self._lost_at, opened.t, edge))
        for room in data["rooms"]:
            seat = self.seats.get(room["room_id"])
            if seat is not None and seat.standing is not Standing.RETIRED:
                self._continue(seat, room, positions)
        listed = {room["room_id"] for room in data["rooms"]}
        for seat in self.seats.values():
            if seat.standing in {Standing.PARTING, Standing.JOINING} and seat.room not in listed:
                # What was asked may still be done, however late: nobody knows.
                seat.standing = Standing.RETIRED if seat.standing is Standing.PARTING else Standing.OUT

    def _continue(self, seat: Seat, room: Frame, positions: dict[str, Frame]) -> None:
        log = self.board.log
        epoch, last_seq = room["epoch"], room["last_seq"]
        if seat.standing is Standing.PARTING:
            seat.standing = Standing.RETIRED
            return
        # Over, and listed: the answer was made before the end, and what still comes has the time of a removal to stop.
        is_new = seat.standing is not Standing.IN and not seat.is_over
        if is_new:  # a join whose answer was lost
            log.write(e.JoinOk, user=self.name, room=seat.room, seq=last_seq)
            seat.standing = Standing.IN
        if is_new:
            seat.begin(epoch, last_seq)
        elif epoch != seat.epoch and not seat.is_over:
            # Another life of the log: what others have sent in it before this login is to be read, from the join on.
            seat.begin(epoch, min(seat.floor, last_seq))
        asked = positions.get(seat.room)
        if asked is not None and "recovered" in room:
            log.write(
                e.ResumeOk, c=self.name, conn=self.conn, previous=f"{self.name}#{self._lives - 1}", room=seat.room,
                epoch=epoch, seq=asked["seq"], recovered=room["recovered"], last_seq=last_seq,
            )  # fmt: skip
            seat.replay_to = last_seq if room["recovered"] else 0
            if room["recovered"]:
                return
        else:
            log.write(e.Start, c=self.name, conn=self.conn, room=seat.room, epoch=epoch, seq=last_seq, how="login")
            seat.replay_to = 0
        if seat.have < last_seq:
            self._load(seat, last_seq)

    # What comes in

    def _on_event(self, frame: Frame) -> None:
        kind = frame["type"]
        if self.cabinet.on_event(frame):
            return
        if kind == "messages":
            seat = self.seats.get(frame["room_id"])
            if seat is not None and seat.standing is not Standing.RETIRED:
                for message in frame["data"]["messages"]:
                    via = "replay" if message["seq"] <= seat.replay_to else "live"
                    self._deliver(seat, frame["data"]["epoch"], message, via)
        elif kind == "goodbye":
            self.board.losses[f"goodbye {frame['data'].get('reason')}"] += 1
            after_ms = frame["data"].get("reconnect_after_ms")
            self._wait_s = None if after_ms is None else after_ms / 1000
        elif kind == "error":
            self.board.losses[f"error {frame['data'].get('code')}"] += 1

    def _deliver(self, seat: Seat, epoch: str, message: Frame, via: e.Via) -> None:
        key, h = identify(message["text"], message.get("file"))
        self.board.log.write(
            e.Deliver, c=self.name, conn=self.conn, room=seat.room, epoch=epoch, seq=message["seq"], key=key,
            sender=message["username"], h=h, via=via,
        )  # fmt: skip
        if epoch == seat.epoch:
            seat.cover.add(message["seq"])

    def _on_heartbeat(self, data: Frame) -> None:
        for room, seq in data.get("rooms", {}).items():
            seat = self.seats.get(room)
            if seat is not None and seat.standing is Standing.IN:
                self.board.log.write(e.Bookmark, c=self.name, conn=self.conn, room=room, seq=seq)

    def _on_lost(self, reason: str) -> None:
        self.board.losses[reason[:60]] += 1
        if self.is_in:
            self.is_in = False
            self._lost_at = self.board.log.write(e.Close, c=self.name, conn=self.conn, why=reason[:80]).t
        for seat in self.seats.values():
            seat.is_loading = False

    # What was missed

    def _load(self, seat: Seat, up_to: int) -> None:
        """Reads what is missing from the history, in the background."""
        seat.load_to = up_to
        if not seat.is_loading:
            seat.is_loading = True
            task = asyncio.get_running_loop().create_task(self._read_missing(seat))
            self._loads.add(task)
            task.add_done_callback(self._loads.discard)

    async def _read_missing(self, seat: Seat) -> None:
        try:
            while seat.have < seat.load_to and seat.standing is Standing.IN:
                try:
                    await self.read_page(seat, {"after": seat.have, "limit": PAGE})
                except RefusedError as error:
                    if error.code not in {"unavailable", "overloaded", "rate_limited", "internal"}:
                        return
                    await asyncio.sleep(error.retry_after_s or RETRY_S)
        except LostError:
            pass  # the next resume names what is still missing
        finally:
            seat.is_loading = False

    async def read_page(self, seat: Seat, asked: Frame) -> None:
        """One page of history. Raises LostError, RefusedError."""

        def take(data: Frame) -> None:
            for message in data["messages"]:
                self._deliver(seat, data["epoch"], message, "history")

        await self.line.ask("history", asked, seat.room, then=take)

    # Rooms

    async def join(self, seat: Seat) -> None:
        """Becomes a member. Raises LostError, RefusedError."""
        log = self.board.log
        seat.standing, seat.is_over = Standing.JOINING, False
        log.write(e.JoinAsk, user=self.name, room=seat.room)

        def joined(data: Frame) -> None:
            epoch, seq = data["epoch"], data["last_seq"]
            log.write(e.JoinOk, user=self.name, room=seat.room, seq=seq)
            log.write(e.Start, c=self.name, conn=self.conn, room=seat.room, epoch=epoch, seq=seq, how="join")
            seat.standing = Standing.IN
            seat.begin(epoch, seq)

        try:
            await self.line.ask("join_room", {}, seat.room, then=joined)
        except RefusedError:
            seat.standing = Standing.OUT
            raise

    async def leave(self, seat: Seat) -> None:
        """Stops being a member. Raises LostError, RefusedError."""
        log = self.board.log
        seat.standing = Standing.PARTING
        log.write(e.PartAsk, user=self.name, room=seat.room)

        def left(_: Frame) -> None:
            log.write(e.LeaveOk, user=self.name, room=seat.room, conn=self.conn)
            seat.standing, seat.out_since, seat.is_over = Standing.OUT, log.now(), True

        try:
            await self.line.ask("leave_room", {}, seat.room, then=left)
        except RefusedError:
            seat.standing = Standing.RETIRED
            raise

    @property
    def is_settled(self) -> bool:
        """Whether everything that this person sent is answered, and everything that they may expect has come."""
        if not self.mailbox.is_idle or not self.is_in or any(map(len, self.pipes.values())):
            return False
        newest = self.board.newest
        members = [seat for seat in self.seats.values() if seat.standing is Standing.IN]
        return all(seat.have >= newest.get(seat.room, 0) and not seat.is_loading for seat in members)
