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


def upgrade() -> None:
    op.create_table(
        "files",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("file_id", sa.String(32), nullable=False),
        sa.Column("room_number", sa.Integer, nullable=False),
        sa.Column("user_id", sa.String(16), nullable=False),
        sa.Column("username", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("mime", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("seq", sa.BigInteger),
        sa.Column("changed_at_ms", sa.BigInteger, nullable=False),
        sa.Column("transfer_id", sa.String(32), nullable=False),
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
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("is_removing", sa.Boolean(create_constraint=False), nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("the log is never taken back; restore a backup instead")
