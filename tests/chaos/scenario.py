"""What happens in a simulated history: steps at random, then everything mends, and audits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tests.chaos import events as e
from tests.chaos.simulator import EDGES, ROOMS, Defect, Simulator, Text

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = 250


def simulate(seed: int, defect: Defect = Defect.NONE, *, steps: int = STEPS) -> Simulator:
    """One whole history."""
    simulator = Simulator(seed, defect)
    dice = simulator.dice
    acts: list[tuple[Callable[[Simulator], None], int]] = [
        (_send, 30), (_commit, 40), (_arrive, 60), (_drop, 3), (_retry_late, 3), (_leave_and_join, 2), (_kick, 2),
        (_heartbeat, 6), (_file, 1), (_restore, 1), (_never_joined, 1),
    ]  # fmt: skip
    chosen = dice.choices([act for act, _ in acts], [weight for _, weight in acts], k=steps)
    for act in chosen:
        act(simulator)
    _finish(simulator)
    return simulator


def _somebody(simulator: Simulator) -> str:
    return simulator.dice.choice(list(simulator.connections))


def _send(simulator: Simulator) -> None:
    user = _somebody(simulator)
    rooms = [name for name in ROOMS if user in simulator.rooms[name].members]
    if rooms:
        simulator.send(user, simulator.dice.choice(rooms))


def _commit(simulator: Simulator) -> None:
    simulator.commit(simulator.connections[_somebody(simulator)])


def _arrive(simulator: Simulator) -> None:
    simulator.arrive(simulator.connections[_somebody(simulator)])


def _drop(simulator: Simulator) -> None:
    simulator.drop(_somebody(simulator))


def _retry_late(simulator: Simulator) -> None:
    known = [ok for ok in simulator.acknowledged if not ok.key.startswith("~")]
    if not known:
        return
    ok = simulator.dice.choice(known)
    if ok.c in simulator.rooms[ok.room].members:
        simulator._ask(simulator.connections[ok.c], ok.room, ok.key, ok.h)


def _leave_and_join(simulator: Simulator) -> None:
    user = simulator.dice.choice(["u1", "u2"])
    for name in ROOMS:
        if user in simulator.rooms[name].members:
            simulator.leave(user, name)
            if simulator.dice.random() < 0.8:
                simulator.join(user, name)
            return
    simulator.join(user, ROOMS[0])


def _kick(simulator: Simulator) -> None:
    if "u3" in simulator.rooms[ROOMS[0]].members:
        simulator.kick("u3", ROOMS[0])
        simulator.join("u3", ROOMS[0])


def _heartbeat(simulator: Simulator) -> None:
    conn = simulator.connections[_somebody(simulator)]
    for name in list(conn.sent):
        seq = conn.sent[name]
        if seq > conn.has.get(name, 0) and simulator.breaks(Defect.EARLY_BOOKMARK, 1.0):
            simulator.say(e.Bookmark(t=simulator.t(), c=conn.user, conn=conn.name, room=name, seq=seq))
        else:
            conn.queue.append(
                lambda name=name, seq=seq: e.Bookmark(  # type: ignore[misc]
                    t=simulator.t(), c=conn.user, conn=conn.name, room=name, seq=seq
                )
            )


def _file(simulator: Simulator) -> None:
    sha256 = f"{simulator.serial():064x}"
    about = {"room": ROOMS[0], "id": sha256[-32:], "size": 5}
    simulator.say(e.FileOk(t=simulator.t(), c="u1", sha256=sha256, **about))  # type: ignore[arg-type]
    if simulator.breaks(Defect.FILE_CHANGED):
        sha256 = "0" * 64
    simulator.say(e.FileRecv(t=simulator.t(), c="u2", sha256=sha256, **about))  # type: ignore[arg-type]
    simulator.files.append(simulator.history[-1])  # type: ignore[arg-type]
    if simulator.breaks(Defect.FILE_STRAYS):
        simulator.say(e.FileStray(t=simulator.t(), c="u2", path="../profile"))


def _guest(simulator: Simulator) -> None:
    """Somebody whose session is taken over, logged out, and raced for."""
    old, conn = f"c{simulator.serial()}", f"c{simulator.serial()}"
    about: dict[str, Any] = {"c": "guest"}
    for name in (old, conn):
        simulator.say(e.Open(t=simulator.t(), conn=name, edge=EDGES[0], **about))
    simulator.say(e.Taken(t=simulator.t(), old=old, conn=conn, **about))
    simulator.say(e.Heard(t=simulator.t(), conn=old, room=ROOMS[0], **about))  # was on its way
    if simulator.breaks(Defect.TAKEN_OVER_GOES_ON):
        simulator.pass_time(1.5)
        simulator.say(e.Heard(t=simulator.t(), conn=old, room=ROOMS[0], **about))
    if simulator.breaks(Defect.TAKEN_OVER_GOES_ON_MEANWHILE):
        taken_at = simulator.t()
        simulator.pass_time(5.5)
        simulator.say(e.Heard(t=simulator.t(), conn=old, room=ROOMS[0], **about))
        simulator.was_broken("redis", taken_at)
    if simulator.breaks(Defect.TAKEN_OVER_STAYS_OPEN):
        simulator.pass_time(1.5)
    else:
        simulator.say(e.Close(t=simulator.t(), conn=old, **about))
    simulator.say(e.LogOut(t=simulator.t(), conn=conn, **about))
    if simulator.breaks(Defect.LOGGED_OUT_GOES_ON):
        simulator.say(e.Heard(t=simulator.t(), conn=conn, room=ROOMS[0], **about))
    accepted = simulator.breaks(Defect.DEAD_TOKEN_ACCEPTED)
    simulator.say(e.DeadToken(t=simulator.t(), conn=conn, edge=EDGES[1], accepted=accepted, **about))
    simulator.say(e.Close(t=simulator.t(), conn=conn, **about))
    won, codes = [EDGES[0]], ["already_logged_in"]
    if simulator.breaks(Defect.RACE_WON_TWICE):
        won, codes = list(EDGES), []
    elif simulator.breaks(Defect.RACE_WON_BY_NOBODY):
        won, codes = [], codes * 2
    simulator.say(e.Race(t=simulator.t(), won=won, codes=codes, **about))


def _restore(simulator: Simulator) -> None:
    """Everything stops, and an older copy takes the database's place."""
    rare = simulator.dice.random() > 0.15 and simulator.defect is not Defect.EPOCH_REUSED
    if rare or any(room.ahead for room in simulator.rooms.values()):
        return
    copied_at = simulator.t()
    copies = {name: (list(room.log), dict(room.keys)) for name, room in simulator.rooms.items()}
    for _ in range(3):
        _send(simulator)
    for conn in simulator.connections.values():
        while conn.requests:
            simulator.commit(conn)
        simulator.arrive(conn, everything=True)
    old = dict(simulator.connections)
    for conn in old.values():
        simulator.say(e.Close(t=simulator.t(), c=conn.user, conn=conn.name))
        simulator.connections.pop(conn.user)
    simulator.epochs += 1
    reused = simulator.breaks(Defect.EPOCH_REUSED, 1.0)
    for name, room in simulator.rooms.items():
        room.log, room.keys = copies[name]
        if not reused:
            room.epoch = f"e{simulator.epochs}"
    simulator.acknowledged = [ok for ok in simulator.acknowledged if ok.seq <= len(simulator.rooms[ok.room].log)]
    simulator.say(e.Restored(t=simulator.t(), copied_at=copied_at))
    for user in old:
        conn = simulator.connect(user)
        for name, room in simulator.rooms.items():
            if user in room.members:
                seq = len(room.log)
                conn.sent[name] = conn.has[name] = seq
                simulator.say(
                    e.Start(t=simulator.t(), c=user, conn=conn.name, room=name, epoch=room.epoch, seq=seq, how="login")
                )


