"""Configuration of the auth service: table `[auth]`, variables `PARLEY_AUTH_…`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.auth.passwords import ROUNDS_MAX, ROUNDS_MIN
from services.auth.sessions import SessionPolicy
from services.auth.spare_time import ROUNDS_MIN as SPARE_TIME_ROUNDS_MIN
from services.auth.throttle import ThrottlePolicy
from services.common.config import ServiceConfig
from services.common.db import PostgresAccess
from services.common.redis_client import RedisAccess

if TYPE_CHECKING:
    from pathlib import Path

_LEASE_S_MIN = 1.0  # below it the sweep's own second would matter
_WORKERS_MAX = 64
_ASSERTION_S_MIN = 30.0  # edges look every few seconds which to renew


@dataclass(frozen=True, kw_only=True)
class AuthConfig(ServiceConfig):
    """What the auth service is told beyond `ServiceConfig`."""

    # Empty: SQLite in `home`/data/auth.db. PostgreSQL keeps it in the schema `auth`.
    database_url: str = ""
    # For PostgreSQL: its password, and the CA by which it must prove itself.
    database_password_file: Path | None = None
    database_ca_file: Path | None = None
    # Redis, by which several instances on one database tell each other which sessions have ended, and count failed
    # logins together: `redis://…` or `rediss://…`. One instance needs none.
    redis_url: str | None = field(default=None, repr=False)
    redis_password_file: Path | None = None
    redis_ca_file: Path | None = None
    # Without a value: `home`/data/auth-pepper. Made at the first start, while there are no accounts yet.
    pepper_file: Path | None = None
    # Ed25519, in PEM: the key that signs assertions of sessions, and the public keys with which they are verified.
    # Without a value: `home`/certificates/assertion-key.pem and assertion-public.pem.
    assertion_key_file: Path | None = None
    assertion_keys_file: Path | None = None
    # How long an assertion is good; edges renew it at half of that.
    assertion_ttl_s: float = 900.0
    # 2 to the power of this: 12 takes about 240 ms of CPU.
    bcrypt_rounds: int = 12
    # Threads that hash; 0 is one for each CPU but one, so that a storm of logins leaves chat a CPU: with both of two
    # hashing, chat's 99th percentile was 2.1 to 2.7 times what it is at rest, with one of them 1.25 times.
    hash_workers: int = 0
    # Logins and registrations that may wait for these; at 240 ms each, one thread serves this many in a minute.
    hash_queue_max: int = 256
    # Off for load tests only: then neither guesses nor registrations are limited.
    throttle: bool = True
    # New accounts from one address: so many at once, then one an interval.
    registration_burst: int = 256
    registration_interval_s: float = 2.0
    # How long an edge may stay silent before its sessions end.
    lease_s: float = 15.0
    # How long a token serves after its connection ended; the protocol says 10 minutes.
    token_ttl_s: float = 600.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not ROUNDS_MIN <= self.bcrypt_rounds <= ROUNDS_MAX:
            raise ValueError(f"bcrypt_rounds: {ROUNDS_MIN} to {ROUNDS_MAX}, not {self.bcrypt_rounds}")
        if not 0 <= self.hash_workers <= _WORKERS_MAX:
            raise ValueError(f"hash_workers: 0 to {_WORKERS_MAX}, not {self.hash_workers}")
        if self.hash_queue_max < 1:
            raise ValueError("hash_queue_max: at least 1")
        if self.registration_burst < 1:
            raise ValueError("registration_burst: at least 1; without registrations there are no accounts")
        if self.registration_interval_s <= 0:
            raise ValueError("registration_interval_s: must be above 0")
        if self.lease_s < _LEASE_S_MIN:
            raise ValueError(f"lease_s: at least {_LEASE_S_MIN:g}")
        self.storage_access.arguments()  # reads the password
        if self.redis_access is not None:
            self.redis_access.arguments()  # reads the password
        if self.assertion_ttl_s < _ASSERTION_S_MIN:
            raise ValueError(f"assertion_ttl_s: at least {_ASSERTION_S_MIN:g}")
        if self.token_ttl_s < 0:
            raise ValueError("token_ttl_s: must not be negative")

    @property
    def storage_url(self) -> str:
        """Where the accounts are."""
        return self.database_url or f"sqlite:///{self.home / 'data' / 'auth.db'}"

    @property
    def storage_access(self) -> PostgresAccess:
        """What a URL of PostgreSQL leaves out."""
        return PostgresAccess(
            schema="auth", name=self.name, password_file=self.database_password_file, ca_file=self.database_ca_file
        )

    @property
    def redis_access(self) -> RedisAccess | None:
        """Where Redis is; None without one."""
        if self.redis_url is None:
            return None
        return RedisAccess(
            url=self.redis_url, name=self.name, password_file=self.redis_password_file, ca_file=self.redis_ca_file
        )

    @property
    def pepper_path(self) -> Path:
        """Where the pepper is."""
        return self.pepper_file or self.home / "data" / "auth-pepper"

    @property
    def assertion_key_path(self) -> Path:
        """Where the key is that signs assertions."""
        return self.assertion_key_file or self.home / "certificates" / "assertion-key.pem"

    @property
    def assertion_keys_path(self) -> Path:
        """Where the keys are that verify them."""
        return self.assertion_keys_file or self.home / "certificates" / "assertion-public.pem"

    @property
    def session_policy(self) -> SessionPolicy:
        """How long sessions, leases and tokens live."""
        return SessionPolicy(lease_s=self.lease_s, token_ttl_s=self.token_ttl_s)

    @property
    def throttle_policy(self) -> ThrottlePolicy:
        """How fast passwords, accounts and tokens may be tried."""
        return ThrottlePolicy(
            registration_burst=self.registration_burst, registration_interval_s=self.registration_interval_s
        )

    @property
    def spare_time_processes(self) -> int:
        """How many processes hash in spare time: one for each thread, or none where a hash is soon done."""
        return self.hash_thread_count if self.bcrypt_rounds >= SPARE_TIME_ROUNDS_MIN else 0

    @property
    def hash_thread_count(self) -> int:
        """How many threads hash."""
        return self.hash_workers or max(1, (os.cpu_count() or 1) - 1)
