"""Runs tests on mutants, a fork for each; `benchmarks.mutation` starts it in mutmut's folder of mutants.

    python mutation_runner.py MUTANTS.json OUTCOMES.jsonl MINUTES

pytest collects all tests once, and every mutant is tested in a fork of that process, so that a mutant
costs the time of its tests alone. The shortest test runs first, and the mutants come in the order of the
list: a run that is stopped has tested a sample of them all. A mutant that no test fails on within `BUDGET`
seconds counts as survived, which can only make the share of killed mutants smaller.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

NO_TEST = 33
TIMED_OUT = 36
BUDGET = 60.0
"""Tests are chosen, shortest first, until they take this many seconds unchanged."""
PATIENCE = 15.0
"""A run may take so many times what its tests take unchanged, and a minute: machines are busy."""
ARGUMENTS = ("-x", "-q", "-n0", "-p", "no:cacheprovider", "--rootdir=.")


@dataclass(frozen=True)
class MutantTests:
    """The loop that takes the place of pytest's own once the tests are collected."""

    mutants: Sequence[str]
    outcomes: Path
    tests: Mapping[str, Sequence[str]]
    """The tests that call each function."""
    durations: Mapping[str, float]
    end: float
    """A time of the monotonic clock; no mutant is begun after it."""

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Test the mutants one after the other, and append a line with the outcome of each."""
        items = {item.nodeid: item for item in session.items}
        with self.outcomes.open("a", buffering=1) as stream:
            for mutant in self.mutants:
                if time.monotonic() > self.end:
                    break
                own = [items[test] for test in self.chosen(mutant) if test in items]
                stream.write(json.dumps([mutant, self._outcome(session, mutant, own)]) + "\n")
        return True

    def chosen(self, mutant: str) -> list[str]:
        """Return the tests that call a mutant's function, the shortest first, as many as the budget holds."""
        own = sorted(self.tests.get(mutant.partition("__mutmut_")[0], ()), key=self.durations.__getitem__)
        spent, chosen = 0.0, list[str]()
        for test in own:
            spent += self.durations[test]
            if chosen and spent > BUDGET:
                break
            chosen.append(test)
        return chosen

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


def main(names: Path, outcomes: Path, minutes: float) -> None:
    """Collect the tests that call any of the mutants, and test each mutant."""
    sys.path[0] = str(Path.cwd())
    os.environ["MUTANT_UNDER_TEST"] = ""
    end = time.monotonic() + 60 * minutes
    stats = json.loads(Path("mutmut-stats.json").read_text())
    tests, durations = stats["tests_by_mangled_function_name"], stats["duration_by_test"]
    loop = MutantTests(json.loads(names.read_text()), outcomes, tests, durations, end)
    files = sorted({test.partition("::")[0] for mutant in loop.mutants for test in loop.chosen(mutant)})
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
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
