"""`History`: sessions go in once and never get lost; they come out by filter, by series, or as a baseline."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from sqlalchemy import ColumnElement, Connection, Select, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import aliased

from android_harness.errors import HistoryError
from android_harness.history import packing, rows, schema
from android_harness.history.database import Database
from android_harness.history.records import (
    BASELINE_SESSIONS,
    Filter,
    Gap,
    Point,
    Samples,
    SeriesKey,
    StoredSession,
    device_hash,
)
from android_harness.history.tables import GapRow, SamplesRow, SessionRow

BATCH = 1000
"""Rows held in memory at once while iterating."""


class History:
    """An open history. Use it in a `with`, or close it.

    Every method raises `HistoryError` where the database refuses.

    Args:
        location: A file for SQLite, or a URL.
        must_exist: Whether a missing file is an error.
    """

    def __init__(self, location: str, must_exist: bool = False) -> None:
        self.database = Database(location, must_exist)
        try:
            self._bring_up_to_date()
        except BaseException:
            self.database.close()
            raise

    @property
    def where(self) -> str:
        """The file, or the URL without its password."""
        return self.database.where

    def _bring_up_to_date(self) -> None:
        with self.database.reading() as connection:
            current = schema.is_current(connection, self.where)
        if not current:
            with self.database.writing() as connection:
                schema.upgrade(connection, self.where)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.database.close()

    def add(self, session: StoredSession, samples: Samples | None = None) -> bool:
        """Remember a session; once it returns, it is on disk.

        Args:
            session: What was measured; its key decides whether it is known.
            samples: The raw samples.

        Returns:
            Whether it was new. What is known already stays as it is.

        Raises:
            HistoryError: Another session has this key.
        """
        columns = rows.columns(session)
        packed = packing.pack(samples) if samples else None
        with self.database.writing() as connection:
            number = _insert(connection, SessionRow, columns)
            new = number is not None
            if number is None:
                number = _known(connection, session.key, columns["content"])
            if packed is not None:
                _insert(connection, SamplesRow, {"session": number, "packed": packed}, "session")
        return new

    def add_gap(self, gap: Gap) -> bool:
        """Remember that nothing was measured; whether that was new."""
        with self.database.writing() as connection:
            return _insert(connection, GapRow, vars(gap)) is not None

    def mark(self, key: str, *, regressed: bool) -> None:
        """Take a session out of what others are held against, or back into it.

        Raises:
            HistoryError: There is no such session.
        """
        change = update(SessionRow).where(SessionRow.key == key).values(regressed=regressed)
        with self.database.writing() as connection:
            if connection.execute(change).rowcount == 0:
                raise _unknown(key)

    def accept(self, key: str) -> StoredSession:
        """Make a session's level the new normal: the baseline of its line begins with it.

        Raises:
            HistoryError: There is no such session.
        """
        with self.database.writing() as connection:
            row = connection.execute(select(*rows.COLUMNS).where(SessionRow.key == key)).first()
            if row is None:
                raise _unknown(key)
            found = rows.session(row)
            connection.execute(update(SessionRow).where(SessionRow.key == key).values(accepted=True))
            since = (SessionRow.line == found.series_key.id, SessionRow.started_at >= found.started_at)
            connection.execute(update(SessionRow).where(*since).values(regressed=False))
        return replace(found, accepted=True, regressed=False)

    def get(self, key: str) -> StoredSession | None:
        """The session of a key."""
        with self.database.reading() as connection:
            row = connection.execute(select(*rows.COLUMNS).where(SessionRow.key == key)).first()
        return rows.session(row) if row else None

    def get_all(self, keys: Collection[str]) -> dict[str, StoredSession]:
        """The sessions of some keys, by key; without those that are not there, or no more."""
        query = select(*rows.COLUMNS).where(SessionRow.key.in_(keys))
        with self.database.reading() as connection:
            found = map(rows.session, connection.execute(query))
            return {one.key: one for one in found}

    def find(self, beginning: str) -> StoredSession:
        """The session whose key begins so.

        Raises:
            HistoryError: There is none, or there are several.
        """
        alike = SessionRow.key.startswith(beginning, autoescape=True)
        query = select(*rows.COLUMNS).where(alike).order_by(SessionRow.key).limit(2)
        with self.database.reading() as connection:
            found = [rows.session(row) for row in connection.execute(query)]
        if not found:
            raise _unknown(beginning)
        if len(found) > 1 and found[0].key != beginning:
            raise HistoryError(
                f"Several sessions have keys that begin with {beginning!r}.", "Give more of it."
            )
        return found[0]

    def samples(self, key: str) -> Samples | None:
        """The raw samples of a session; None where there are none, or no more.

        Raises:
            HistoryError: They are damaged.
        """
        wanted = select(SamplesRow.packed).join(SessionRow).where(SessionRow.key == key)
        with self.database.reading() as connection:
            packed = connection.scalar(wanted)
        try:
            return packing.unpack(packed) if packed is not None else None
        except packing.Damaged as error:
            raise HistoryError(
                f"The samples of session {key} in {self.where} are damaged: {error}."
            ) from None

    def sessions(self, wanted: Filter | None = None) -> tuple[StoredSession, ...]:
        """What a filter lets through, newest first."""
        return tuple(self.iterate(wanted))

    def iterate(self, wanted: Filter | None = None) -> Iterator[StoredSession]:
        """As `sessions`, for more than fit into memory."""
        query = listing(wanted or Filter())
        with self.database.reading() as connection:
            for row in connection.execution_options(yield_per=BATCH).execute(query):
                yield rows.session(row)

    def gaps(self, wanted: Filter | None = None) -> tuple[Gap, ...]:
        """Gaps within a filter's time, run, host and device, newest first; also of whole nights."""
        wanted = wanted or Filter()
        query = select(GapRow.__table__).where(*_gap_conditions(wanted)).limit(wanted.newest)
        with self.database.reading() as connection:
            found = connection.execute(query.order_by(GapRow.at.desc(), GapRow.number.desc())).all()
        return tuple(rows.gap(row) for row in found)

    def series_keys(self, wanted: Filter | None = None) -> tuple[SeriesKey, ...]:
        """Every line that a filter's sessions belong to, by name."""
        names = tuple(SeriesKey.__dataclass_fields__)
        of = [getattr(SessionRow, name) for name in names]
        query = select(*of).where(*_conditions(wanted or Filter())).distinct().order_by(*of)
        with self.database.reading() as connection:
            return tuple(SeriesKey(*row) for row in connection.execute(query))

    def series(self, key: SeriesKey, newest: int | None = None) -> tuple[StoredSession, ...]:
        """All sessions of a line, stable or not, oldest first.

        Args:
            key: `StoredSession.series_key` of any of them.
            newest: At most so many, the last ones.
        """
        return self._oldest_first(series(key).limit(newest))

    def trend(self, key: SeriesKey, newest: int | None = None) -> tuple[Point, ...]:
        """As `series`, but a few narrow columns of it, at a tenth of the cost."""
        query = _newest_first(SessionRow.line == key.id, columns=rows.POINT).limit(newest)
        with self.database.reading() as connection:
            found = connection.execute(query).all()
        return tuple(Point(*row) for row in reversed(found))

    def baseline(self, session: StoredSession, count: int = BASELINE_SESSIONS) -> tuple[StoredSession, ...]:
        """The last stable sessions that a session may be held against, oldest first; fewer where there are.

        Of the same line and footing, started earlier and in no run of its own, none that is marked.
        """
        return self._oldest_first(baseline(session).limit(count))

    def earlier(self, session: StoredSession, count: int = BASELINE_SESSIONS) -> tuple[StoredSession, ...]:
        """The last of its line before its run, stable or not, oldest first, none marked: for its quality."""
        return self._oldest_first(earlier(session).limit(count))

    def _oldest_first(self, query: Select[Any]) -> tuple[StoredSession, ...]:
        with self.database.reading() as connection:
            found = connection.execute(query).all()
        return tuple(rows.session(row) for row in reversed(found))


