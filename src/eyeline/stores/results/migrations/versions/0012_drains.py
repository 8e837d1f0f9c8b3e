"""Which processes are to take no new work. A new column only; the release before does not look at it."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nobody is drained by it."""
    op.add_column("replicas", sa.Column("drained_at", sa.Text(), nullable=True))
