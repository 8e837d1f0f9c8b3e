"""Items: what tracking makes of many results. New tables only; the release before does not look at them."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables of items."""
    op.create_table(
        "items",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("camera", sa.Text(), nullable=False),
        sa.Column("pipeline", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("first_at", sa.Text(), nullable=False),
        sa.Column("last_at", sa.Text(), nullable=False),
        sa.Column("frames", sa.Integer(), nullable=False),
        sa.Column("score", sa.Float(precision=53), nullable=False),
        sa.Column("result_id", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("items_first", "items", ["first_at"], unique=False)
    op.create_table(
        "item_labels",
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("score", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("item_id", "label"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "item_codes",
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("code", "item_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "item_sightings",
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("result_id", sa.Text(), nullable=False),
        sa.Column("detection", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("item_id", "result_id"),
        sqlite_with_rowid=False,
    )
