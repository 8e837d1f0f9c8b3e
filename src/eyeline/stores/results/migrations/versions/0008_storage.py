"""What is kept of pictures, legal holds, and tallies of what came and went. New tables and indexes only."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Expand only."""
    op.create_table(
        "pictures",
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("pending", sa.Boolean(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("url"),
    )
    pending = sa.text("pending")
    op.create_index("pictures_pending", "pictures", ["at"], sqlite_where=pending, postgresql_where=pending)
    op.create_table(
        "picture_blobs",
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("picture", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("url", "picture"),
        sqlite_with_rowid=False,
    )
    op.create_index("picture_blobs_picture", "picture_blobs", ["picture"])
    op.create_table(
        "holds",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("placed_at", sa.Text(), nullable=False),
        sa.Column("lifted_at", sa.Text(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "tallies",
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("saved", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("day", "what", "kind"),
    )
    op.create_index("sightings_result", "item_sightings", ["result_id"])
    op.create_index("alerts_result", "alerts", ["result_id"])
    alert = sa.text("kind = 'alert'")
    op.create_index("events_alert", "events", ["seq"], sqlite_where=alert, postgresql_where=alert)
