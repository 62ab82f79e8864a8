"""Alembic's entry point: it runs on the connection and in the transaction of `schema.upgrade_schema`."""

from __future__ import annotations

from alembic import context

from android_harness.history import tables

context.configure(connection=context.config.attributes["connection"], target_metadata=tables.METADATA)
with context.begin_transaction():
    context.run_migrations()
