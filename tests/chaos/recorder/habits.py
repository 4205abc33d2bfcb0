"""What people do: they talk in bursts, look things up, send files, come and go, and now and then make a mistake.

Talkers do one thing only: they send without a pause and without waiting for answers, so that many texts of one
connection to one room are always under way; what is turned away goes again, in its order. It is they who show whether
an order holds.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.chaos.recorder.line import RefusedError
from tests.chaos.recorder.pipe import Pipe
from tests.chaos.recorder.seat import Seat, Standing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.chaos.recorder.person import Person

PAUSE_S = 0.7  # on average, between two acts
PENDING_MAX = 60
BURST_MAX = 8
OUT_S = 2.5  # longer than a removal may take to show on every edge
MEMBERS_MIN = 1
STREAM_PER_S = 12.0  # a user may send 20 a second
STREAM_WAITING_MAX = 80
"""In all rooms: more than a pipe sends at a time, and what is saved up while an edge or its rooms are away is answered
within the 10 s of I12 afterwards."""
STREAM_TEXTS = (40, 400)  # to one room, before the next


async def act(person: Person) -> None:
    """Until cancelled, or the connection breaks. Raises LostError."""
    while person.line.is_open:
        await _take_seats(person)
        if person.board.is_talking:
            chosen = person.dice.choices([one for one, _ in ACTS], [weight for _, weight in ACTS])[0]
            try:
                await chosen(person)
            except RefusedError as error:
                person.board.refusals[f"{chosen.__name__.strip('_')}: {error.code}"] += 1
            await asyncio.sleep(person.dice.expovariate(1 / PAUSE_S))
        else:
            await asyncio.sleep(0.1)


async def stream(person: Person) -> None:
    """A talker. Until cancelled, or the connection breaks. Raises LostError."""
    while person.line.is_open:
        await _take_seats(person)
        seat = _seat(person)
        for _ in range(person.dice.randint(*STREAM_TEXTS)):
            pipes = person.pipes
            if person.board.is_talking and seat is not None and seat.standing is Standing.IN:
                if seat.room not in pipes:
                    pipes[seat.room] = Pipe(f"{person.name}/{seat.room}", person.mailbox)
                if sum(map(len, pipes.values())) < STREAM_WAITING_MAX:
                    pipes[seat.room].put(person.mailbox.compose(seat.room))
            for pipe in pipes.values():
                pipe.pump(person.line, person.conn)
            await asyncio.sleep(1 / STREAM_PER_S)
            if seat is None or seat.standing is not Standing.IN:
                break


async def _take_seats(person: Person) -> None:
    """Joins the rooms that the person wants to be in."""
    now = person.board.log.now()
    for seat in person.seats.values():
        if seat.standing in {Standing.OUT, Standing.JOINING} and now - seat.out_since > OUT_S:
            try:
                await person.join(seat)
            except RefusedError as error:
                person.board.refusals[f"join: {error.code}"] += 1
                await asyncio.sleep(error.retry_after_s or 0.3)


def _seat(person: Person) -> Seat | None:
    inside = [seat for seat in person.seats.values() if seat.standing is Standing.IN]
    return person.dice.choice(inside) if inside else None


async def _talk(person: Person) -> None:
    seat = _seat(person)
    if seat is None or person.mailbox.pending > PENDING_MAX:
        return
    for _ in range(person.dice.randint(1, BURST_MAX)):
        text = person.mailbox.compose(seat.room, keyed=person.dice.random() > 0.15)
        person.mailbox.send(person.line, person.conn, text)
    await person.line.wire.drained()


async def _repeat(person: Person) -> None:
    """Sends something again that was acknowledged, perhaps long ago."""
    known = [text for text in person.mailbox.known if person.seats[text.room].standing is Standing.IN]
    if known:
        person.mailbox.send(person.line, person.conn, person.dice.choice(known), is_again=True)


async def _contradict(person: Person) -> None:
    """Uses a key again for something else, which is a conflict."""
    known = [text for text in person.mailbox.known if person.seats[text.room].standing is Standing.IN]
    if known:
        text = person.mailbox.changed(person.dice.choice(known))
        person.mailbox.send(person.line, person.conn, text, is_again=True)


async def _read(person: Person) -> None:
    seat = _seat(person)
    if seat is None:
        return
    where = {"before": person.dice.randint(1, seat.have + 1)} if person.dice.random() < 0.5 else {}
    await person.read_page(seat, {"limit": person.dice.randint(1, 60), **where})


async def _leave(person: Person) -> None:
    inside = [seat for seat in person.seats.values() if seat.standing is Standing.IN]
    if len(inside) > MEMBERS_MIN and not person.board.is_steady:
        await person.leave(person.dice.choice(inside))


async def _hang_up(person: Person) -> None:
    person.line.hang_up("on purpose")


async def _log_out(person: Person) -> None:
    await person.log_out()


async def _send_file(person: Person) -> None:
    seat = _seat(person)
    if seat is not None:
        await person.cabinet.send(person.line, person.conn, seat)


async def _fetch_file(person: Person) -> None:
    seat = _seat(person)
    if seat is not None:
        await person.cabinet.fetch(person.line, seat)


ACTS: list[tuple[Callable[[Person], Awaitable[None]], int]] = [
    (_talk, 100), (_repeat, 8), (_contradict, 2), (_read, 6), (_leave, 2), (_hang_up, 3), (_log_out, 2),
    (_send_file, 8), (_fetch_file, 10),
]  # fmt: skip
