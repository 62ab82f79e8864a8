"""The database of the history: an SQLite file or a PostgreSQL server, used in the same way.

SQLite uses a write-ahead log, so that readers never wait. Writers take the write lock when their transaction
begins and wait for it, so that two processes can write at once. PostgreSQL's transactions suffice.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, make_url

from android_harness.errors import HistoryError, SetupError

BUSY_S = 60
"""The time that a writer waits for another writer."""
RESTART_S = 90.0
"""The time that a restart of a database server may take."""
FIRST_PAUSE_S, LAST_PAUSE_S = 0.5, 10.0
CONNECT_S = 10
DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
"""Name of a database without a driver -> name with the driver that this package uses."""
DRIVER_EXTRA = "pip install 'export-mobile[postgresql]'"


class Database:
    """A database with one way to read and one to write. Every failure is a `HistoryError`."""

    def __init__(self, location: str, must_exist: bool = False) -> None:
        self.url = parse_database_url(location)
        self.where = shown_database_url(self.url)
        if self.url.get_backend_name() == "sqlite":
            _prepare_database(self.url, self.where, must_exist)
        self._engine = _database_engine(self.url, self.where)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a connection that sees one state of the database."""
        with self._translated(), self._connected() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction that is written completely or not at all."""
        with self._translated(), self._connected() as plain:
            connection = plain.execution_options(begin="BEGIN IMMEDIATE")
            with connection.begin():
                yield connection

    def _connected(self) -> Connection:
        """Connect; wait for a server that restarts, for at most `RESTART_S`."""
        deadline = time.monotonic() + RESTART_S
        pause = FIRST_PAUSE_S
        while True:
            try:
                return self._engine.connect()
            except exc.OperationalError:
                if self.url.get_backend_name() == "sqlite" or time.monotonic() + pause > deadline:
                    raise
                time.sleep(pause)
                pause = min(2 * pause, LAST_PAUSE_S)

    def compact(self) -> None:
        """Free the space of deleted rows; PostgreSQL does so by itself."""
        if self.url.get_backend_name() == "sqlite":
            with self._translated(), self._engine.connect() as connection:
                connection.execution_options(begin="SELECT 1").exec_driver_sql("VACUUM")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except exc.SQLAlchemyError as error:
            raise HistoryError(
                f"The history {self.where} cannot be used: {_database_message(error)}.",
                "Check the location, its free space and its permissions.",
            ) from error

    def close(self) -> None:
        self._engine.dispose()


def parse_database_url(location: str) -> URL:
    """Return the URL of a database, given a URL or the path of a file.

    Raises:
        HistoryError: The location is neither.
    """
    if "://" not in location:
        return URL.create("sqlite", database=str(Path(location).expanduser()))
    try:
        url = make_url(location)
    except exc.ArgumentError:
        raise HistoryError(
            f"{location.split('://')[0]}://… is not a database URL.",
            "Expected a file, or postgresql+psycopg://user@host/name.",
        ) from None
    url = url.set(drivername=DRIVERS.get(url.drivername, url.drivername))
    if url.get_backend_name() not in {"sqlite", "postgresql"}:
        raise HistoryError(
            f"Unsupported history database: {url.get_backend_name()!r}.",
            "Expected a file, or postgresql+psycopg://user@host/name.",
        )
    return url


def shown_database_url(url: URL) -> str:
    """Return the URL for messages, without its password."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return url.render_as_string(hide_password=True)


def _prepare_database(url: URL, where: str, must_exist: bool) -> None:
    if not url.database or url.database == ":memory:":
        raise HistoryError("A history in memory would be lost immediately.", "Give --history a file.")
    path = Path(url.database)
    if must_exist and not path.exists():
        raise HistoryError(
            f"There is no history at {where}.", "A nightly run creates one; --history selects its location."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HistoryError(f"{path.parent} cannot be created: {error.strerror}.") from error


def _database_engine(url: URL, where: str) -> Engine:
    sqlite = url.get_backend_name() == "sqlite"
    try:
        engine = create_engine(
            url,
            connect_args={"timeout": BUSY_S} if sqlite else {"connect_timeout": CONNECT_S},
            json_deserializer=_decoded_from_database,
            pool_pre_ping=True,  # a connection may be older than the server's last restart
        )
    except ModuleNotFoundError as error:
        raise SetupError(f"The history {where} needs {error.name}.", f"Run `{DRIVER_EXTRA}`.") from error
    except exc.SQLAlchemyError as error:
        raise HistoryError(f"The history {where} cannot be opened: {_database_message(error)}.") from error
    if sqlite:
        event.listen(engine, "connect", _configure_database)
        event.listen(engine, "begin", _begin_in_database)
    return engine


@functools.lru_cache(4096)
def _decoded_from_database(text: str) -> Any:
    """Decode JSON with a cache: a series repeats its toolchain a thousand times, and records are frozen."""
    return json.loads(text)


def _configure_database(connection: Any, _record: object) -> None:
    connection.isolation_level = (
        None  # `_begin_in_database` begins transactions: sqlite3 itself begins them too late
    )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_in_database(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _database_message(error: exc.SQLAlchemyError) -> str:
    """Return the first line of the database's message; never its URL, which may hold a password."""
    cause = getattr(error, "orig", None) or error
    lines = str(cause).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(cause).__name__
