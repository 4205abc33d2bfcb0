from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, inspect
from structlog.testing import capture_logs

from services.common.db import PostgresAccess, migrate
from services.common.db.migrations import MigrationError
from services.common.errors import ParleyError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ACCESS = PostgresAccess(schema="rooms")
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


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/data/t.db"


def run(url: str, directory: Path) -> None:
    migrate(url, directory, access=ACCESS)


def schema(url: str) -> dict[str, list[str]]:
    """The columns of the service's tables."""
    is_postgres = url.startswith("postgresql")
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        inspector = inspect(connection)
        name = ACCESS.schema if is_postgres else None
        tables = inspector.get_table_names(schema=name)
        found = {table: [column["name"] for column in inspector.get_columns(table, name)] for table in tables}
    engine.dispose()
    return found


def test_a_new_database_gets_everything_and_an_older_one_what_it_lacks(tmp_path: Path, url: str) -> None:
    directory = tmp_path / "100% mine: a b"
    run(url, revisions(directory, [ONE]))
    assert schema(url) == {"a": ["x"], "alembic_version": ["version_num"]}
    run(url, revisions(directory, [ONE, TWO]))
    assert schema(url)["a"] == ["x", "y"]
    run(url, directory)
    assert schema(url)["a"] == ["x", "y"]


def test_a_revision_that_fails_leaves_nothing_half_done(tmp_path: Path, url: str) -> None:
    with pytest.raises(RuntimeError, match="broken"):
        run(url, revisions(tmp_path, [ONE, BROKEN]))
    assert schema(url) == {}
    run(url, revisions(tmp_path, [ONE, TWO]))
    assert schema(url)["a"] == ["x", "y"]


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path, url: str) -> None:
    run(url, revisions(tmp_path / "new", [ONE, TWO]))
    with pytest.raises(MigrationError, match="0002"):
        run(url, revisions(tmp_path / "old", [ONE]))


def test_a_directory_without_revisions_is_a_mistake(tmp_path: Path, url: str) -> None:
    with pytest.raises(MigrationError, match="no migrations"):
        run(url, tmp_path)


def test_a_database_that_cannot_be_read_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    path.write_bytes(b"this is no database, and never was one" * 100)
    with pytest.raises(ParleyError, match="unavailable"), capture_logs():
        migrate(f"sqlite:///{path}", revisions(tmp_path, [ONE]))


def test_several_instances_may_start_at_once(tmp_path: Path, url: str) -> None:
    directory = revisions(tmp_path, [ONE, TWO])
    # The lock is the file's or the connection's, so threads exclude each other by it as processes do.
    with ThreadPoolExecutor(4) as instances:
        list(instances.map(lambda _: run(url, directory), range(4)))
    assert schema(url)["a"] == ["x", "y"]
