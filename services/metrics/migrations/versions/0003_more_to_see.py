"""More columns of samples, log records, and an index of the spans with which traces begin."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_FLOATS = (
    "connections",
    "users",
    "deliveries_per_second",
    "fan_out",
    "wait_critical_ms",
    "wait_high_ms",
    "wait_normal_ms",
    "wait_low_ms",
    "batch_mean",
    "batch_p99",
    "commit_p99_ms",
)


def upgrade() -> None:
    for name in _FLOATS:
        op.add_column("samples", sa.Column(name, sa.Float))
    for name in ("waits", "commits"):
        op.add_column("samples", sa.Column(name, sa.Integer, nullable=False, server_default="0"))
    op.create_index("ix_spans_entries", "spans", ["id"], sqlite_where=sa.text("is_entry"))
    op.create_table(
        "log_records",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("kept_at", sa.Float, nullable=False),
        sa.Column("level", sa.Integer, nullable=False),
        sa.Column("instance", sa.String(64), nullable=False),
        sa.Column("trace_id", sa.String(32)),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_log_records_trace_id", "log_records", ["trace_id"])


def downgrade() -> None:
    op.drop_table("log_records")
    op.drop_index("ix_spans_entries", "spans")
    for name in (*_FLOATS, "waits", "commits"):
        op.drop_column("samples", name)
