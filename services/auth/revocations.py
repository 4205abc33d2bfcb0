"""Revocations: tells the edges, as it happens, which of their sessions have ended without their asking.

A subscription is one open stream of one edge boot. Its queue is bounded; where an edge does not keep up, or opens too
many streams, the subscription is closed, the edge opens a new one and asks RenewLease what it has missed. So nothing
here needs to be remembered: losing a revocation costs at most one renewal interval.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.common.tasks import TaskSet

WAITING_MAX = 10_000  # more than an edge holds connections; beyond it the edge is gone or stuck
STREAMS_PER_EDGE_MAX = 4  # one is in use, one may replace it while the old one is not yet known to be dead
MESSAGE_MAX = 1_000  # revocations in one message: 60 KB, far below what gRPC takes


class EndReason(StrEnum):
    """Why a session ended, as the client is told in `goodbye`."""

    REVOKED = "revoked"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class EdgeBoot:
    """One run of one edge process."""

    name: str
    boot_id: str


@dataclass(frozen=True, slots=True)
class EndedSession:
    """A session that was open until now, and the edge boot that holds its connection."""

    session_id: str
    edge: EdgeBoot


@dataclass(frozen=True, slots=True)
class Revocation:
    """The end of one session."""

    session_id: str
    reason: EndReason


class Subscription:
    """One edge's queue of revocations. Made by `Revocations.subscribe`, read by one task."""

    def __init__(self) -> None:
        self._waiting: list[Revocation] = []
        self._changed = asyncio.Event()
        self._is_closed = False

    def push(self, revocations: list[Revocation]) -> None:
        """Queues, or closes the subscription where that is too much."""
        if len(self._waiting) + len(revocations) > WAITING_MAX:
            self._waiting.clear()
            self._is_closed = True
        elif not self._is_closed:
            self._waiting += revocations
        self._changed.set()

    def close(self) -> None:
        """Ends the stream once what is queued has been read."""
        self._is_closed = True
        self._changed.set()

    async def read(self) -> list[Revocation]:
        """One or more revocations, in order; empty when the subscription was closed."""
        while not self._waiting and not self._is_closed:
            self._changed.clear()
            await self._changed.wait()
        batch, self._waiting = self._waiting[:MESSAGE_MAX], self._waiting[MESSAGE_MAX:]
        return batch


class Revocations:
    """Fans revocations out to the subscriptions of the boot that each session belongs to."""

    def __init__(self) -> None:
        self._subscriptions: dict[EdgeBoot, list[Subscription]] = {}
        self._is_closed = False

    @property
    def lease_s_max(self) -> float:
        """For how long an edge may go without asking which of its sessions are alive, three times over: for ever, as
        it hears of every end."""
        return float("inf")

    def start(self, tasks: TaskSet) -> None:
        """Nothing has to run for those of one process."""

    def ask_again(self) -> None:
        """Ends all streams, because something may have been missed: an edge opens another, and asks."""
        for streams in self._subscriptions.values():
            for subscription in streams:
                subscription.close()

    def subscribe(self, edge: EdgeBoot) -> Subscription:
        """A new subscription; the edge's oldest ends where it has too many. Give it back with `unsubscribe`."""
        subscription = Subscription()
        if self._is_closed:
            subscription.close()
        streams = self._subscriptions.setdefault(edge, [])
        streams.append(subscription)
        if len(streams) > STREAMS_PER_EDGE_MAX:
            streams.pop(0).close()
        return subscription

    def unsubscribe(self, edge: EdgeBoot, subscription: Subscription) -> None:
        """Forgets a subscription. Idempotent."""
        streams = self._subscriptions.get(edge, [])
        if subscription in streams:
            streams.remove(subscription)
        if not streams:
            self._subscriptions.pop(edge, None)

    def publish(self, ended: Iterable[EndedSession], reason: EndReason) -> None:
        """Tells whoever is subscribed for the boots of these sessions."""
        by_edge: dict[EdgeBoot, list[Revocation]] = {}
        for session in ended:
            by_edge.setdefault(session.edge, []).append(Revocation(session.session_id, reason))
        for edge, revocations in by_edge.items():
            for subscription in self._subscriptions.get(edge, ()):
                subscription.push(revocations)

    def close(self) -> None:
        """Ends all streams: the service stops."""
        self._is_closed = True
        self.ask_again()
