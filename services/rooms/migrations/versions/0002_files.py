"""Files and their contents.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Compared and ordered byte by byte, whatever the database's language; SQLite does so by itself.
_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _string(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "files",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("file_id", _string(32), nullable=False),
        sa.Column("room_number", sa.Integer, nullable=False),
        sa.Column("user_id", _string(16), nullable=False),
        sa.Column("username", _TEXT, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("mime", _TEXT, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("sha256", _string(64), nullable=False),
        sa.Column("state", _string(8), nullable=False),
        sa.Column("seq", sa.BigInteger),
        sa.Column("changed_at_ms", sa.BigInteger, nullable=False),
        sa.Column("transfer_id", _string(32), nullable=False),
        sa.Column("piece_bytes", sa.Integer, nullable=False),
        sa.UniqueConstraint("file_id", name="uq_files_file_id"),
    )
    op.create_index("ix_files_user", "files", ["user_id", "state", "size"])
    op.create_index("ix_files_room", "files", ["room_number", "state", "size"])
    op.create_index("ix_files_room_seq", "files", ["room_number", "seq"])
    op.create_index("ix_files_sha256", "files", ["sha256", "state"])
    op.create_index("ix_files_state_changed", "files", ["state", "changed_at_ms"])
    op.create_table(
        "contents",
        sa.Column("sha256", _string(64), primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("is_removing", sa.Boolean(create_constraint=False), nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("the log is never taken back; restore a backup instead")
