"""The tables of rooms. What the log writes at full speed is spelled out in `log`; everything else goes through these.

Ids, keys and name keys are compared and ordered byte by byte, as SQLite does by itself.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

rooms = Table(
    "rooms",
    metadata,
    # Inside the database a room is a small number: it is in every message twice.
    Column("number", Integer, primary_key=True),
    Column("room_id", String(16), nullable=False),
    Column("name", Text, nullable=False),
    # What makes two names the same name: see rooms.name_key.
    Column("name_key", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("is_private", Boolean(create_constraint=False), nullable=False),
    # Names this life of the log. A restored copy of the database gets new epochs, and keeps its messages.
    Column("epoch", String(8), nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    # No message of the room is older than the one before it, whatever the clock does.
    Column("last_sent_at_ms", BigInteger, nullable=False),
    # Random, new with every change of the members, so that a cache of members never mistakes one state for another.
    Column("members_version", BigInteger, nullable=False),
    Column("member_count", Integer, nullable=False),
    # Counts everyone who ever joined: gives members.join_order.
    Column("join_count", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    UniqueConstraint("room_id", name="uq_rooms_room_id"),
    UniqueConstraint("name_key", name="uq_rooms_name_key"),
)

members = Table(
    "members",
    metadata,
    Column("room_number", Integer, ForeignKey("rooms.number", name="fk_members_room"), nullable=False),
    Column("user_id", String(16), nullable=False),
    Column("username", Text, nullable=False),
    Column("role", String(8), nullable=False),
    # Who joined earlier has the lower number.
    Column("join_order", BigInteger, nullable=False),
    Column("joined_at_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("room_number", "user_id", name="pk_members"),
    Index("ix_members_user_id", "user_id"),
    # A room's members by name: its list, and who an operator means.
    Index("ix_members_room_username", "room_number", "username"),
)

# No foreign key to rooms: the log reads and updates the room's row in the same transaction, and a check for every row
# would cost a tenth of the insert.
messages = Table(
    "messages",
    metadata,
    Column("room_number", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("sender_id", String(16), nullable=False),
    Column("username", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("sent_at_ms", BigInteger, nullable=False),
    Column("key", Text, nullable=False),
    PrimaryKeyConstraint("room_number", "seq", name="pk_messages"),
    # Without a time window: the same key finds the same message however late it is sent again. The key goes before the
    # sender because edges make ascending keys: those of one commit are then neighbours in the index, and a commit of
    # 64 messages of 64 senders writes one page of it and not 64.
    UniqueConstraint("room_number", "key", "sender_id", name="uq_messages_key"),
)
