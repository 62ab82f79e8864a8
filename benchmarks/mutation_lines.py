"""A pytest plugin that notes which test executes which line of the mutated files.

mutmut notes the tests that *call* a function. A change of one line can only be noticed by the tests that
reach this line, often a few of hundreds, so `mutation_runner.py` runs those first. The plugin is loaded by
`benchmarks.mutation` while mutmut makes its own notes, in mutmut's folder of mutants; a later run adds to the
file what new tests execute.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import coverage

LINES = "lines.json"
"""The record, by file and line: the tests that execute it."""


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Trace files that have mutants; mutmut writes a record beside each."""
    import coverage

    files = [str(path.with_suffix("").resolve()) for path in config.rootpath.rglob("*.py.meta")]
    if files and not config.option.collectonly:
        tracer = coverage.Coverage(data_file=None, config_file=False, include=files)
        tracer.set_option("run:disable_warnings", ["no-data-collected"])
        tracer.start()
        config.pluginmanager.register(LineRecorder(tracer, config.rootpath), "mutation-lines")


class LineRecorder:
    """Traces each test as a context of its own, and writes the record at the end."""

    def __init__(self, tracer: coverage.Coverage, folder: Path) -> None:
        self.tracer = tracer
        self.folder = folder

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Count the lines that follow to this test."""
        self.tracer.switch_context(nodeid)

    def pytest_sessionfinish(self) -> None:
        """Add the lines of these tests to the record."""
        self.tracer.stop()
        record = self.folder / LINES
        earlier = json.loads(record.read_text()) if record.is_file() else {}
        record.write_text(json.dumps(self._merged(earlier)))

    def _merged(self, earlier: dict[str, dict[str, list[str]]]) -> dict[str, dict[str, list[str]]]:
        lines: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for file, by_line in earlier.items():
            for line, tests in by_line.items():
                lines[file][line].update(tests)
        data = self.tracer.get_data()
        for path in data.measured_files():
            file = str(Path(path).relative_to(self.folder))
            for number, tests in data.contexts_by_lineno(path).items():
                lines[file][str(number)].update(test for test in tests if test)
        return {f: {n: sorted(tests) for n, tests in by_line.items()} for f, by_line in lines.items()}
