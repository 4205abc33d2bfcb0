"""What instances tell each other about who is here: what an edge has said to one of them, so that all of them know it.

Every instance keeps the presence of the whole installation in memory. An edge says hello, with everyone who is
connected to it, to each instance; what happens later it says to one of them, which passes it on. Nothing of this is
stored anywhere: a lease that nobody renews runs out, and after a loss the edges say again who is here.
"""

from __future__ import annotations

from typing import Final

import msgspec

from services.rooms.presence import Session

LEASE_S: Final = 6.0
"""How long a boot counts as attached to another instance since that was said last: three renewals may be lost."""

RENEW_S: Final = 2.0


class Opened(msgspec.Struct, tag="opened", array_like=True, frozen=True):
    """A person is connected, and present in these rooms."""

    session: Session
    room_ids: list[str]


class Entered(msgspec.Struct, tag="entered", array_like=True, frozen=True):
    """A session is present in a room."""

    session: Session
    room_id: str
    is_exclusive: bool
    is_newcomer: bool


class Closed(msgspec.Struct, tag="closed", array_like=True, frozen=True):
    """Connections have ended."""

    session_ids: list[str]


class Attached(msgspec.Struct, tag="attached", array_like=True, frozen=True):
    """These runs of edges, each with the name of its edge, have a stream to the instance that says so: a lease."""

    boots: list[tuple[str, str]]


class Asked(msgspec.Struct, tag="asked", array_like=True, frozen=True):
    """An instance does not know who is connected to edges that it has no stream of; these it has one of."""

    boot_ids: list[str]


class Announced(msgspec.Struct, tag="announced", array_like=True, frozen=True):
    """Everyone who is connected to that run of an edge, and where. The answer to `Asked`."""

    boot_id: str
    edge_name: str
    sessions: list[tuple[Session, list[str]]]


News = Opened | Entered | Closed | Attached | Asked | Announced
