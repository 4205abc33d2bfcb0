"""Memberships that have ended, for instances that did not hear of them.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Compared and ordered byte by byte, whatever the database's language; SQLite does so by itself.
_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _string(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "endings",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("room_id", _string(16), nullable=False),
        sa.Column("user_id", _string(16), nullable=False),
        sa.Column("username", _TEXT, nullable=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("boot_id", _TEXT, nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("the log is never taken back; restore a backup instead")
