"""The history of all measurements, in SQLite or PostgreSQL: figures, devices, their state and raw samples.

    from android_harness import history

    with history.open_history() as memory:       # or a path, or "postgresql+psycopg://user@host/name"
        memory.add(session, samples)
        for row in memory.sessions(Filter(model="mobilenet_v2")):
            ...

`records` defines what is stored, and `tables` derives the tables from it. `making` converts a `Session` of
the harness, `store` stores it. `exports` and `pruning` serve `export-mobile history`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from android_harness.errors import SetupError

if TYPE_CHECKING:
    from android_harness.history.store import History

EXTRA = "pip install 'export-mobile[history]'"


def default_history_location() -> str:
    """Return `$EXPORT_MOBILE_HISTORY`, or `export-mobile/history.sqlite` in the user's data folder."""
    if chosen := os.environ.get("EXPORT_MOBILE_HISTORY"):
        return chosen
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return str(data / "export-mobile" / "history.sqlite")


def open_history(location: str | Path | None = None, *, must_exist: bool = False) -> History:
    """Open the history; create or upgrade it if necessary. Close it, or use it in a `with` statement.

    Args:
        location: A file for SQLite, or an SQLAlchemy URL ("postgresql+psycopg://user@host/name"); None for
            `default_history_location()`.
        must_exist: Whether a missing file is an error, for commands that only read.

    Raises:
        SetupError: SQLAlchemy, Alembic or the database's driver is not installed.
        HistoryError: It cannot be opened, or a newer version of this tool wrote it.
    """
    try:
        from android_harness.history import store
    except ModuleNotFoundError as error:
        raise SetupError(f"The history needs the package {error.name}.", f"Run `{EXTRA}`.") from error
    return store.History(str(location) if location else default_history_location(), must_exist)
