"""Tables of the auth service. The migrations make them; a test compares the two.

Times are Unix milliseconds. `skeleton` is what a name looks like (see names); where the look-alike data changes, the
column has to be computed anew by a migration.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData()

accounts = Table(
    "accounts",
    metadata,
    Column("user_id", String(16), primary_key=True),
    Column("username", String(32), nullable=False, unique=True),
    Column("skeleton", Text, nullable=False, unique=True),
    Column("password_hash", String(160), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("disabled", Boolean, nullable=False),
)

edge_boots = Table(
    "edge_boots",
    metadata,
    Column("edge_name", String(64), nullable=False),
    Column("boot_id", String(64), nullable=False),
    Column("lease_until_ms", BigInteger, nullable=False),
    # When a newer boot of the edge took over; such a boot never comes back.
    Column("superseded_at_ms", BigInteger, nullable=True),
    PrimaryKeyConstraint("edge_name", "boot_id"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("session_id", String(32), primary_key=True),
    Column("user_id", String(16), ForeignKey("accounts.user_id", ondelete="CASCADE"), nullable=False),
    # SHA-256 of the token.
    Column("token_hash", LargeBinary(32), nullable=False, unique=True),
    # While the session is open this is what it was at login; at its end it is set anew, for the time after it.
    Column("token_expires_at_ms", BigInteger, nullable=False),
    Column("edge_name", String(64), nullable=False),
    Column("boot_id", String(64), nullable=False),
    Column("device", String(64), nullable=False),
    Column("opened_at_ms", BigInteger, nullable=False),
    Column("ended_at_ms", BigInteger, nullable=True),
)

_is_open = text("ended_at_ms IS NULL")
# The promise of one session per account, kept by the database itself.
Index("sessions_open_user", sessions.c.user_id, unique=True, sqlite_where=_is_open, postgresql_where=_is_open)
Index("sessions_open_edge", sessions.c.edge_name, sessions.c.boot_id, sqlite_where=_is_open, postgresql_where=_is_open)
Index("sessions_user", sessions.c.user_id)
Index("sessions_expiry", sessions.c.token_expires_at_ms)
