"""`History`: stores each session once, and returns sessions by filter, by series or as a baseline."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from sqlalchemy import ColumnElement, Connection, Select, Table, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from android_harness.errors import HistoryError
from android_harness.history import packed_samples, schema, table_rows
from android_harness.history.database import Database
from android_harness.history.records import (
    BASELINE_SESSIONS,
    Filter,
    Gap,
    Point,
    Samples,
    SeriesKey,
    StoredSession,
    history_record_device_hash,
)
from android_harness.history.tables import GAPS, SAMPLES, SESSIONS

BATCH = 1000
"""Rows held in memory at once while iterating."""


class History:
    """An open history. Use it in a `with` statement, or close it.

    Every method raises `HistoryError` if the database reports an error.

    Args:
        location: A file for SQLite, or a URL.
        must_exist: Whether a missing file is an error.
    """

    def __init__(self, location: str, must_exist: bool = False) -> None:
        self.database = Database(location, must_exist)
        try:
            self._upgrade()
        except BaseException:
            self.database.close()
            raise

    @property
    def where(self) -> str:
        """The file, or the URL without its password."""
        return self.database.where

    def _upgrade(self) -> None:
        with self.database.reading() as connection:
            current = schema.is_schema_current(connection, self.where)
        if not current:
            with self.database.writing() as connection:
                schema.upgrade_schema(connection, self.where)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.database.close()

    def add(self, session: StoredSession, samples: Samples | None = None) -> bool:
        """Store a session; it is on disk when this returns.

        Args:
            session: The session; its key decides whether it is known.
            samples: Its raw samples.

        Returns:
            Whether the session is new. A known session stays as it is.

        Raises:
            HistoryError: A different session has this key.
        """
        columns = table_rows.table_row_columns(session)
        packed = packed_samples.pack_samples(samples) if samples else None
        with self.database.writing() as connection:
            number = _insert_into_store(connection, SESSIONS, columns)
            is_new = number is not None
            if number is None:
                number = _stored_number(connection, session.key, columns["content"])
            if packed is not None:
                _insert_into_store(connection, SAMPLES, {"session": number, "packed": packed})
        return is_new

    def add_gap(self, gap: Gap) -> bool:
        """Store that something was not measured; return whether the gap is new."""
        with self.database.writing() as connection:
            return _insert_into_store(connection, GAPS, vars(gap)) is not None

    def mark(self, key: str, *, regressed: bool) -> None:
        """Exclude a session from baselines, or include it again.

        Raises:
            HistoryError: There is no such session.
        """
        change = update(SESSIONS).where(SESSIONS.c.key == key).values(regressed=regressed)
        with self.database.writing() as connection:
            if connection.execute(change).rowcount == 0:
                raise _not_in_store(key)

    def accept(self, key: str) -> StoredSession:
        """Make a session's level the new normal: the baseline of its series begins with it.

        Raises:
            HistoryError: There is no such session.
        """
        with self.database.writing() as connection:
            row = connection.execute(select(*table_rows.COLUMNS).where(SESSIONS.c.key == key)).first()
            if row is None:
                raise _not_in_store(key)
            session = table_rows.session_from_table_row(row)
            connection.execute(update(SESSIONS).where(SESSIONS.c.key == key).values(accepted=True))
            later = (
                SESSIONS.c.line == session.series_key.id,
                SESSIONS.c.started_at >= session.started_at,
            )
            connection.execute(update(SESSIONS).where(*later).values(regressed=False))
        return replace(session, accepted=True, regressed=False)

    def get(self, key: str) -> StoredSession | None:
        """Return the session with this key, if there is one."""
        with self.database.reading() as connection:
            row = connection.execute(select(*table_rows.COLUMNS).where(SESSIONS.c.key == key)).first()
        return table_rows.session_from_table_row(row) if row else None

    def get_all(self, keys: Collection[str]) -> dict[str, StoredSession]:
        """Return the sessions with these keys, by key; unknown keys are left out."""
        query = select(*table_rows.COLUMNS).where(SESSIONS.c.key.in_(keys))
        with self.database.reading() as connection:
            sessions = [table_rows.session_from_table_row(row) for row in connection.execute(query)]
        return {session.key: session for session in sessions}

    def find(self, prefix: str) -> StoredSession:
        """Return the only session whose key begins with `prefix`.

        Raises:
            HistoryError: There is none, or there are several.
        """
        matches = SESSIONS.c.key.startswith(prefix, autoescape=True)
        query = select(*table_rows.COLUMNS).where(matches).order_by(SESSIONS.c.key).limit(2)
        with self.database.reading() as connection:
            sessions = [table_rows.session_from_table_row(row) for row in connection.execute(query)]
        if not sessions:
            raise _not_in_store(prefix)
        if len(sessions) > 1 and sessions[0].key != prefix:
            raise HistoryError(
                f"Several sessions have keys that begin with {prefix!r}.", "Give more characters of the key."
            )
        return sessions[0]

    def samples(self, key: str) -> Samples | None:
        """Return the raw samples of a session; None if it has none, or none any more.

        Raises:
            HistoryError: They are damaged.
        """
        query = select(SAMPLES.c.packed).join(SESSIONS).where(SESSIONS.c.key == key)
        with self.database.reading() as connection:
            packed = connection.scalar(query)
        try:
            return packed_samples.unpack_samples(packed) if packed is not None else None
        except packed_samples.Damaged as error:
            raise HistoryError(
                f"The samples of session {key} in {self.where} are damaged: {error}."
            ) from None

    def sessions(self, wanted: Filter | None = None) -> tuple[StoredSession, ...]:
        """Return the sessions that a filter selects, newest first."""
        return tuple(self.iterate(wanted))

    def iterate(self, wanted: Filter | None = None) -> Iterator[StoredSession]:
        """Yield the same sessions as `sessions`, for more of them than fit into memory."""
        query = select_stored_sessions(wanted or Filter())
        with self.database.reading() as connection:
            for row in connection.execution_options(yield_per=BATCH).execute(query):
                yield table_rows.session_from_table_row(row)

    def gaps(self, wanted: Filter | None = None) -> tuple[Gap, ...]:
        """Return the gaps that match a filter's time, run, host and device, newest first.

        A gap of a whole night matches every model, target, artifact and device.
        """
        wanted = wanted or Filter()
        query = select(GAPS).where(*_stored_gap_conditions(wanted)).limit(wanted.newest)
        with self.database.reading() as connection:
            gap_rows = connection.execute(query.order_by(GAPS.c.at.desc(), GAPS.c.number.desc())).all()
        return tuple(table_rows.gap_from_table_row(row) for row in gap_rows)

    def series_keys(self, wanted: Filter | None = None) -> tuple[SeriesKey, ...]:
        """Return the key of every series that a filter's sessions belong to, sorted."""
        columns = [SESSIONS.c[name] for name in SeriesKey.__dataclass_fields__]
        query = select(*columns).where(*_store_conditions(wanted or Filter())).distinct().order_by(*columns)
        with self.database.reading() as connection:
            return tuple(SeriesKey(*row) for row in connection.execute(query))

    def series(self, key: SeriesKey, newest: int | None = None) -> tuple[StoredSession, ...]:
        """Return all sessions of a series, stable or not, oldest first.

        Args:
            key: `StoredSession.series_key` of any of them.
            newest: The largest number of sessions; the last ones are returned.
        """
        return self._oldest_first(select_stored_series(key).limit(newest))

    def trend(self, key: SeriesKey, newest: int | None = None) -> tuple[Point, ...]:
        """Return a series' points: a few narrow columns of `series`, at a tenth of the cost."""
        query = _newest_stored_first(SESSIONS.c.line == key.id, columns=table_rows.POINT).limit(newest)
        with self.database.reading() as connection:
            point_rows = connection.execute(query).all()
        return tuple(Point(*row) for row in reversed(point_rows))

    def baseline(self, session: StoredSession, count: int = BASELINE_SESSIONS) -> tuple[StoredSession, ...]:
        """Return the last `count` stable sessions to compare a session with, oldest first.

        They have its series key and comparability key, started earlier, belong to other runs and are not
        marked as regressed. There may be fewer than `count`.
        """
        return self._oldest_first(select_stored_baseline(session).limit(count))

    def earlier(self, session: StoredSession, count: int = BASELINE_SESSIONS) -> tuple[StoredSession, ...]:
        """Return the last `count` sessions of its series, stable or not, to compare a session's quality with.

        They started earlier, belong to other runs and are not marked as regressed; oldest first.
        """
        return self._oldest_first(select_stored_earlier(session).limit(count))

    def _oldest_first(self, query: Select[Any]) -> tuple[StoredSession, ...]:
        with self.database.reading() as connection:
            session_rows = connection.execute(query).all()
        return tuple(table_rows.session_from_table_row(row) for row in reversed(session_rows))


