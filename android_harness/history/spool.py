"""Keep sessions in a local folder until the history has them: a database that is away loses nothing."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from android_harness.errors import HistoryError
from android_harness.history import packed_samples
from android_harness.history.records import Samples, StoredSession, history_record_as_json
from android_harness.records import Moment

if TYPE_CHECKING:
    from android_harness.history.store import History

DERIVED = ("device", "stable", "line")
"""What `as_json` adds to a session."""


@dataclass(frozen=True)
class Spool:
    """A folder of sessions that the history does not have yet, one file for each."""

    folder: Path

    def put(self, session: StoredSession, samples: Samples) -> None:
        """Write a session; it is on disk when this returns.

        Raises:
            HistoryError: The folder cannot be written.
        """
        packed = base64.b64encode(packed_samples.pack_samples(samples)).decode()
        path = self._path(session.key)
        aside = path.with_suffix(".new")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            aside.write_text(
                json.dumps({"session": history_record_as_json(session), "samples": packed}), encoding="utf-8"
            )
            aside.replace(path)
        except OSError as error:
            raise HistoryError(
                f"{self.folder} cannot be written: {error.strerror}.", "Check space and permissions."
            ) from error

    def get(self, key: str) -> StoredSession | None:
        """Return the waiting session with this key, if there is one."""
        path = self._path(key)
        return _read_spool(path)[0] if path.is_file() else None

    def flush(self, history: History) -> int:
        """Move every session to the history; return how many there were.

        Raises:
            HistoryError: The history does not take them; those that are left stay here.
        """
        moved = 0
        for path in sorted(self.folder.glob("*.json")):
            session, samples = _read_spool(path)
            history.add(session, samples)
            path.unlink()
            moved += 1
        return moved

    def add(self, history: History, session: StoredSession, samples: Samples) -> None:
        """Write a session here, and move it to the history if that is there.

        Raises:
            HistoryError: The folder cannot be written.
        """
        self.put(session, samples)
        with contextlib.suppress(HistoryError):  # `flush` tells, once the night has measured everything
            history.add(session, samples)
            self._path(session.key).unlink()

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"


def _read_spool(path: Path) -> tuple[StoredSession, Samples]:
    try:
        content = json.loads(path.read_text("utf-8"))
        return _spooled_session(content["session"]), packed_samples.unpack_samples(
            base64.b64decode(content["samples"])
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HistoryError(
            f"{path} is no session of a night: {error}.", "Move it away; the history does not have it."
        ) from error


def _spooled_session(values: Mapping[str, Any]) -> StoredSession:
    fields = {name: value for name, value in values.items() if name not in DERIVED}
    fields |= {name: _spooled_moment(values[name]) for name in ("before", "after")}
    fields |= {"started_at": datetime.fromisoformat(values["started_at"]), "flags": tuple(values["flags"])}
    return StoredSession(**fields)


def _spooled_moment(values: Mapping[str, Any]) -> Moment:
    lists = {name: tuple(values[name]) for name in ("scaling_max_khz", "governors")}
    return Moment(**{**values, **lists})
