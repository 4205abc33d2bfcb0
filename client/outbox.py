"""Texts that wait to be acknowledged: in order, each under its key, sent again until the server says what became of it.

The server stores a key once, so sending again is always safe. Within a room the order is the order in which the texts
were written. Each says whether it follows one that has no answer yet: when that is turned away, the server turns away
all that follow it. Then the first of that room goes out alone, and each one that is stored lets one more go with it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container
from dataclasses import dataclass, field

from client.errors import OutboxFullError, RequestError

TEXTS_MAX = 1000
"""Texts that may wait; a person never gets there, and a program that does has to wait for acknowledgements."""

WINDOW = 64
"""Texts of one room on their way at a time: enough to fill the server's batches, little to send again after a loss."""

REFUSALS_MAX = 10
"""How often one text is offered again after the server turned it away before it is given up."""

FIRST_WAIT_S = 0.5
LARGEST_WAIT_S = 10.0
"""Waits between two offers of one text where the server names none."""

WORTH_RETRYING = frozenset({"rate_limited", "overloaded", "unavailable", "unknown_outcome"})
"""Codes that say nothing against the text itself; the protocol allows to send it again under its key."""

TOO_FAST = "rate_limited"
"""The user sends too much: nothing is wrong with a text that only has to wait, however often it is told so."""

PACED_WINDOW = 4
"""Texts on their way in a room of somebody who was told so: what is too much is turned away, and was sent in vain."""


@dataclass
class Text:
    """A text on its way. `follows`: one in front of it had no answer yet when this one was sent.

    `turn` is the lane's when it was sent.
    """

    key: str
    room_id: str
    text: str
    is_in_flight: bool = False
    refusals: int = 0
    follows: bool = False
    turn: int = 0


@dataclass
class _Lane:
    texts: OrderedDict[str, Text] = field(default_factory=OrderedDict)
    not_before: float = 0.0
    window: int = WINDOW
    window_max: int = WINDOW
    turn: int = 0  # counts the refusals


class Outbox:
    """All unacknowledged texts, by room. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._room_of: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._room_of)

    def add(self, *, key: str, room_id: str, text: str) -> None:
        """Takes a text. Raises OutboxFullError."""
        if len(self) >= TEXTS_MAX:
            raise OutboxFullError(f"{TEXTS_MAX} messages wait to be acknowledged; try again when some are.")
        self._room_of[key] = room_id
        self._lanes.setdefault(room_id, _Lane()).texts[key] = Text(key, room_id, text)

    def take_due(self, now: float) -> list[Text]:
        """The texts that are to be sent now; they count as on their way from here on."""
        due = []
        for lane in self._lanes.values():
            if lane.not_before > now:
                continue
            for index, text in enumerate(lane.texts.values()):
                if index >= lane.window:
                    break
                if text.is_in_flight:
                    if text.turn != lane.turn:
                        break  # the server may turn it away yet, with what was refused: nothing may overtake it
                    continue
                text.is_in_flight, text.turn = True, lane.turn
                text.follows = index > 0
                due.append(text)
        return due

    def next_due(self, now: float) -> float | None:
        """When a lane that has to wait may go on, or None where none waits."""
        return min((lane.not_before for lane in self._lanes.values() if lane.not_before > now), default=None)

    def acknowledge(self, key: str) -> Text | None:
        """A text is stored."""
        text = self._remove(key)
        if text is not None and (lane := self._lanes.get(text.room_id)) is not None:
            lane.window = min(lane.window + 1, lane.window_max)
        return text

    def refuse(self, key: str, error: RequestError, now: float) -> Text | None:
        """The server turned a text away. Returns it where that is final, None where it will be sent again."""
        room_id = self._room_of.get(key)
        if room_id is None:
            return None
        lane = self._lanes[room_id]
        text = lane.texts[key]
        lane.turn += 1
        if error.code == TOO_FAST:
            text.is_in_flight = False
            lane.window, lane.window_max = 1, PACED_WINDOW
            # All rooms draw on one allowance: what the others send meanwhile would only be turned away too.
            go_on_at = now + max(FIRST_WAIT_S, error.retry_after_s or 0.0)
            for each in self._lanes.values():
                each.not_before = max(each.not_before, go_on_at)
            return None
        if text is next(iter(lane.texts.values())):
            text.refusals += 1  # the others were not tried: they only came behind it
        if error.code not in WORTH_RETRYING or text.refusals > REFUSALS_MAX:
            return self._remove(key)
        text.is_in_flight = False
        wait_s = error.retry_after_s
        if wait_s is None:
            wait_s = min(LARGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** max(0, text.refusals - 1))
        lane.not_before = max(lane.not_before, now + wait_s)
        lane.window = 1
        return None

    def disconnect(self) -> None:
        """The connection is gone: whatever was on its way may have been lost and will be sent again."""
        for lane in self._lanes.values():
            lane.not_before = 0.0
            for text in lane.texts.values():
                text.is_in_flight = False

    def clear(self, room_id: str | None = None, *, keys: Container[str] | None = None) -> list[Text]:
        """Gives up on everything, or on one room, or on some keys; returns what was not acknowledged."""
        given_up = [
            text
            for lane in self._lanes.values()
            for text in lane.texts.values()
            if room_id in (None, text.room_id) and (keys is None or text.key in keys)
        ]
        for text in given_up:
            self._remove(text.key)
        return given_up

    def _remove(self, key: str) -> Text | None:
        room_id = self._room_of.pop(key, None)
        if room_id is None:
            return None
        lane = self._lanes[room_id]
        text = lane.texts.pop(key)
        if not lane.texts:
            del self._lanes[room_id]  # and with it the memory of having been turned away
        return text
