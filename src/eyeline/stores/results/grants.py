"""Who may do what in PostgreSQL, beside the owner of the tables. Two roles, of which the database may have either or none:

    eyeline_service    what processes connect as: reads and writes rows; no table, and no record of the past, is its to change
    eyeline_limited    what they become while they read for somebody who may see some sites alone: sees the rows of those

An administrator makes the roles (docs/backends/results-postgresql.md); what they may do is granted with each upgrade. The
sites are a setting of the reading transaction; without it there is nothing to see. For everybody else row security lets all
rows pass, in words that the planner strikes out: only reads for few sites are planned differently. Nobody must inherit from
`eyeline_limited`: its policies would hold for whoever does, and who has named no sites sees nothing.

Roles are the whole server's, so the names are fixed and mean the same in each of its databases.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import Connection, text

from eyeline.core.errors import StoreError
from eyeline.stores.results.schema import (
    actions,
    alert_history,
    alerts,
    audit,
    audit_blocks,
    audit_checkpoints,
    cameras,
    deliveries,
    holds,
    items,
    jobs,
    metadata,
    results,
    reviews,
    rules,
    series,
    silences,
)

SERVICE, LIMITED = "eyeline_service", "eyeline_limited"
#: The setting that names the sites, as `joined` writes them.
SITES = "eyeline.sites"

#: What is only ever added to, and what of it may yet change: a record is sealed, its salt goes when the result is erased, and so
#: does what people said of that result; a hold is lifted.
KEPT = {
    audit: "UPDATE (block, position, salt)",
    audit_blocks: "",
    audit_checkpoints: "",
    actions: "DELETE",
    alert_history: "",
    rules: "",
    holds: "UPDATE (lifted_at)",
}
#: The tables whose rows are a site's. Not the event log: one reader follows it for everybody, and sorts what comes of it.
WALLED = (jobs, results, reviews, alerts, items, deliveries, series, cameras, silences)
#: A row of no site (the system's figures, a channel's test) is nobody's to hide.
_OWN = f"site = ANY ((SELECT string_to_array(',' || current_setting('{SITES}', true), ','))::text[])"

#: Those of the roles that there are, for who may grant: whether they are granted anything here.
_ROLES = text(f"""
SELECT rolname, oid::bigint, has_table_privilege(oid, 'results', 'SELECT') FROM pg_roles
WHERE rolname IN ('{SERVICE}', '{LIMITED}')
AND pg_has_role((SELECT relowner FROM pg_class WHERE oid = 'results'::regclass), 'USAGE') ORDER BY rolname
""")  # noqa: S608 - no value in it
_INHERITS = text(f"SELECT pg_has_role('{SERVICE}', '{LIMITED}', 'USAGE')")
#: What was granted is noted beside the schema's version, where no row is: a copy goes into a database without rows.
_NOTED = text("SELECT obj_description('alembic_version'::regclass)")


def joined(sites: Sequence[str]) -> str:
    """The sites as the policies read them. Names have no commas."""
    return ",".join(sites)


def renew(connection: Connection) -> None:
    """Grant what this release needs, where that is not done. Nothing for who does not own the tables. Raises StoreError where
    what the roles are would lock the processes out.
    """
    there = {name: (oid, granted) for name, oid, granted in connection.execute(_ROLES)}
    if not there:
        return
    if len(there) == 2 and connection.execute(_INHERITS).scalar():
        raise StoreError(
            f"{SERVICE} inherits from {LIMITED} and would see no rows; say: REVOKE {LIMITED} FROM {SERVICE}; "
            f"ALTER ROLE {SERVICE} NOINHERIT; GRANT {LIMITED} TO {SERVICE}",
            transient=False,
        )
    schema = connection.execute(text("SELECT quote_ident(current_schema())")).scalar_one()
    wanted = [*_grants(there, schema), *_walls(there)]
    roles = " ".join(str(oid) for oid, _ in there.values())  # a role made anew has nothing of the one before
    mark = hashlib.sha256("\n".join([roles, *wanted]).encode()).hexdigest()
    if all(granted for _, granted in there.values()) and connection.execute(_NOTED).scalar() == mark:
        return
    connection.exec_driver_sql(f"DO $$ BEGIN {'; '.join(wanted)}; END $$")
    connection.exec_driver_sql(f"COMMENT ON TABLE alembic_version IS '{mark}'")


def _grants(there: Mapping[str, object], schema: str) -> Iterator[str]:
    """Table by table, for the partitions of one are nobody's to name: its policies do not hold on them."""
    for role in there:
        yield f"GRANT USAGE ON SCHEMA {schema} TO {role}"
        for name in ["alembic_version", *metadata.tables]:
            yield f"REVOKE ALL ON {name} FROM {role}"
            yield f"GRANT SELECT ON {name} TO {role}"
    if SERVICE in there:
        yield f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {SERVICE}"
        for table in metadata.tables.values():
            more = KEPT.get(table, "UPDATE, DELETE")
            yield f"GRANT INSERT{more and f', {more}'} ON {table.name} TO {SERVICE}"


def _walls(there: Mapping[str, object]) -> Iterator[str]:
    """Row security, once there is somebody to be kept out."""
    if LIMITED in there:
        for table in WALLED:
            yield f"ALTER TABLE {table.name} ENABLE ROW LEVEL SECURITY"
            yield f"DROP POLICY IF EXISTS everybody ON {table.name}"
            yield f"CREATE POLICY everybody ON {table.name} USING (true)"
            yield f"DROP POLICY IF EXISTS limited ON {table.name}"
            own = f"site IS NULL OR {_OWN}" if table.c.site.nullable else _OWN
            yield f"CREATE POLICY limited ON {table.name} AS RESTRICTIVE FOR SELECT TO {LIMITED} USING ({own})"
