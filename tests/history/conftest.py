"""Every test with the fixture `memory` or `location` runs on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete

from android_harness import history
from android_harness.history import tables
from android_harness.history.store import History
from tests.history import postgres

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.xdist_group("postgresql"))]
"""One worker runs all tests of PostgreSQL, so that only one server is started."""


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Server]:
    if reason := postgres.why_not():
        pytest.skip(reason)
    with postgres.running() as running:
        yield running


@pytest.fixture(scope="module", params=BOTH)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """Return a history that is migrated once per module, which takes longer than most tests."""
    with history.open_history(_new(request, tmp_path_factory.mktemp("history"))) as opened:
        yield opened


@pytest.fixture
def memory(shared: History) -> History:
    """Return an empty history."""
    with shared.database.writing() as connection:
        for table in reversed(tables.METADATA.sorted_tables):
            connection.execute(delete(table))
    return shared


@pytest.fixture(params=BOTH)
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return a location without a history."""
    return _new(request, tmp_path)


def _new(request: pytest.FixtureRequest, folder: Path) -> str:
    if request.param == "sqlite":
        return str(folder / "history.sqlite")
    server: postgres.Server = request.getfixturevalue("server")
    return server.new_location()
