"""What Alembic runs: the missing migrations, on the connection and in the transaction that upgrade.py holds."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
context.run_migrations()
