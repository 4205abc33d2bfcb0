"""Rooms that operators have closed or deleted.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_STATE = sa.String(8).with_variant(sa.String(8, collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("rooms", sa.Column("state", _STATE, nullable=False, server_default="open"))


def downgrade() -> None:
    raise NotImplementedError("the log is never taken back; restore a backup instead")
