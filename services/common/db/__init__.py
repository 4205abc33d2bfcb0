"""Storage for a service: `Database` (one writer thread with group commit, reader threads) and `migrate`."""

from __future__ import annotations

from services.common.db.database import Database
from services.common.db.migrations import migrate
from services.common.db.postgres import PostgresAccess
from services.common.db.writer import Writer

__all__ = ["Database", "PostgresAccess", "Writer", "migrate"]
