"""The version of the schema. Opening a history upgrades it, by one process at a time.

A history that a newer version of the tool has upgraded is refused: writing to it could lose the data of new
columns.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from android_harness.errors import HistoryError

HEAD = "0001"
"""The newest revision in `migrations/versions`; a test compares both."""
MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 0x65786D6F62
"""The PostgreSQL advisory lock ("exmob") that is held during a migration."""


def is_schema_current(connection: Connection, where: str) -> bool:
    """Return whether the schema is up to date.

    Raises:
        HistoryError: A newer version of this tool wrote the history, or it is not a history.
    """
    version = _schema_version(connection, where)
    if version is not None and version not in _known_schema_versions():
        raise HistoryError(
            f"The history {where} has schema {version}; this version knows up to {HEAD}.",
            "A newer export-mobile has changed it: upgrade this one, or use another --history.",
        )
    return version == HEAD


def _schema_version(connection: Connection, where: str) -> str | None:
    tables = set(inspect(connection).get_table_names())
    if "alembic_version" in tables:
        version: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return version
    if tables & {"sessions", "samples", "gaps"}:
        raise HistoryError(
            f"{where} is not a history: other tables have the names of its tables.",
            "Use another database for --history.",
        )
    return None


def _known_schema_versions() -> set[str]:
    return {path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py")}


def upgrade_schema(connection: Connection, where: str) -> None:
    """Upgrade the schema in the transaction of `connection`, which must hold the write lock.

    A second process waits for SQLite's write lock or PostgreSQL's advisory lock, and then has nothing to do.

    Raises:
        HistoryError: For the same reasons as in `is_schema_current`.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    if is_schema_current(connection, where):
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
