"""Runs: texts that were sent one behind the other, without waiting for answers, and stay in that order. Pure.

A client that has many texts under way must not see the third one stored when the second was turned away for the
moment and comes again. So a text may say that it follows another one that has no answer yet; all that follow each
other are one run, and when one of them is turned away, nothing of the run that comes behind it is taken any more,
wherever it is by then. The client knows that it has to begin anew, and begins a new run with what was turned away.
"""

from __future__ import annotations

from typing import Final

import msgspec

from services.common.wire.codes import ErrorCode

RUNS_MAX: Final = 512
"""Rooms of one connection with a run: as many as a person may be a member of, and no more than 100 KB."""

CUT_OFF: Final = "a message in front of this one was not taken; send that one again first"

AGAIN: Final = frozenset(
    {ErrorCode.OVERLOADED, ErrorCode.RATE_LIMITED, ErrorCode.UNAVAILABLE, ErrorCode.UNKNOWN_OUTCOME}
)
"""Codes after which the same text may well be sent again. After others it is not, and nothing waits for it."""


class Run(msgspec.Struct, gc=False):
    """One run. `code` says why a text of it was turned away, `retry_after_s` what its sender was told."""

    code: ErrorCode | None = None
    retry_after_s: float | None = None
    length: int = 0
    intact: int = 0  # so many texts are in front of the first that was turned away, where one was

    def add(self) -> int:
        """Another text; returns its place in the run."""
        self.length += 1
        return self.length - 1

    def turn_away(self, place: int, code: ErrorCode, retry_after_s: float | None) -> None:
        """The text at a place was refused with this code."""
        if code not in AGAIN or (self.code is not None and place >= self.intact):
            return
        # What came behind was never tried: of that, at least, the outcome is known.
        self.code = ErrorCode.UNAVAILABLE if code is ErrorCode.UNKNOWN_OUTCOME else code
        self.retry_after_s = retry_after_s
        self.intact = place

    def is_cut_off(self, place: int) -> bool:
        """Whether a text in front of this place was turned away."""
        return self.code is not None and place > self.intact


class Runs:
    """The latest run in each room of one connection."""

    __slots__ = ("_by_room",)

    def __init__(self) -> None:
        self._by_room: dict[str, Run] = {}

    def of(self, room_id: str, *, follows: bool) -> Run:
        """The run of the next text to a room: the latest one where the text follows another, else a new one."""
        by_room = self._by_room
        run = by_room.get(room_id) if follows else None
        if run is None:
            if len(by_room) >= RUNS_MAX:
                by_room.clear()  # who writes to so many rooms at once is not a person
            run = by_room[room_id] = Run()
        return run
