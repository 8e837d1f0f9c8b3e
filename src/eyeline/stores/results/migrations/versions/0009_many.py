"""For many processes, who does what only one may do; for many results, the indexes of rare searches. Expand only.

On PostgreSQL `is_odd` says of a result that it was captured over an hour before its id was made, or over a day after: its index
finds what a search among the ids of a window of time would miss, whoever wrote it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

IS_ODD = """
CREATE FUNCTION is_odd(id text, captured_at text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT lpad(to_hex(greatest(0, ms + 3600000)), 12, '0') < made OR lpad(to_hex(greatest(0, ms - 86400000)), 12, '0') > made
    FROM (SELECT floor(extract(epoch FROM captured_at::timestamptz) * 1000)::bigint AS ms,
                 substr(id, 1, 8) || substr(id, 10, 4) AS made) AS times
$$
"""


def upgrade() -> None:
    """A table and indexes more; the release before does not look at them."""
    op.create_table(
        "holders",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index("results_score", "results", ["top_score"])
    op.create_index(
        "results_failed_camera",
        "results",
        ["camera", "id"],
        sqlite_where=sa.text("status = 'failed'"),
        postgresql_where=sa.text("status = 'failed'"),
    )
    op.create_index("result_labels_score", "result_labels", ["label", "score"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute(IS_ODD)
        op.execute("CREATE INDEX results_odd ON results (captured_at, id) WHERE is_odd(id, captured_at)")
