"""The bus: how what happens in rooms reaches the streams of all edges.

The bus only wakes. It may lose events, so nobody may rely on it for completeness: messages are numbered, and who sees a
jump reads the gap from the log. It keeps the order of what one publisher publishes.

What happens here is heard here as it is; elsewhere a stored run is heard as a position (`Reached`), because rooms are
followed where they are written to as a rule, and the log has the messages anyway.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from services.common.logs import get_logger
from services.rooms.messages import Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.common.tasks import TaskSet
    from services.rooms.presence import Change
    from services.rooms.presence_news import News

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PresenceChanged:
    """People came, went, joined or left; see presence. Each instance works it out for its own streams."""

    changes: Sequence[Change]


@dataclass(frozen=True, slots=True)
class PresenceTold:
    """What an edge has told another instance about who is here."""

    news: News


@dataclass(frozen=True, slots=True)
class MembershipEnded:
    """Somebody is no longer a member; `last_seq` is the room's newest message then.

    `except_boot_id` names the edge that asked for it and has drawn the conclusion already: for that edge the event
    could come after the person has joined again, and would then undo that. `number` is that of its row in the
    database, by which one that is heard twice is known.
    """

    room_id: str
    user_id: str
    last_seq: int
    except_boot_id: str = ""
    username: str = ""
    number: int = 0


@dataclass(frozen=True, slots=True)
class Reached:
    """Another instance has stored messages: the room's log goes up to `last_seq`, at least."""

    room_id: str
    epoch: str
    last_seq: int


@dataclass(frozen=True, slots=True)
class Lost:
    """Events of other instances may have been lost: whoever keeps something by them must see to it otherwise."""


Event = Run | Reached | PresenceChanged | PresenceTold | MembershipEnded | Lost
Listener = Callable[[Event], None]


class Bus(Protocol):
    """Carries events between those who make them and the streams, of this instance and of others."""

    @property
    def is_shared(self) -> bool:
        """Whether there may be other instances."""
        ...

    @property
    def is_up(self) -> bool:
        """Whether events of other instances can be expected to arrive."""
        ...

    def start(self, tasks: TaskSet) -> None:
        """Begins to carry events to other instances and from them."""
        ...

    async def close(self) -> None:
        """Ends; the tasks have ended before."""
        ...

    def publish(self, event: Run | MembershipEnded) -> None:
        """Sends an event to all listeners, here and elsewhere. Never waits, never raises."""
        ...

    def deliver(self, event: Event) -> None:
        """Sends an event to the listeners of this instance only. Never waits, never raises."""
        ...

    def send(self, event: PresenceTold) -> None:
        """Sends an event to the listeners of all other instances. Never waits, never raises."""
        ...

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Calls `listener`, which must not wait, with each event from now on; call what this returns to end that."""
        ...


class LocalBus:
    """The bus of an installation with one rooms instance: a loop over its listeners."""

    is_shared = False
    is_up = True

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._waiting: deque[Event] = deque()
        self._is_delivering = False

    def start(self, tasks: TaskSet) -> None:
        """There is nothing to start."""

    async def close(self) -> None:
        """There is nothing to close."""

    def publish(self, event: Run | MembershipEnded) -> None:
        """As deliver: there is no other instance."""
        self.deliver(event)

    def send(self, event: PresenceTold) -> None:
        """There is nobody to send it to."""

    def deliver(self, event: Event) -> None:
        """Calls the listeners. An event that a listener publishes comes after the one that it was called with."""
        self._waiting.append(event)
        if self._is_delivering:
            return
        self._is_delivering = True
        try:
            while self._waiting:
                self._call(self._waiting.popleft())
        finally:
            self._is_delivering = False

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Adds a listener; returns the function that takes it away."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

    def _call(self, event: Event) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception as error:  # noqa: BLE001 - one listener's defect must not silence the others
                _log.error("listener of the bus failed", kind=type(event).__name__, exc_info=error)
