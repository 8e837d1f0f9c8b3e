"""How channels do, and when a key was used last. New indexes and a new table; the release before does not look at them."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

FAILED = sa.text("state = 'failed'")


def upgrade() -> None:
    """Nothing is rewritten."""
    op.create_index("deliveries_channel", "deliveries", ["channel", "id"])
    op.create_index("deliveries_failed", "deliveries", ["id"], sqlite_where=FAILED, postgresql_where=FAILED)
    op.create_table(
        "key_uses",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("used_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sha256"),
    )
