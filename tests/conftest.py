"""Set-up of every test run."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from unittest import mock

import hypothesis
import pytest

from exporter.pipeline.workers import pool


def pytest_configure() -> None:
    """Compute on one core; take Ctrl-C, which a shell has its background jobs ignore; be patient."""
    # Threads of several test processes on few cores spin for each other: four times the CPU time of int8.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("EXPORT_MOBILE_ESTIMATE", "0")  # a test that wants estimates asks for them
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # An example may take long on a busy machine. What CI sets stays: the same examples every time.
    hypothesis.settings.register_profile("patient", parent=hypothesis.settings.default, deadline=None)
    hypothesis.settings.load_profile("patient")


@pytest.fixture(autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep saved launches, leases and spools of tests apart from those of the user."""
    monkeypatch.setenv("EXPORT_MOBILE_STATE", str(tmp_path_factory.getbasetemp() / "state"))


@pytest.fixture(scope="session", autouse=True)
def warm_workers() -> Iterator[None]:
    """Import the frameworks once for all exports of a test process."""
    with pool.keep_pool_warm():
        yield


@pytest.fixture(scope="module")
def audits_share_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Import the frameworks once for all audits of a module."""
    with pool.WorkerPool(2, tmp_path_factory.mktemp("workers") / "log") as workers:
        shared = mock.MagicMock()
        shared.return_value.__enter__.return_value = workers
        with mock.patch("exporter.pipeline.audit.WorkerPool", shared):
            yield


MODULES_OF_A_FRAMEWORK = 100
"""Importing so many modules makes enough objects that garbage collection is to be spared them."""
_frozen_modules = 0


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Take imported frameworks and collected tests out of garbage collection, as workers do.

    Lowering makes so many objects that they would be walked again and again.
    """
    global _frozen_modules
    if len(sys.modules) >= _frozen_modules + MODULES_OF_A_FRAMEWORK:
        gc.collect()
        gc.freeze()
        _frozen_modules = len(sys.modules)


LONGEST_GROUPS = ("demo", "simulated", "faults", "pipeline")
"""Groups whose tests take minutes, one after the other. They begin first: else a core waits at the end."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run those tests of a file in one process that are slow or share a fixture, so that it is made once."""
    for item in items:
        if item.get_closest_marker("xdist_group"):
            continue
        if item.get_closest_marker("slow") or _shares_fixture(item):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    if hasattr(config, "workerinput"):  # else one process runs them all
        items.sort(key=_place_in_run)


def _place_in_run(item: pytest.Item) -> int:
    """Return 0 for a test of the longest group, and most for one without a group."""
    marker = item.get_closest_marker("xdist_group")
    if marker is None:
        return len(LONGEST_GROUPS) + 1
    (group,) = marker.args
    return LONGEST_GROUPS.index(group) if group in LONGEST_GROUPS else len(LONGEST_GROUPS)


def _shares_fixture(item: pytest.Item) -> bool:
    """Tell whether a test uses a fixture that is made once for its file."""
    fixtures = item._fixtureinfo.name2fixturedefs.values()  # type: ignore[attr-defined]
    return any(definitions[-1].scope == "module" for definitions in fixtures)
