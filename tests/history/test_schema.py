"""`android_harness.history.schema`: opening creates and upgrades the schema, and refuses other databases."""

from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from android_harness import history
from android_harness.errors import HistoryError
from android_harness.history import schema, tables
from android_harness.history.database import Database
from android_harness.history.store import History
from tests.history.stored import night


def test_the_migrations_make_the_tables(shared: History) -> None:
    """Every column and index is as in `tables`."""
    with shared.database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.METADATA) == []


def test_the_head_is_the_last_migration() -> None:
    """The head is a constant, so that opening does not import Alembic."""
    assert ScriptDirectory(str(schema.MIGRATIONS)).get_heads() == [schema.HEAD]


def test_opening_again_changes_nothing(location: str) -> None:
    """The sessions of the last night are there."""
    with history.open_history(location) as memory:
        memory.add(night(0))
    with history.open_history(location) as memory:
        assert memory.sessions() == (night(0),)


def test_a_newer_schema_is_refused(location: str) -> None:
    """The error has both versions and what to do; nothing is changed."""
    history.open_history(location).close()
    _execute(location, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(HistoryError, match="has schema 9999; this version knows up to 0001") as caught:
        history.open_history(location)
    assert "upgrade" in caught.value.hint
    _execute(location, "UPDATE alembic_version SET version_num = '0001'")
    history.open_history(location).close()


def test_a_strangers_database_is_refused(location: str) -> None:
    """A table with the same name is not written to."""
    _execute(location, "CREATE TABLE sessions (cookie TEXT)")
    with pytest.raises(HistoryError, match="is not a history"):
        history.open_history(location)


def test_a_migration_that_fails_leaves_nothing(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything happens in one transaction, so the next start finds an empty database."""

    def fail(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr("alembic.op.create_index", fail)
        with pytest.raises(RuntimeError, match="power cut"):
            history.open_history(location)
    with history.open_history(location) as memory:
        assert memory.add(night(0))


def _execute(location: str, statement: str) -> None:
    database = Database(location)
    with database.writing() as connection:
        connection.execute(text(statement))
    database.close()
