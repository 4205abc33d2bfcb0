"""The directory: every connection of this edge by number, and the logged-in ones by session and by user."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Generic, Protocol, TypeVar

from services.edge.decisions import User

_EARLY_MAX: Final = 1_000  # ends of sessions that are still arriving; most stand for sessions that ended here already


class Listed(Protocol):
    """What the directory knows a connection by."""

    @property
    def id(self) -> int:
        """Counts up from 1 within one run of the edge."""
        ...


C = TypeVar("C", bound=Listed)


class Directory(Generic[C]):
    """Who is connected.

    A session may be ended by another login while rooms is still being told of it, before it is anybody's here. Such an
    end is kept (`ended_early`) and told to `on_early_end(session_id, reason)` when the session's connection logs in.
    """

    def __init__(self, on_early_end: Callable[[str, str], object] = lambda _session_id, _reason: None) -> None:
        self._on_early_end = on_early_end
        self._early: dict[str, str] = {}  # oldest first
        self._by_id: dict[int, C] = {}  # oldest first
        self._by_session: dict[str, tuple[User, C]] = {}
        self.open_count = 0  # transports that have not ended yet; their connections may have been told goodbye

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[C]:
        return iter(list(self._by_id.values()))

    @property
    def session_count(self) -> int:
        """How many are logged in."""
        return len(self._by_session)

    @property
    def session_ids(self) -> list[str]:
        """The sessions of those who are logged in."""
        return list(self._by_session)

    def sessions(self) -> Iterable[tuple[User, C]]:
        """Who is logged in, with their connections."""
        return self._by_session.values()

    def add(self, connection: C) -> None:
        """A connection is open."""
        self._by_id[connection.id] = connection

    def remove(self, connection: C) -> None:
        """A connection has ended; it was logged out before. Idempotent."""
        self._by_id.pop(connection.id, None)

    def log_in(self, user: User, connection: C) -> None:
        """A connection is a user's from now on."""
        self._by_session[user.session_id] = (user, connection)
        reason = self._early.pop(user.session_id, None)
        if reason is not None:
            self._on_early_end(user.session_id, reason)

    def ended_early(self, session_id: str, reason: str) -> None:
        """A session that nobody has here yet was ended."""
        self._early[session_id] = reason
        if len(self._early) > _EARLY_MAX:
            del self._early[next(iter(self._early))]

    def log_out(self, user: User) -> None:
        """A session has ended. Idempotent."""
        self._by_session.pop(user.session_id, None)

    def get(self, connection_id: int) -> C | None:
        """The connection of this number."""
        return self._by_id.get(connection_id)

    def of_session(self, session_id: str) -> C | None:
        """The connection of this session."""
        found = self._by_session.get(session_id)
        return None if found is None else found[1]

    def page(self, *, after: int, size: int) -> list[C]:
        """Up to `size` connections with numbers above `after`, oldest first."""
        return [connection for number, connection in self._by_id.items() if number > after][:size]
