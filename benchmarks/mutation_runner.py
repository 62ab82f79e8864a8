"""Runs tests on mutants, a fork for each; `benchmarks.mutation` starts it in mutmut's folder of mutants.

    python mutation_runner.py MUTANTS.json OUTCOMES.jsonl MINUTES

mutmut's own runner runs the tests of a mutant in no order, so that one that is noticed at once may cost as
much as one that is not. Here the shortest test runs first, and the mutants come in the order of the list: a
run that is stopped has tested a sample of them all.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

NO_TEST = 33
TIMED_OUT = 36
PATIENCE = 15.0
"""A run may take so many times what its tests take unchanged, and a minute: machines are busy."""
ARGUMENTS = ("-x", "-q", "-n0", "-p", "no:cacheprovider", "--rootdir=.")


def main(names: Path, outcomes: Path, minutes: float) -> None:
    """Test the mutants one after the other, and append a line with the outcome of each."""
    sys.path[0] = str(Path.cwd())
    stats = json.loads(Path("mutmut-stats.json").read_text())
    tests, durations = stats["tests_by_mangled_function_name"], stats["duration_by_test"]
    _import_all(sorted({test.partition("::")[0] for own in tests.values() for test in own}))
    end = time.monotonic() + 60 * minutes
    with outcomes.open("a", buffering=1) as stream:
        for name in json.loads(names.read_text()):
            if time.monotonic() > end:
                return
            own = sorted(tests.get(_function(name), ()), key=lambda test: durations[test])
            stream.write(json.dumps([name, _outcome(name, own, durations)]) + "\n")


def _function(mutant: str) -> str:
    return mutant.partition("__mutmut_")[0]


def _import_all(files: Sequence[str]) -> None:
    """Import the test files, and all that they import, before any fork."""
    import pytest

    os.environ["MUTANT_UNDER_TEST"] = ""
    pytest.main(["--collect-only", "-qqq", *ARGUMENTS, *files])


def _outcome(mutant: str, tests: Sequence[str], durations: Mapping[str, float]) -> int:
    if not tests:
        return NO_TEST
    child = os.fork()
    if child == 0:
        _run(mutant, tests)
    end = time.monotonic() + 60 + PATIENCE * sum(durations[test] for test in tests)
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return TIMED_OUT


def _run(mutant: str, tests: Sequence[str]) -> None:
    import pytest

    os.environ["MUTANT_UNDER_TEST"] = mutant
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    code = 3
    try:
        code = int(pytest.main([*ARGUMENTS, *tests]))
    finally:
        os._exit(code)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
