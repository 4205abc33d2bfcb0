"""Token buckets: how often something may happen, on average and at once.

A bucket holds up to `burst` tokens and gains `rate` of them a second; each event takes one. Only the moment is stored
at which the bucket will be full again (the "generic cell rate algorithm" of ATM Forum TM 4.0), so an idle bucket
costs nothing and nothing has to be refilled.
"""

from __future__ import annotations


class TokenBucket:
    """One bucket, full at first. A rate of 0 means no limit."""

    __slots__ = ("_full_at", "_interval", "_slack")

    def __init__(self, *, rate: float, burst: int) -> None:
        self._interval = 1.0 / rate if rate > 0 else 0.0
        self._slack = self._interval * max(0, burst - 1)
        self._full_at = 0.0

    def take(self, now: float) -> float:
        """Take a token. Returns 0, or how many seconds to wait for the next one."""
        full_at = self._full_at
        if full_at <= now:
            self._full_at = now + self._interval
            return 0.0
        if full_at - now <= self._slack + 1e-9:  # a client that waits as long as it was told must get in
            self._full_at = full_at + self._interval
            return 0.0
        return full_at - now - self._slack

    def is_full(self, now: float) -> bool:
        """Whether a new bucket would be no different."""
        return self._full_at <= now


class UserBuckets:
    """A bucket per user, which outlives their connection: logging in again buys no new burst."""

    def __init__(self, *, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: dict[str, TokenBucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def of(self, user_id: str) -> TokenBucket:
        """The user's bucket."""
        bucket = self._buckets.get(user_id)
        if bucket is None:
            bucket = self._buckets[user_id] = TokenBucket(rate=self._rate, burst=self._burst)
        return bucket

    def release(self, user_id: str, now: float) -> None:
        """Forget the user's bucket if it is full; called when a connection has ended."""
        bucket = self._buckets.get(user_id)
        if bucket is not None and bucket.is_full(now):
            del self._buckets[user_id]

    def sweep(self, now: float) -> None:
        """Forget every full bucket. A bucket in use that is forgotten while full loses nothing."""
        for user_id in [user_id for user_id, bucket in self._buckets.items() if bucket.is_full(now)]:
            del self._buckets[user_id]
