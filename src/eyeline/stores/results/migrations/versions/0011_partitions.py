"""On PostgreSQL, results lie in partitions by ranges of their ids. SQLite's stay as they are.

The table that was there becomes the first partition as it is, with its rows and indexes: nothing is rewritten, but it is read
through once, under a lock, to see that no id lies behind its end. A partitioned table of the same name and columns takes its
place: the release before reads and writes it with the same statements.
"""

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from alembic import op

from eyeline.core.ids import first_id

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

INDEXES = """
SELECT i.relname, pg_get_indexdef(i.oid) FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
WHERE x.indrelid = 'results'::regclass AND NOT x.indisprimary
"""
MOVE = "WITH moved AS (DELETE FROM results_past WHERE id >= '{}' RETURNING *) INSERT INTO results SELECT * FROM moved"
OWNER = "SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class WHERE oid = 'results_past'::regclass"
GRANTS = """
SELECT format('GRANT %s ON results TO %s%s', told.privilege_type,
    CASE told.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(told.grantee)) END,
    CASE WHEN told.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
FROM pg_class t, aclexplode(t.relacl) told WHERE t.oid = 'results_past'::regclass AND told.grantee <> t.relowner
"""


def upgrade() -> None:
    """Rename, make the partitioned table, move what some clock was ahead with, attach."""
    if op.get_bind().dialect.name != "postgresql":
        return
    day = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    month = (day + timedelta(days=32)).replace(day=1)
    ends = first_id(month)
    op.execute("LOCK TABLE results IN ACCESS EXCLUSIVE MODE")
    indexes = _rows(INDEXES)
    op.execute("ALTER TABLE results RENAME TO results_past")
    op.execute("ALTER INDEX results_pkey RENAME TO results_past_pkey")
    for name, _ in indexes:
        op.execute(f'ALTER INDEX "{name}" RENAME TO "{name.replace("results", "results_past", 1)}"')
    op.execute("CREATE TABLE results (LIKE results_past INCLUDING DEFAULTS, PRIMARY KEY (id)) PARTITION BY RANGE (id)")
    for _, made in indexes:  # the words that made the old table's indexes: attached, those serve as its part of these
        op.execute(made)
    op.execute(f"CREATE TABLE results_{month:%Y_%m} PARTITION OF results FOR VALUES FROM ('{ends}') TO (MAXVALUE)")
    op.execute(MOVE.format(ends))
    op.execute(f"ALTER TABLE results ATTACH PARTITION results_past FOR VALUES FROM (MINVALUE) TO ('{ends}')")
    op.execute(f"ALTER TABLE results OWNER TO {_rows(OWNER)[0][0]}")
    for (grant,) in _rows(GRANTS):
        op.execute(grant)


def _rows(query: str) -> list[tuple[str, ...]]:
    return [tuple(row) for row in op.get_bind().execute(sa.text(query))]
