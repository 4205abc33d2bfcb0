"""Accounts, edge boots with their leases, and sessions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("user_id", sa.String(16), primary_key=True),
        sa.Column("username", sa.String(32), nullable=False, unique=True),
        sa.Column("skeleton", sa.Text, nullable=False, unique=True),
        sa.Column("password_hash", sa.String(160), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("disabled", sa.Boolean, nullable=False),
    )
    op.create_table(
        "edge_boots",
        sa.Column("edge_name", sa.String(64), nullable=False),
        sa.Column("boot_id", sa.String(64), nullable=False),
        sa.Column("lease_until_ms", sa.BigInteger, nullable=False),
        sa.Column("superseded_at_ms", sa.BigInteger, nullable=True),
        sa.PrimaryKeyConstraint("edge_name", "boot_id"),
    )
    op.create_table(
        "sessions",
        sa.Column("session_id", sa.String(32), primary_key=True),
        sa.Column("user_id", sa.String(16), sa.ForeignKey("accounts.user_id", ondelete="CASCADE"), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(32), nullable=False, unique=True),
        sa.Column("token_expires_at_ms", sa.BigInteger, nullable=False),
        sa.Column("edge_name", sa.String(64), nullable=False),
        sa.Column("boot_id", sa.String(64), nullable=False),
        sa.Column("device", sa.String(64), nullable=False),
        sa.Column("opened_at_ms", sa.BigInteger, nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger, nullable=True),
    )
    is_open = sa.text("ended_at_ms IS NULL")
    op.create_index(
        "sessions_open_user", "sessions", ["user_id"], unique=True, sqlite_where=is_open, postgresql_where=is_open
    )
    op.create_index(
        "sessions_open_edge", "sessions", ["edge_name", "boot_id"], sqlite_where=is_open, postgresql_where=is_open
    )
    op.create_index("sessions_user", "sessions", ["user_id"])
    op.create_index("sessions_expiry", "sessions", ["token_expires_at_ms"])


def downgrade() -> None:
    op.drop_table("sessions")
    op.drop_table("edge_boots")
    op.drop_table("accounts")
