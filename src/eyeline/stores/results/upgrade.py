"""Bring the schema up to date with Alembic, from the migrations in this package; no alembic.ini on any disk.

Migrations expand first (add columns, tables, indexes, with defaults that the release before can live with) and contract
one release later, so that old and new processes run side by side during a rolling update: a release works on a newer schema,
down to the floor that a contracting migration leaves behind (decision 22).
"""

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, inspect, text

from eyeline.core.embedded import require_local
from eyeline.core.errors import StoreError
from eyeline.stores.results import grants
from eyeline.stores.results.schema import PARTITION, POSTGRESQL_ONLY

#: The newest migration. Kept by hand, so that a start with nothing to do need not import Alembic (0.2 s a process).
HEAD = "0013"


def current(connection: Connection) -> str | None:
    """The migration that the database is at; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return version


#: Held while one process migrates; the others find nothing left to do. The first half says Eyeline.
_TURN = text("SELECT pg_advisory_xact_lock(1163480396, 1)")


def upgrade(engine: Engine, where: str, target: str = HEAD) -> None:
    """Run what is missing, in one transaction that others wait for. Blocks. A newer database is left as it is.

    Raises StoreError where it is so new that something which this release needs is gone.
    """
    database = engine.url.database
    if database:
        require_local(Path(database))
        Path(database).parent.mkdir(parents=True, exist_ok=True)
    users = engine.dialect.name == "postgresql"
    with engine.begin() as connection:
        if users:  # SQLite's write lock is held already
            connection.execute(_TURN)
            _require_owner(connection, where, target)
        found = current(connection)
        if found is None or found < target:
            _migrate(connection, target)
        elif (floor := _floor(connection)) > HEAD:
            raise StoreError(
                f"the database {where} is at schema {found}, which is for releases that know {floor}; this one knows {HEAD}: "
                "run the newer release",
                transient=False,
            )
        if users and current(connection) == HEAD:
            grants.renew(connection)


#: Whether we may make tables, and whether we may see which ones there are.
_MAY = text("""
SELECT has_schema_privilege(current_schema(), 'CREATE'),
coalesce(has_table_privilege(to_regclass('alembic_version'), 'SELECT'), false)
""")


def _require_owner(connection: Connection, where: str, target: str) -> None:
    """Raises StoreError for a user who would have to change tables and may not. Who waits finds it done by the one who may."""
    makes, sees = connection.execute(_MAY).one()
    if not makes and (not sees or (current(connection) or "") < target):
        raise StoreError(
            f"the database {where} is not ready for this release, and this user may not change it: run `eyeline db upgrade` "
            "as the user who owns its tables"
        )


def _floor(connection: Connection) -> str:
    """The oldest schema whose release can work here. A migration that takes something away keeps it under `schema/floor`."""
    found: bytes | None = connection.execute(text("SELECT value FROM states WHERE name = 'schema/floor'")).scalar()
    return "" if found is None else found.decode()


def _migrate(connection: Connection, target: str) -> None:
    from alembic import command  # noqa: PLC0415 - seldom needed, slow to import
    from alembic.config import Config  # noqa: PLC0415

    with as_file(files("eyeline.stores.results") / "migrations") as folder:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        command.upgrade(config, target)


def differences(engine: Engine, metadata: Any) -> list[Any]:
    """What the database has other than `metadata` says: empty where migrations and tables agree."""
    from alembic.autogenerate import compare_metadata  # noqa: PLC0415
    from alembic.migration import MigrationContext  # noqa: PLC0415

    def compared(_item: Any, name: str | None, kind: str, *_rest: Any) -> bool:
        a_partition = kind == "table" and str(name).startswith(PARTITION)
        return name not in POSTGRESQL_ONLY and not a_partition

    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": compared})
        return list(compare_metadata(context, metadata))