def _never_joined(simulator: Simulator) -> None:
    room = simulator.rooms[ROOMS[1]]
    if room.log and not simulator.fired and simulator.breaks(Defect.NEVER_JOINED, 1.0):
        simulator.say(simulator._delivery(simulator.connections["u0"], ROOMS[1], len(room.log), "live"))


def _finish(simulator: Simulator) -> None:
    """Mends everything, lets everything arrive, probes and audits."""
    for _ in range(50):
        busy = [conn for conn in simulator.connections.values() if conn.requests]
        if not busy:
            break
        for conn in busy:
            simulator.commit(conn)
    for name, room in simulator.rooms.items():
        while room.ahead is not None:
            speaker = next(iter(room.members))
            simulator.send(speaker, name)
            simulator.commit(simulator.connections[speaker])
        simulator.fan_out(name)
    for conn in simulator.connections.values():
        while conn.queue:
            is_last = len(conn.queue) == 1 and "_queue" in conn.queue[0].__qualname__
            if is_last and simulator.breaks(Defect.STUCK_AT_THE_END, 1.0):
                conn.queue.clear()
            simulator.arrive(conn)
    for _ in range(3):
        _guest(simulator)
    simulator.say(e.End(t=simulator.t()))
    for edge in EDGES:
        passed = not (edge == EDGES[1] and simulator.breaks(Defect.EDGE_STAYS_DEAD, 1.0))
        simulator.say(e.Probe(t=simulator.t(), edge=edge, passed=passed))
    _audit(simulator)


