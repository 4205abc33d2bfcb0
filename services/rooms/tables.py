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
    # What operators have made of it; see rooms.OPEN, CLOSED, DELETED. A deleted room is still being taken apart.
    Column("state", String(8), nullable=False, server_default="open"),
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

# Memberships that have ended, for some hours: how an instance that did not hear of one learns it. Numbers are given in
# the order in which they are asked for, not of the commits, so whoever reads behind a number reads some before it too.
endings = Table(
    "endings",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("room_id", String(16), nullable=False),
    Column("user_id", String(16), nullable=False),
    Column("username", Text, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    # The edge that asked for it and has drawn the conclusion already; empty where an operator did.
    Column("boot_id", Text, nullable=False),
    Column("ended_at_ms", BigInteger, nullable=False),
)

# Every file that was offered, from the offer on. `state` is one of
#   open     bytes are coming in; `size` is what was announced
#   whole    the content is verified and kept, and its message is not posted yet
#   posted   `seq` is the message's; `changed_at_ms` is when it was sent
#   expired  as posted, but the bytes are no longer kept: the row is what the message shows
# A file that is given up leaves no row. The first three count against the quotas.
files = Table(
    "files",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("file_id", String(32), nullable=False),
    Column("room_number", Integer, nullable=False),
    Column("user_id", String(16), nullable=False),
    Column("username", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("mime", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    # Empty while it is not known.
    Column("sha256", String(64), nullable=False),
    Column("state", String(8), nullable=False),
    Column("seq", BigInteger),
    Column("changed_at_ms", BigInteger, nullable=False),
    Column("transfer_id", String(32), nullable=False),
    Column("piece_bytes", Integer, nullable=False),
    UniqueConstraint("file_id", name="uq_files_file_id"),
    # Quotas are counted anew at each offer, and need no more than these two indexes.
    Index("ix_files_user", "user_id", "state", "size"),
    Index("ix_files_room", "room_number", "state", "size"),
    Index("ix_files_room_seq", "room_number", "seq"),
    Index("ix_files_sha256", "sha256", "state"),
    Index("ix_files_state_changed", "state", "changed_at_ms"),
)

# Contents that are kept, each once, whoever posted it and wherever. A row is there before the content takes its place
# in the store and until after it has left it, so that what has no row is an orphan.
contents = Table(
    "contents",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("size", BigInteger, nullable=False),
    # Nobody refers to it any more, and it is being removed: whoever wants to keep it again waits for that.
    Column("is_removing", Boolean(create_constraint=False), nullable=False),
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
