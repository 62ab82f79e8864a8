"""Runs tests on mutants, a fork for each; `benchmarks.mutation` starts it in mutmut's folder of mutants.

    python mutation_runner.py MUTANTS.json OUTCOMES.jsonl MINUTES BUDGET

MUTANTS.json holds, for each mutant, the tests that execute a line which it changes. pytest collects the files
of these tests once, and every mutant is tested in a fork of that process, so that a mutant costs the time of
its tests alone. The shortest test runs first, up to BUDGET seconds. The mutants come in the order of the
list: a run that is stopped has tested a sample of them all. In the time that is left then, survivors are
given all tests of the same files, so that no wrong choice of tests lets them survive.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

SURVIVED = 0
FAILED = (1, 3)
"""Failed tests, or an error of pytest's."""
NO_TEST = 33
TIMED_OUT = 36
PATIENCE = 15.0
"""A run may take so many times what its tests take unchanged, and a minute: machines are busy."""
ARGUMENTS = ("-x", "-q", "-n0", "-p", "no:cacheprovider", "--rootdir=.")


@dataclass(frozen=True)
class MutantTests:
    """The loop that takes the place of pytest's own once the tests are collected."""

    mutants: Mapping[str, Sequence[str]]
    """The tests that execute a line which the mutant changes."""
    outcomes: Path
    durations: Mapping[str, float]
    end: float
    """A time of the monotonic clock; no mutant is begun after it."""
    budget: float
    """Tests are chosen, shortest first, until they take this many seconds unchanged."""

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Test the mutants one after the other, then the survivors again; append a line for each outcome."""
        items = {item.nodeid: item for item in session.items if item.nodeid in self.durations}
        survivors: dict[str, list[pytest.Item]] = {}
        with self.outcomes.open("a", buffering=1) as stream:
            for mutant, tests in self.mutants.items():
                if time.monotonic() > self.end:
                    return True
                near = [items[test] for test in self._shortest_first(tests) if test in items]
                outcome = self._outcome(session, mutant, self.chosen(near))
                stream.write(json.dumps([mutant, outcome]) + "\n")
                if outcome == SURVIVED:
                    survivors[mutant] = near
            for mutant, near in survivors.items():
                if time.monotonic() < self.end and self._is_failed_by_others(session, mutant, near):
                    stream.write(json.dumps([mutant, FAILED[0]]) + "\n")
        return True

    def _is_failed_by_others(self, session: pytest.Session, mutant: str, near: Sequence[pytest.Item]) -> bool:
        """Tell whether a survivor fails a test of the same files, which pass on the unchanged code.

        A fixture of a file is made by its first test, and only this one is seen to execute the lines.
        """
        files = {item.path for item in near}
        others = [i for i in session.items if i.nodeid in self.durations and i.path in files]
        if self._outcome(session, mutant, others) not in FAILED:
            return False
        return self._outcome(session, "", others) == SURVIVED

    def chosen(self, tests: Sequence[pytest.Item]) -> list[pytest.Item]:
        """Return the first of the tests, as many as the budget holds and at least one."""
        spent, chosen = 0.0, list[pytest.Item]()
        for test in tests:
            spent += self.durations[test.nodeid]
            if chosen and spent > self.budget:
                break
            chosen.append(test)
        return chosen

    def _shortest_first(self, tests: Iterable[str]) -> list[str]:
        return sorted((test for test in tests if test in self.durations), key=self.durations.__getitem__)

    def _outcome(self, session: pytest.Session, mutant: str, own: list[pytest.Item]) -> int:
        if not own:
            return NO_TEST
        child = os.fork()
        if child == 0:
            _run(session, mutant, own)
        end = time.monotonic() + 60 + PATIENCE * sum(self.durations[item.nodeid] for item in own)
        while time.monotonic() < end:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return TIMED_OUT


def main(names: Path, outcomes: Path, minutes: float, budget: float) -> None:
    """Collect the files of tests that the mutants need, and test each mutant."""
    sys.path[0] = str(Path.cwd())
    os.environ["MUTANT_UNDER_TEST"] = ""
    end = time.monotonic() + 60 * minutes
    durations = json.loads(Path("mutmut-stats.json").read_text())["duration_by_test"]
    loop = MutantTests(json.loads(names.read_text()), outcomes, durations, end, budget)
    files = sorted({test.partition("::")[0] for tests in loop.mutants.values() for test in tests})
    _warm_export()
    pytest.main([*ARGUMENTS, *files], plugins=[loop])


def _warm_export() -> None:
    """Export a small network, so that no fork has to import what torch.export imports."""
    import torch

    torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)).run_decompositions()


def _run(session: pytest.Session, mutant: str, own: list[pytest.Item]) -> None:
    """Run tests on a mutant in this process, a fork, up to the first failure, and end it."""
    os.environ["MUTANT_UNDER_TEST"] = mutant
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    code = 3
    try:
        for item, following in zip(own, [*own[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed:
                break
        code = int(session.testsfailed > 0)
    finally:
        os._exit(code)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