def _audit(simulator: Simulator) -> None:
    for file in simulator.files:
        if not simulator.breaks(Defect.FILE_LOST, 0.5):
            simulator.say(msgspec.structs.replace(file, t=simulator.t()))
    _lose(simulator)
    acknowledged = {(ok.room, ok.seq) for ok in simulator.acknowledged}
    for source in (*EDGES, "store"):
        for name, room in simulator.rooms.items():
            entries = [(seq, text.key, text.h, text.sender) for seq, text in enumerate(room.log, 1)]
            if source == EDGES[0]:
                if len(entries) > 1 and simulator.breaks(Defect.TWO_TRUTHS, 0.5):
                    entries = _swap_with_unknown(simulator, name, entries, acknowledged)
                unknown = [entry for entry in entries[:-1] if (name, entry[0]) not in acknowledged]
                if unknown and simulator.breaks(Defect.HISTORY_SKIPS, 1.0):
                    entries.remove(unknown[0])
            half = len(entries) // 2
            for part in (entries[:half], entries[half:]):
                simulator.say(e.Audit(t=simulator.t(), source=source, room=name, epoch=room.epoch, entries=part))


def _lose(simulator: Simulator) -> None:
    for name, room in simulator.rooms.items():
        lost = [ok.seq for ok in simulator.acknowledged if ok.room == name and ok.seq < len(room.log)]
        if lost and simulator.breaks(Defect.COMMIT_OVERWRITTEN, 0.5):
            room.log[simulator.dice.choice(lost) - 1] = _unknown_text(simulator, name)


def _unknown_text(simulator: Simulator, name: str) -> Text:
    """Something that was sent long ago and not answered."""
    key, h = f"~{simulator.serial()}", f"{simulator.serial():x}"
    about = {"t": 0.0, "c": "u1", "conn": "other", "room": name, "key": key, "h": h, "req": 1}
    simulator.history[:0] = [e.Invoke(**about), e.Info(**about, why="reset")]  # type: ignore[arg-type]
    return Text(key, h, "u1")


def _swap_with_unknown(
    simulator: Simulator, name: str, entries: list[tuple[int, str, str, str]], acknowledged: set[tuple[str, int]]
) -> list[tuple[int, str, str, str]]:
    """Another text that was sent (and whose fate nobody knows) stands where one was delivered."""
    free = [entry for entry in entries if (name, entry[0]) not in acknowledged]
    if not free:
        simulator.fired -= 1
        return entries
    text = _unknown_text(simulator, name)
    seq = free[0][0]
    return [(seq, text.key, text.h, text.sender) if entry[0] == seq else entry for entry in entries]
