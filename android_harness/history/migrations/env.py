"""Alembic's entry point: it runs on the connection of `schema.upgrade`, in that connection's transaction."""

from __future__ import annotations

from alembic import context

from android_harness.history import tables

context.configure(connection=context.config.attributes["connection"], target_metadata=tables.METADATA)
with context.begin_transaction():
    context.run_migrations()