def listing(wanted: Filter) -> Select[Any]:
    """What a filter lets through, newest first."""
    return _newest_first(*_conditions(wanted)).limit(wanted.newest)


def series(key: SeriesKey) -> Select[Any]:
    """The sessions of a line, newest first."""
    return _newest_first(SessionRow.line == key.id)


def baseline(session: StoredSession) -> Select[Any]:
    """What a session may be held against, newest first."""
    return _newest_first(
        SessionRow.line == session.series_key.id,
        SessionRow.footing == session.comparability_key,
        SessionRow.stable.is_(True),
        *_counts(session),
    )


def earlier(session: StoredSession) -> Select[Any]:
    """What lies before a session in its line, newest first."""
    return _newest_first(SessionRow.line == session.series_key.id, *_counts(session))


def _counts(session: StoredSession) -> tuple[ColumnElement[bool], ...]:
    """Earlier, not of its own run, not before the last accepted level, and not marked."""
    accepted = aliased(SessionRow)
    last = (
        select(func.max(accepted.started_at))
        .where(accepted.line == session.series_key.id, accepted.accepted.is_(True))
        .where(accepted.started_at < session.started_at)
        .scalar_subquery()
    )
    return (
        SessionRow.started_at < session.started_at,
        SessionRow.run != session.run,
        SessionRow.regressed.is_(False),
        or_(last.is_(None), SessionRow.started_at >= last),
    )


