"""Run by Alembic: takes steps on the given connection.

The one that :func:`oarlock.store.migrations.upgrade` was given, in its transaction.
"""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
