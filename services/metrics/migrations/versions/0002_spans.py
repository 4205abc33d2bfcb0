"""Spans, and which traces they concern."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "spans",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("trace_id", sa.String(32), nullable=False),
        sa.Column("kept_at", sa.Float, nullable=False),
        sa.Column("is_entry", sa.Boolean, nullable=False),
        sa.Column("is_error", sa.Boolean, nullable=False),
        sa.Column("duration_ns", sa.BigInteger, nullable=False),
        sa.Column("message_id", sa.String(256)),
        sa.Column("room_id", sa.String(256)),
        sa.Column("user_id", sa.String(256)),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_spans_message_id", "spans", ["message_id"])
    op.create_table(
        "span_traces",
        sa.Column("trace_id", sa.String(32), primary_key=True),
        sa.Column("span_row", sa.Integer, primary_key=True),
    )
    op.create_index("ix_span_traces_span_row", "span_traces", ["span_row"])


def downgrade() -> None:
    op.drop_table("span_traces")
    op.drop_table("spans")