def select_stored_sessions(wanted: Filter) -> Select[Any]:
    """Select the sessions that match a filter, newest first."""
    return _newest_stored_first(*_store_conditions(wanted)).limit(wanted.newest)


def select_stored_series(key: SeriesKey) -> Select[Any]:
    """Select the sessions of a series, newest first."""
    return _newest_stored_first(SESSIONS.c.line == key.id)


def select_stored_baseline(session: StoredSession) -> Select[Any]:
    """Select the sessions of `History.baseline`, newest first."""
    return _newest_stored_first(
        SESSIONS.c.line == session.series_key.id,
        SESSIONS.c.footing == session.comparability_key,
        SESSIONS.c.stable.is_(True),
        *_stored_baseline_conditions(session),
    )


def select_stored_earlier(session: StoredSession) -> Select[Any]:
    """Select the sessions of `History.earlier`, newest first."""
    return _newest_stored_first(
        SESSIONS.c.line == session.series_key.id, *_stored_baseline_conditions(session)
    )


def _stored_baseline_conditions(session: StoredSession) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions: earlier, of another run, since the last accepted level, and not marked."""
    other = SESSIONS.alias().c
    last_accepted = (
        select(func.max(other.started_at))
        .where(other.line == session.series_key.id, other.accepted.is_(True))
        .where(other.started_at < session.started_at)
        .scalar_subquery()
    )
    return (
        SESSIONS.c.started_at < session.started_at,
        SESSIONS.c.run != session.run,
        SESSIONS.c.regressed.is_(False),
        or_(last_accepted.is_(None), SESSIONS.c.started_at >= last_accepted),
    )


def _newest_stored_first(
    *conditions: ColumnElement[bool], columns: Sequence[Any] = table_rows.COLUMNS
) -> Select[Any]:
    order = (SESSIONS.c.started_at.desc(), SESSIONS.c.number.desc())
    return select(*columns).where(*conditions).order_by(*order)


def _store_conditions(wanted: Filter) -> Iterator[ColumnElement[bool]]:
    for name in ("model", "target", "artifact", "evidence", "run", "host", "stable"):
        value = getattr(wanted, name)
        if value is not None:
            yield SESSIONS.c[name] == value
    if wanted.device is not None:
        yield SESSIONS.c.device.in_((wanted.device, history_record_device_hash(wanted.device)))
    if wanted.since is not None:
        yield SESSIONS.c.started_at >= wanted.since
    if wanted.until is not None:
        yield SESSIONS.c.started_at < wanted.until


def _stored_gap_conditions(wanted: Filter) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions for gaps; a gap that names no model matches every model, and so on."""
    for name in ("run", "host"):
        value = getattr(wanted, name)
        if value is not None:
            yield GAPS.c[name] == value
    for name in ("model", "target", "artifact"):
        value = getattr(wanted, name)
        if value is not None:
            yield GAPS.c[name].in_((value, ""))
    if wanted.device is not None:
        yield or_(
            GAPS.c.device == "", GAPS.c.device.in_((wanted.device, history_record_device_hash(wanted.device)))
        )
    if wanted.since is not None:
        yield GAPS.c.at >= wanted.since
    if wanted.until is not None:
        yield GAPS.c.at < wanted.until


def _insert_into_store(connection: Connection, table: Table, values: dict[str, Any]) -> int | None:
    """Insert a row and return its number; return None if a row with the same key exists."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    unique = "session" if table is SAMPLES else "key"
    statement = insert(table).values(values).on_conflict_do_nothing(index_elements=[unique])
    number: int | None = connection.scalar(statement.returning(*table.primary_key))
    return number


def _not_in_store(key: str) -> HistoryError:
    return HistoryError(f"No session has the key {key!r}.", "`export-mobile history` lists the sessions.")


def _stored_number(connection: Connection, key: str, content: str) -> int:
    query = select(SESSIONS.c.number, SESSIONS.c.content).where(SESSIONS.c.key == key)
    number, known_content = connection.execute(query).one()
    if known_content != content:
        raise HistoryError(
            f"Two different sessions have the key {key}; the stored session is kept.",
            "A key belongs to one measurement: use another key for the new session.",
        )
    return int(number)
