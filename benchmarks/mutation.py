"""How many small changes of `exporter/verify/` and `exporter/capture/` the fast tests of those rooms notice.

    python -m benchmarks.mutation [--room verify|capture] [--minutes 60] [--only GLOB] [--tests A,B]

mutmut makes the changes (another operator, another number, a removed argument, …) in a copy of the sources
and runs the tests that reach each of them. A change that no test fails on has survived. It is printed with
its file and the line of its function. mutmut forks, so this runs on Linux and macOS.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = (
    "exporter",
    "android_harness",
    "tests",
    "benchmarks",
    "models",
    "docs",
    "pyproject.toml",
    "README.md",
)
KILLED = frozenset({1, 3, -24, 24, 36, 152, 255})
"""Exit codes of a test run that noticed: failed tests, an error of pytest's, or a run that took too long."""
SURVIVED = 0
ROOMS = ("verify", "capture")


@dataclass(frozen=True)
class Mutant:
    """One change: where it is, and what the tests said. `outcome` is None when no test has run on it."""

    file: str
    line: int
    name: str
    outcome: int | None


def main() -> None:
    """Mutate, test for as long as is allowed, and print the share that was noticed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--room", choices=ROOMS, default="verify")
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="stop after this long and print what is known"
    )
    parser.add_argument("--only", default="*", help="files below the room, as gates/*")
    parser.add_argument("--tests", help="files of tests instead of the room's, with commas between")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        tests = arguments.tests.split(",") if arguments.tests else [f"tests/{arguments.room}"]
        copy(Path(folder), f"exporter/{arguments.room}/{arguments.only}", tests)
        mutate(Path(folder), arguments.minutes * 60)
        found = list(mutants(Path(folder)))
    print(report(found))


def copy(folder: Path, mutated: str, tests: list[str]) -> None:
    """Copy what the tests need, and say in the copy's pyproject.toml what is mutated."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copyfile(source, folder / name)
    settings = {
        "source_paths": ["exporter"],
        "only_mutate": [mutated],
        "also_copy": [name for name in COPIED if (folder / name).exists()],
        "pytest_add_cli_args": ["-n0", "-p", "no:cacheprovider", "-m", "not slow"],
        "pytest_add_cli_args_test_selection": tests,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    with (folder / "pyproject.toml").open("a") as stream:
        stream.write("\n[tool.mutmut]\n" + "\n".join(lines) + "\n")


def mutate(folder: Path, seconds: float) -> None:
    """Run mutmut until it is done or the time is over; it writes each outcome at once."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    workers = str(len(os.sched_getaffinity(0)))
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", workers]
    with contextlib.suppress(subprocess.TimeoutExpired):
        # Its exit code says whether mutants survived, which is read from its records.
        subprocess.run(command, cwd=folder, env=environment, timeout=seconds, stdout=sys.stderr, check=False)


def mutants(folder: Path) -> Iterator[Mutant]:
    """Read mutmut's records, a file beside each mutated source."""
    for path in sorted((folder / "mutants").rglob("*.meta")):
        file = str(path.relative_to(folder / "mutants")).removesuffix(".meta")
        for name, outcome in json.loads(path.read_text())["exit_code_by_key"].items():
            yield Mutant(file, line_of(folder / file, name), name, outcome)


def line_of(source: Path, mutant: str) -> int:
    """Return the line of the function that a mutant's name is made of: `package.x_function__mutmut_3`."""
    function = mutant.rpartition(".")[2].partition("__mutmut_")[0].removeprefix("x_").rpartition("ǁ")[2]
    lines = source.read_text().splitlines()
    return next((i for i, line in enumerate(lines, 1) if f"def {function}(" in line), 0)


def report(found: list[Mutant]) -> str:
    """Return the figures and every survivor."""
    tested = [mutant for mutant in found if mutant.outcome is not None]
    survivors = [mutant for mutant in tested if mutant.outcome not in KILLED]
    killed = len(tested) - len(survivors)
    share = f"{killed / len(tested):.1%}" if tested else "none"
    lines = [f"{killed} of {len(tested)} mutants killed ({share}); {len(found) - len(tested)} not tested."]
    by_function = Counter((m.file, m.line) for m in survivors)
    lines += [f"{file}:{line}: {count} survived" for (file, line), count in sorted(by_function.items())]
    lines += [f"  {m.name}" + ("" if m.outcome == SURVIVED else f" (outcome {m.outcome})") for m in survivors]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
