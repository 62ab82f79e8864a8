"""The schema's version: brought up to date when a history is opened, by one process at a time.

A history that a newer version of the tool has changed is refused: writing into it could lose what the new
columns are for.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from android_harness.errors import HistoryError

HEAD = "0001"
"""The newest step in `migrations/versions`; a test compares."""
MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 0x65786D6F62
"""Of PostgreSQL's advisory locks, ours while migrating ("exmob")."""


def is_current(connection: Connection, where: str) -> bool:
    """Whether nothing has to be done.

    Raises:
        HistoryError: A newer version of this tool made the history, or something else did.
    """
    found = _version(connection, where)
    if found is not None and found not in _known():
        raise HistoryError(
            f"The history {where} has schema {found}; this version knows up to {HEAD}.",
            "A newer export-mobile has changed it: upgrade this one, or use another --history.",
        )
    return found == HEAD


def _version(connection: Connection, where: str) -> str | None:
    tables = set(inspect(connection).get_table_names())
    if "alembic_version" in tables:
        found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return found
    if tables & {"sessions", "samples", "gaps"}:
        raise HistoryError(
            f"{where} holds tables of other things under the history's names.",
            "Use another database for --history.",
        )
    return None


def _known() -> set[str]:
    return {path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py")}


def upgrade(connection: Connection, where: str) -> None:
    """Bring the schema up to date, in the transaction of `connection`, which must be about to write.

    A second process waits (SQLite's write lock, PostgreSQL's advisory lock) and then finds nothing to do.

    Raises:
        HistoryError: As of `is_current`.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    if is_current(connection, where):
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
