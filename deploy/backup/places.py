"""Where an installation keeps what is worth keeping: told as the services are told, by a home, arguments, variables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import services
from deploy.local.failures import StartError
from services.common.db import PostgresAccess
from services.common.db.engines import sqlite_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deploy.local.layout import Layout
    from deploy.local.options import Server

# Accounts come last: a snapshot of them then knows everybody whom one of the rooms names.
SERVICES: Final = ("rooms", "auth")
_SOURCES: Final = Path(services.__path__[0])


@dataclass(frozen=True)
class Store:
    """The database of one service."""

    service: str
    url: str
    access: PostgresAccess

    @property
    def is_postgres(self) -> bool:
        """Otherwise it is SQLite."""
        return not self.url.startswith("sqlite")

    @property
    def kind(self) -> str:
        """As the manifest has it."""
        return "postgresql" if self.is_postgres else "sqlite"

    @property
    def path(self) -> Path:
        """SQLite's file."""
        return sqlite_path(self.url)

    @property
    def migrations(self) -> Path:
        """The revisions of its schema."""
        return _SOURCES / self.service / "migrations"


@dataclass(frozen=True)
class Places:
    """All of it. `certificates` hold the authorities, too."""

    stores: tuple[Store, ...]
    pepper: Path
    files: Path
    certificates: Path

    @property
    def contents(self) -> Path:
        """The contents of files, by their hash."""
        return self.files / "contents"


def find(layout: Layout, database: Server | None, environ: Mapping[str, str]) -> Places:
    """The places of a home; `database` as for `parley up`; what a service's own variables say goes before both.

    Raises StartError for a URL of something else.
    """
    stores = tuple(_store(service, layout, database, environ) for service in SERVICES)
    return Places(
        stores=stores,
        pepper=Path(environ.get("PARLEY_AUTH_PEPPER_FILE") or layout.pepper),
        files=Path(environ.get("PARLEY_ROOMS_FILES_DIR") or layout.data / "files"),
        certificates=layout.certificates,
    )


def _store(service: str, layout: Layout, database: Server | None, environ: Mapping[str, str]) -> Store:
    told = {"database_url": layout.database_url(service)} if database is None else database.settings("database")
    prefix = f"PARLEY_{service.upper()}_"
    told |= {
        key: environ[prefix + key.upper()]
        for key in ("database_url", "database_password_file", "database_ca_file")
        if environ.get(prefix + key.upper())
    }
    url = told["database_url"]
    if not url.startswith(("sqlite:///", "postgresql://", "postgresql+psycopg://")):
        raise StartError(f"{service}: the database is neither SQLite nor PostgreSQL")  # the URL may hold a password
    password, ca = told.get("database_password_file"), told.get("database_ca_file")
    access = PostgresAccess(
        schema=service,
        name="parley-backup",
        password_file=Path(password) if password else None,
        ca_file=Path(ca) if ca else None,
    )
    return Store(service, url, access)
