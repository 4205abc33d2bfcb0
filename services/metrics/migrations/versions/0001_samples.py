"""Samples, hourly messages and checkpoints."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "samples",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("requests", sa.Integer, nullable=False),
        sa.Column("processing_mean_ms", sa.Float),
        sa.Column("processing_p50_ms", sa.Float),
        sa.Column("processing_p99_ms", sa.Float),
        sa.Column("latencies", sa.Integer, nullable=False),
        sa.Column("latency_mean_ms", sa.Float),
        sa.Column("latency_p50_ms", sa.Float),
        sa.Column("latency_p99_ms", sa.Float),
        sa.Column("messages_per_second", sa.Float, nullable=False),
    )
    op.create_index("ix_samples_at", "samples", ["at"])
    op.create_table(
        "hourly_messages",
        sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("messages", sa.Integer, nullable=False),
    )
    op.create_table(
        "checkpoints",
        sa.Column("service", sa.String(32), primary_key=True),
        sa.Column("instance", sa.String(64), primary_key=True),
        sa.Column("kept_at", sa.Float, nullable=False),
        sa.Column("time_ns", sa.BigInteger, nullable=False),
        sa.Column("runs", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_checkpoints_kept_at", "checkpoints", ["kept_at"])


def downgrade() -> None:
    op.drop_table("checkpoints")
    op.drop_table("hourly_messages")
    op.drop_table("samples")
