"""Remembers every session, in SQLite or PostgreSQL: what was measured, on what, in which state, and raw.

    from android_harness import history

    with history.open_history() as memory:       # or a path, or "postgresql+psycopg://user@host/name"
        memory.add(session, samples)
        for row in memory.sessions(Filter(model="mobilenet_v2")):
            ...

`records` says what is remembered, `making` turns a `Session` of the harness into that, `store` keeps it,
`tables` and `migrations` say how; `exports` and `pruning` serve `export-mobile history`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from android_harness.errors import SetupError

if TYPE_CHECKING:
    from android_harness.history.store import History

EXTRA = "pip install 'export-mobile[history]'"


def default_location() -> str:
    """`$EXPORT_MOBILE_HISTORY`, else `export-mobile/history.sqlite` in the user's data folder."""
    if chosen := os.environ.get("EXPORT_MOBILE_HISTORY"):
        return chosen
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return str(data / "export-mobile" / "history.sqlite")


def open_history(location: str | Path | None = None, *, must_exist: bool = False) -> History:
    """Open the history, made or brought up to date where it must be; close it, or use it in a `with`.

    Args:
        location: A file for SQLite, or a URL of SQLAlchemy's ("postgresql+psycopg://user@host/name"); None
            for `default_location()`.
        must_exist: Whether a missing file is an error, for those who only read.

    Raises:
        SetupError: SQLAlchemy, Alembic or the database's driver is not installed.
        HistoryError: It cannot be opened, or a newer version of this tool made it.
    """
    try:
        from android_harness.history import store
    except ModuleNotFoundError as error:
        raise SetupError(f"The history needs the package {error.name}.", f"Run `{EXTRA}`.") from error
    return store.History(str(location) if location else default_location(), must_exist)
