"""The checker: reads a log of events once, and says which of I1 to I16 it breaks, with a witness for each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.chaos.checker.continuity import Bookmarks, Continuity
from tests.chaos.checker.epochs import Epochs
from tests.chaos.checker.files import Files
from tests.chaos.checker.membership import Membership
from tests.chaos.checker.order import Order
from tests.chaos.checker.origin import Origin
from tests.chaos.checker.progress import Progress
from tests.chaos.checker.sessions import Sessions
from tests.chaos.checker.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.chaos.checker.violation import Concern, Violation
    from tests.chaos.events import AnyEvent

INVARIANTS = {
    "I1": "no loss",
    "I2": "no invention",
    "I3": "no aborted read",
    "I4": "stored at most once",
    "I5": "agreement",
    "I6": "gapless",
    "I7": "continuity on a connection",
    "I8": "continuity through resumes",
    "I9": "sender order",
    "I10": "real time",
    "I11": "membership",
    "I12": "progress",
    "I13": "a restored database is a new epoch",
    "I14": "files",
    "I15": "bookmarks",
    "I16": "sessions",
}

KEPT_MAX = 20
"""Violations of one invariant that are kept with their witnesses; the others are only counted."""


@dataclass
class Verdict:
    """What was found, and how much was looked at."""

    violations: list[Violation] = field(default_factory=list)
    found: Counter[str] = field(default_factory=Counter)  # by invariant
    seen: Counter[str] = field(default_factory=Counter)  # events by kind
    faults: Counter[str] = field(default_factory=Counter)  # by kind
    duplicates: int = 0  # acknowledgements that named an earlier send
    recovered: int = 0  # resumes of a room that replayed what was missed
    audited: int = 0  # entries over all sources

    @property
    def is_kept(self) -> bool:
        """Whether the promise was kept."""
        return not self.found

    def note(self, violations: Iterable[Violation]) -> None:
        """Counts what was found."""
        for violation in violations:
            self.found[violation.invariant] += 1
            if self.found[violation.invariant] <= KEPT_MAX:
                self.violations.append(violation)


def check(events: Iterable[AnyEvent]) -> Verdict:
    """Judges a history in one pass. Memory grows with the messages that were sent, not with their deliveries."""
    verdict = Verdict()
    concerns: list[Concern] = [
        Storage(), Origin(), Continuity(), Bookmarks(), Order(), Membership(), Progress(), Epochs(), Files(),
        Sessions(),
    ]  # fmt: skip
    for event in events:
        _count(verdict, event)
        for concern in concerns:
            verdict.note(concern.see(event))
    for concern in concerns:
        verdict.note(concern.end())
    return verdict


def _count(verdict: Verdict, event: AnyEvent) -> None:
    kind = type(event).__name__
    verdict.seen[kind] += 1
    if kind == "Fault":
        verdict.faults[getattr(event, "kind")] += 1  # noqa: B009 -- of this kind only
    elif kind == "Ok":
        verdict.duplicates += getattr(event, "duplicate")  # noqa: B009
    elif kind == "ResumeOk":
        verdict.recovered += getattr(event, "recovered")  # noqa: B009
    elif kind == "Audit":
        verdict.audited += len(getattr(event, "entries"))  # noqa: B009
