"""Installations to back up and to restore."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.deploy.backup.installation import Installation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.postgres import PostgresServer


@pytest.fixture(params=["sqlite", "postgresql"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Installation]:
    """Makes empty installations of one kind."""
    numbers = iter(range(9))

    def make_one() -> Installation:
        url = None
        if request.param == "postgresql":
            server: PostgresServer = request.getfixturevalue("postgres_server")
            url = server.make_database()
        return Installation(tmp_path / f"home{next(numbers)}", url)

    return make_one


@pytest.fixture
def old(tmp_path: Path) -> Installation:
    """One on SQLite, with something in it."""
    return Installation(tmp_path / "old").fill()
