"""Alembic's entry: runs on the connection that `schema.upgrade` holds, in its transaction."""

from __future__ import annotations

from alembic import context

from android_harness.history import tables

context.configure(connection=context.config.attributes["connection"], target_metadata=tables.Table.metadata)
with context.begin_transaction():
    context.run_migrations()
