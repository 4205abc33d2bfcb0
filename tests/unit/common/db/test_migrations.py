from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from services.common.db import migrate
from services.common.db.migrations import MigrationError
from services.common.errors import ParleyError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

HEADER = """
from alembic import op
import sqlalchemy as sa
revision = {revision!r}
down_revision = {down!r}
def upgrade():
"""
ONE = "    op.create_table('a', sa.Column('x', sa.Integer))\n    op.execute('INSERT INTO a VALUES (1)')\n"
TWO = "    op.add_column('a', sa.Column('y', sa.Integer))\n"
BROKEN = "    op.create_table('half', sa.Column('x', sa.Integer))\n    raise RuntimeError('broken')\n"


def revisions(directory: Path, bodies: Iterable[str]) -> Path:
    (directory / "versions").mkdir(parents=True, exist_ok=True)
    for number, body in enumerate(bodies, 1):
        header = HEADER.format(revision=f"{number:04}", down=f"{number - 1:04}" if number > 1 else None)
        (directory / "versions" / f"{number:04}_test.py").write_text(header + body)
    return directory


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/data/t.db"


def schema(url: str) -> dict[str, list[str]]:
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")]
    found = {table: [row[1] for row in connection.execute(f"PRAGMA table_info({table})")] for table in tables}
    connection.close()
    return found


def test_a_new_database_gets_everything_and_an_older_one_what_it_lacks(tmp_path: Path, url: str) -> None:
    directory = tmp_path / "100% mine: a b"
    migrate(url, revisions(directory, [ONE]))
    assert schema(url) == {"a": ["x"], "alembic_version": ["version_num"]}
    migrate(url, revisions(directory, [ONE, TWO]))
    assert schema(url)["a"] == ["x", "y"]
    migrate(url, directory)
    assert schema(url)["a"] == ["x", "y"]


def test_a_revision_that_fails_leaves_nothing_half_done(tmp_path: Path, url: str) -> None:
    with pytest.raises(RuntimeError, match="broken"):
        migrate(url, revisions(tmp_path, [ONE, BROKEN]))
    assert schema(url) == {}
    migrate(url, revisions(tmp_path, [ONE, TWO]))
    assert schema(url)["a"] == ["x", "y"]


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path, url: str) -> None:
    migrate(url, revisions(tmp_path / "new", [ONE, TWO]))
    with pytest.raises(MigrationError, match="0002"):
        migrate(url, revisions(tmp_path / "old", [ONE]))


def test_a_directory_without_revisions_is_a_mistake(tmp_path: Path, url: str) -> None:
    with pytest.raises(MigrationError, match="no migrations"):
        migrate(url, tmp_path)


def test_a_database_that_cannot_be_read_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    path.write_bytes(b"this is no database, and never was one" * 100)
    with pytest.raises(ParleyError, match="unavailable"), capture_logs():
        migrate(f"sqlite:///{path}", revisions(tmp_path, [ONE]))


def test_several_instances_may_start_at_once(tmp_path: Path, url: str) -> None:
    directory = revisions(tmp_path, [ONE, TWO])
    # The lock is the file's, so threads exclude each other by it as processes do.
    with ThreadPoolExecutor(4) as instances:
        list(instances.map(lambda _: migrate(url, directory), range(4)))
    assert schema(url)["a"] == ["x", "y"]
