"""Runs revisions on the connection that `services.common.db.migrate` hands over."""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    # Alembic assumes that SQLite cannot roll DDL back, because Python's sqlite3 used to commit before it. Ours
    # does not (see engines), so a revision that fails leaves nothing half done.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
