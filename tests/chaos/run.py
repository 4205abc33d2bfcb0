"""One run: people talk, the nemesis breaks and mends, everything settles, everything is audited; then the checker."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from client.trust import Authority
from tests.chaos import events as e
from tests.chaos import report
from tests.chaos.checker import Verdict, check
from tests.chaos.nemesis.choice import choose
from tests.chaos.nemesis.kicks import kick_people
from tests.chaos.nemesis.proxy import Proxy
from tests.chaos.nemesis.schedule import Nemesis
from tests.chaos.recorder import store
from tests.chaos.recorder.board import Board, Door
from tests.chaos.recorder.line import RefusedError
from tests.chaos.recorder.log import EventLog
from tests.chaos.recorder.town import Town
from tests.chaos.recorder.wire import LostError, trusting
from tests.chaos.recovery import Recovery, measure

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from tests.chaos.target import Target

HEALED_S = 10.0  # I12
MOVE_IN_S = 90.0
AUDIT_S = 30.0
COPIED_AFTER = 0.3  # of the time that people talk
LOST = 0.2  # as much again is lost with the restore


class UnreachableError(Exception):
    """It did not even come to talking: nothing was checked."""


@dataclass(frozen=True)
class Plan:
    """How long, how many, how bad."""

    seconds: float = 60.0
    seed: int = 1
    people: int = 8
    talkers: int = 2  # who send without a pause
    library_people: int = 2
    guests: int = 1  # who log in and out
    rooms: int = 4
    faults: frozenset[str] = frozenset()
    kicks: bool = True
    restore: bool = False  # an older copy takes the database's place half way: memberships stay as they are then


@dataclass
class Outcome:
    """What a run came to."""

    plan: Plan
    verdict: Verdict
    refusals: Counter[str]
    losses: Counter[str]
    took_s: float
    cpu_s: float
    recovery: Recovery = field(default_factory=Recovery)
    mistakes: list[str] = field(default_factory=list)  # of this program, not of what it checks

    @property
    def is_good(self) -> bool:
        """Whether the promise was kept, and we know it."""
        return self.verdict.is_kept and not self.mistakes


async def run(target: Target, plan: Plan, log_path: Path, begun: Callable[[], object] = lambda: None) -> Outcome:
    """Makes a run and judges it; `begun` is called when everybody is in and begins to talk."""
    began, cpu_began = time.monotonic(), time.process_time()
    mistakes: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: mistakes.append(f"{context['message']}: {context.get('exception')!r}")
    )
    dice = random.Random(plan.seed)
    async with contextlib.AsyncExitStack() as exits:
        proxies: dict[str, Proxy] = {}
        for door in target.doors:
            proxies[door.edge] = await Proxy(lambda door=door: door.address).start()  # type: ignore[misc]
            exits.push_async_callback(proxies[door.edge].close)
        log = exits.enter_context(EventLog(log_path))
        board = Board(
            log,
            [Door(edge, "127.0.0.1", proxy.port) for edge, proxy in proxies.items()],
            trusting(target.client_ca, target.server_name),
            prefix=f"c{secrets.token_hex(3)}",
        )
        board.is_steady = plan.restore
        town = Town(board, target.doors, plan.seed)
        await _move_in(town, plan, Authority(target.server_name, Path(target.client_ca)))
        until = log.now() + plan.seconds
        board.is_talking = True
        begun()
        async with asyncio.TaskGroup() as tasks:
            faults = choose(
                plan.faults, processes=target.processes, proxies=proxies, control=target.control,
                servers=target.servers,
            )  # fmt: skip
            nemesis = Nemesis(faults, log, dice)
            rage = _restore_half_way(target, board, nemesis, until) if plan.restore else nemesis.rage(until)
            tasks.create_task(rage)
            if plan.kicks and not plan.restore and target.home is not None:
                tasks.create_task(kick_people(target.home, town.people, board, random.Random(plan.seed), until))
        board.is_talking = False
        await asyncio.gather(town.until_settled(HEALED_S), town.probe(HEALED_S))
        log.write(e.End)
        await town.audit(AUDIT_S)
        await asyncio.to_thread(_audit_store, target, log, board.rooms)
        await town.disperse()
    cpu_s = time.process_time() - cpu_began
    with log_path.open("rb") as lines:
        verdict = check(e.decode(lines))
    with log_path.open("rb") as lines:
        recovery = measure(e.decode(lines))
    took_s = time.monotonic() - began
    return Outcome(plan, verdict, board.refusals, board.losses, took_s, cpu_s, recovery, mistakes)


async def _move_in(town: Town, plan: Plan, trust: Authority) -> None:
    try:
        await town.found(plan.rooms)
    except (LostError, RefusedError) as error:
        raise UnreachableError(f"{town.doors[0].edge}: {error}") from error
    library_people = 0 if plan.restore else plan.library_people
    try:
        await town.settle(plan.people, plan.talkers, library_people, plan.guests, trust, deadline_s=MOVE_IN_S)
    except TimeoutError as error:
        told = report.counts(town.board.losses + town.board.refusals)
        raise UnreachableError(f"within {MOVE_IN_S:.0f} s could not log in and join: {error}; {told}") from None


async def _restore_half_way(target: Target, board: Board, nemesis: Nemesis, until: float) -> None:
    assert target.restorer is not None, "only a stack of our own can be restored"
    log = board.log
    span_s = until - log.now()
    await nemesis.rage(log.now() + COPIED_AFTER * span_s)
    copied_at = log.now()
    await target.restorer.back_up()
    await asyncio.sleep(LOST * span_s)
    await target.restorer.restore(board, copied_at)
    await nemesis.rage(max(until, log.now() + LOST * span_s))


def _audit_store(target: Target, log: EventLog, rooms: list[str]) -> None:
    if target.database_url is not None:
        store.audit_postgres(log, target.database_url, rooms)
    elif target.home is not None and (database := target.home / "data" / "rooms.db").exists():
        store.audit_sqlite(log, database, rooms)
