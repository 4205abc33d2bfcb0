"""What a person reads at the end: counts, faults, and every violation with its witness."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos.checker import INVARIANTS, Verdict

if TYPE_CHECKING:
    from collections import Counter

    from tests.chaos.run import Outcome

TOP = 8


def of_verdict(verdict: Verdict) -> str:
    """What was seen and what is wrong with it."""
    seen = verdict.seen
    acknowledged = f"{seen['Ok']} ({verdict.duplicates} of them said to be known)"
    rows = {
        "sends": f"{seen['Invoke']}: acknowledged {acknowledged}, refused {seen['Fail']}, unknown {seen['Info']}",
        "deliveries": str(seen["Deliver"]),
        "connections": f"{seen['Open']}, lost {seen['Close']}",
        "resumes of rooms": f"{seen['ResumeOk']} ({verdict.recovered} recovered)",
        "joins, leaves, kicks": f"{seen['JoinOk']}, {seen['LeaveOk']}, {seen['KickOk']}",
        "heartbeat bookmarks": str(seen["Bookmark"]),
        "files": f"{seen['FileOk']} sent, {seen['FileRecv']} received",
        "sessions": f"{seen['LogOut']} logouts, {seen['Race']} races, {seen['DeadToken']} dead tokens shown",
        "faults": counts(verdict.faults) or "none",
        "audited": f"{verdict.audited} messages in {seen['Audit']} parts",
    }
    lines = [f"{name:<22}{value}" for name, value in rows.items()]
    for invariant, name in INVARIANTS.items():
        count = verdict.found[invariant]
        lines.append(f"{invariant:<5}{name:<36}{'holds' if not count else f'BROKEN, {count} times'}")
    lines += [str(violation) for violation in verdict.violations]
    return "\n".join(lines)


def of_outcome(outcome: Outcome) -> str:
    """The same, with what only the run itself knows."""
    lines = [
        of_verdict(outcome.verdict),
        f"refusals              {counts(outcome.refusals) or 'none'}",
        f"connections lost to   {counts(outcome.losses) or 'nothing'}",
        f"took                  {outcome.took_s:.1f} s, {outcome.cpu_s:.1f} s of CPU here; seed {outcome.plan.seed}",
    ]
    lines += [f"mistake of this program: {mistake}" for mistake in outcome.mistakes[:TOP]]
    return "\n".join(lines)


def as_json(outcome: Outcome) -> dict[str, object]:
    """The counts of a run, for programs."""
    verdict = outcome.verdict
    return {
        "seed": outcome.plan.seed,
        "seconds": outcome.plan.seconds,
        "good": outcome.is_good,
        "sends": verdict.seen["Invoke"],
        "acknowledged": verdict.seen["Ok"],
        "unknown": verdict.seen["Info"],
        "deliveries": verdict.seen["Deliver"],
        "resumes": verdict.recovered,
        "files": verdict.seen["FileOk"],
        "files_received": verdict.seen["FileRecv"],
        "logouts": verdict.seen["LogOut"],
        "races": verdict.seen["Race"],
        "faults": dict(verdict.faults),
        "violations": dict(verdict.found),
        "mistakes": outcome.mistakes,
        "acknowledged_again_s": outcome.recovery.acknowledged,
        "back_s": outcome.recovery.back,
        "took_s": round(outcome.took_s, 1),
    }


def counts(counter: Counter[str]) -> str:
    """The most frequent, with how often."""
    return ", ".join(f"{name} {count}" for name, count in counter.most_common(TOP))
