"""What people say of results, which results wait for it, and which models answered. New tables, and a column that may be
empty: what the release before writes is found by everything but its models.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_REQUESTED = sa.text("request_key IS NOT NULL")
_UNDECIDED = sa.text("value IS NOT NULL AND (verdict IS NULL OR verdict = 'unsure')")
_JUDGED = sa.text("verdict IS NOT NULL")


def upgrade() -> None:
    """Expand only."""
    op.create_table(
        "verdicts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("result_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("reviewer", sa.Text(), nullable=False),
        sa.Column("undoes", sa.Text(), nullable=True),
        sa.Column("undone_by", sa.Text(), nullable=True),
        sa.Column("request_key", sa.Text(), nullable=True),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("verdicts_result", "verdicts", ["result_id", "id"], unique=False)
    _index("verdicts_key", "verdicts", ["reviewer", "request_key"], _REQUESTED, unique=True)
    op.create_table(
        "reviews",
        sa.Column("result_id", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("verdict", sa.Text(), nullable=True),
        sa.Column("reviewer", sa.Text(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("held_by", sa.Text(), nullable=True),
        sa.Column("held_until", sa.Float(precision=53), nullable=True),
        sa.PrimaryKeyConstraint("result_id"),
    )
    _index("reviews_waiting", "reviews", ["value", "result_id", "site"], _UNDECIDED)
    _index("reviews_verdict", "reviews", ["verdict", "result_id"], _JUDGED)
    _index("reviews_reviewer", "reviews", ["reviewer", "result_id"], _JUDGED)
    op.add_column("results", sa.Column("models", sa.Text(), nullable=True))
    _index("results_models", "results", ["models", "id"], sa.text("models IS NOT NULL"))
    searched = ["id", "captured_at", "top_score", "site", "camera", "pipeline", "status"]
    op.create_index("results_found", "results", searched, unique=False)
    op.create_table(
        "model_sets",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", "name", "version"),
        sqlite_with_rowid=False,
    )


def _index(name: str, table: str, columns: list[str], where: sa.TextClause, *, unique: bool = False) -> None:
    op.create_index(name, table, columns, unique=unique, sqlite_where=where, postgresql_where=where)
