"""Rooms, their members and the message log.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Compared and ordered byte by byte, whatever the database's language; SQLite does so by itself.
_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _string(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "rooms",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("room_id", _string(16), nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("name_key", _TEXT, nullable=False),
        sa.Column("topic", _TEXT, nullable=False),
        sa.Column("is_private", sa.Boolean(create_constraint=False), nullable=False),
        sa.Column("epoch", _string(8), nullable=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("last_sent_at_ms", sa.BigInteger, nullable=False),
        sa.Column("members_version", sa.BigInteger, nullable=False),
        sa.Column("member_count", sa.Integer, nullable=False),
        sa.Column("join_count", sa.BigInteger, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("room_id", name="uq_rooms_room_id"),
        sa.UniqueConstraint("name_key", name="uq_rooms_name_key"),
    )
    op.create_table(
        "members",
        sa.Column("room_number", sa.Integer, sa.ForeignKey("rooms.number", name="fk_members_room"), nullable=False),
        sa.Column("user_id", _string(16), nullable=False),
        sa.Column("username", _TEXT, nullable=False),
        sa.Column("role", _string(8), nullable=False),
        sa.Column("join_order", sa.BigInteger, nullable=False),
        sa.Column("joined_at_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("room_number", "user_id", name="pk_members"),
    )
    op.create_index("ix_members_user_id", "members", ["user_id"])
    op.create_index("ix_members_room_username", "members", ["room_number", "username"])
    op.create_table(
        "messages",
        sa.Column("room_number", sa.Integer, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("sender_id", _string(16), nullable=False),
        sa.Column("username", _TEXT, nullable=False),
        sa.Column("text", _TEXT, nullable=False),
        sa.Column("sent_at_ms", sa.BigInteger, nullable=False),
        sa.Column("key", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("room_number", "seq", name="pk_messages"),
        sa.UniqueConstraint("room_number", "key", "sender_id", name="uq_messages_key"),
    )


def downgrade() -> None:
    raise NotImplementedError("the log is never taken back; restore a backup instead")