def _newest_first(*conditions: ColumnElement[bool], columns: Sequence[Any] = rows.COLUMNS) -> Select[Any]:
    order = (SessionRow.started_at.desc(), SessionRow.number.desc())
    return select(*columns).where(*conditions).order_by(*order)


def _conditions(wanted: Filter) -> Iterator[ColumnElement[bool]]:
    for name in ("model", "target", "artifact", "evidence", "run", "host", "stable"):
        value = getattr(wanted, name)
        if value is not None:
            yield getattr(SessionRow, name) == value
    if wanted.device is not None:
        yield SessionRow.device.in_((wanted.device, device_hash(wanted.device)))
    if wanted.since is not None:
        yield SessionRow.started_at >= wanted.since
    if wanted.until is not None:
        yield SessionRow.started_at < wanted.until


def _gap_conditions(wanted: Filter) -> Iterator[ColumnElement[bool]]:
    """A gap that names no model, target, … is one of them all."""
    for name in ("run", "host"):
        value = getattr(wanted, name)
        if value is not None:
            yield getattr(GapRow, name) == value
    for name in ("model", "target", "artifact"):
        value = getattr(wanted, name)
        if value is not None:
            yield getattr(GapRow, name).in_((value, ""))
    if wanted.device is not None:
        yield or_(GapRow.device == "", GapRow.device.in_((wanted.device, device_hash(wanted.device))))
    if wanted.since is not None:
        yield GapRow.at >= wanted.since
    if wanted.until is not None:
        yield GapRow.at < wanted.until


def _insert(
    connection: Connection, table: type[Any], values: dict[str, Any], unique: str = "key"
) -> int | None:
    """The new row's number; None where there is one with the same key."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    number = table.session if table is SamplesRow else table.number
    statement = insert(table).values(values).on_conflict_do_nothing(index_elements=[unique])
    found: int | None = connection.scalar(statement.returning(number))
    return found


def _unknown(key: str) -> HistoryError:
    return HistoryError(f"No session has the key {key!r}.", "export-mobile history lists them.")


def _known(connection: Connection, key: str, content: str) -> int:
    query = select(SessionRow.number, SessionRow.content).where(SessionRow.key == key)
    number, known = connection.execute(query).one()
    if known != content:
        raise HistoryError(
            f"Two different sessions have the key {key}; the one that is remembered stays.",
            "A key belongs to one measurement: make another for the new one.",
        )
    return int(number)
