"""What people decide on alerts, silences, and more of deliveries. New tables, and columns that the release before may leave
empty: what it writes is an open alert.
"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Expand only."""
    _alerts()
    _deliveries()
    op.create_table(
        "silences",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=True),
        sa.Column("camera", sa.Text(), nullable=True),
        sa.Column("rule", sa.Text(), nullable=True),
        sa.Column("since", sa.Text(), nullable=False),
        sa.Column("until", sa.Text(), nullable=True),
        sa.Column("weekly", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )


def _alerts() -> None:
    for name in ("camera", "disposition", "assignee", "snoozed_until", "changed_at", "changed_by"):
        op.add_column("alerts", sa.Column(name, sa.Text(), nullable=True))
    for name in ("version", "tier"):
        op.add_column("alerts", sa.Column(name, sa.Integer(), nullable=False, server_default=sa.text("0")))
    _name_cameras()
    unresolved = sa.text("state <> 'resolved'")
    op.create_index("alerts_unresolved", "alerts", ["opened_at"], sqlite_where=unresolved, postgresql_where=unresolved)
    asleep = sa.text("snoozed_until IS NOT NULL")
    op.create_index("alerts_snoozed", "alerts", ["snoozed_until"], sqlite_where=asleep, postgresql_where=asleep)
    op.create_table(
        "alert_history",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("alert_id", sa.Text(), nullable=False),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("alert_history_alert", "alert_history", ["alert_id", "id"], unique=False)


def _name_cameras() -> None:
    """Alerts that are there already get their camera from their bodies; there are few."""
    alerts = sa.table("alerts", sa.column("id"), sa.column("camera"), sa.column("body"))
    connection = op.get_bind()
    for row in connection.execute(sa.select(alerts.c.id, alerts.c.body)).all():
        camera = json.loads(bytes(row.body)).get("camera")
        if camera is not None:
            connection.execute(alerts.update().where(alerts.c.id == row.id).values(camera=camera))


def _deliveries() -> None:
    op.add_column("deliveries", sa.Column("kind", sa.Text(), nullable=False, server_default=sa.text("'alert'")))
    for name in ("site", "answer"):
        op.add_column("deliveries", sa.Column(name, sa.Text(), nullable=True))
    pending, held = sa.text("state = 'pending'"), sa.text("state = 'held'")
    op.create_index(
        "deliveries_line", "deliveries", ["channel", "next_at"], sqlite_where=pending, postgresql_where=pending
    )
    op.create_index("deliveries_held", "deliveries", ["next_at"], sqlite_where=held, postgresql_where=held)
