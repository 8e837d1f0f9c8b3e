"""Events wait here until they are committed, and get their numbers after it (PostgreSQL; SQLite leaves the table empty).

A number drawn in the writer's transaction would show before a smaller one that is still to be committed, and a reader would
pass that one by for ever. `number_events` moves what is committed, under a lock that lives only as long as this one
statement on the server: no client can hold it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

NUMBER_EVENTS = """
CREATE FUNCTION number_events() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    moved bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM new_events) THEN
        RETURN 0;
    END IF;
    PERFORM pg_advisory_xact_lock(1163480396, 2);
    WITH taken AS (DELETE FROM new_events RETURNING number, kind, site, at, result_id, body)
    INSERT INTO events (kind, site, at, result_id, body)
    SELECT kind, site, at, result_id, body FROM taken ORDER BY number;
    GET DIAGNOSTICS moved = ROW_COUNT;
    RETURN moved;
END
$$
"""


def upgrade() -> None:
    """Expand: a table and a function more; the release before knows neither."""
    op.create_table(
        "new_events",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("result_id", sa.Text(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("number"),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(NUMBER_EVENTS)
