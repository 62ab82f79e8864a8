"""How many small changes of `exporter/verify/` and `exporter/capture/` the fast tests notice.

    python -m benchmarks.mutation [--sample 400] [--seed 1] [--only GLOB] [--tests A,B] [--minutes 90]

mutmut makes the changes (another operator, another number, a removed argument, …) in a copy of the sources,
and notes which test calls which function; `mutation_runner.py` runs those tests on each change. A change that
no test fails on has survived. `--sample` draws from all files, each in proportion to its changes; 0 takes
every change. `--folder` keeps the copy: a run there with another seed makes no mutants again.

Changes of prose alone, and of `zip(strict=)` (see `is_text`), are left out unless `--text` is given: what a
message says is not what a gate decides. `docs/development/mutation.md` explains the survivors. mutmut forks,
so this runs on Linux and macOS.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from exporter.verify.accuracy import accuracy_interval

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
FILES = "exporter/verify/*,exporter/capture/*"
TESTS = (
    "tests/verify,tests/capture,tests/test_gate_faults.py,tests/formats/test_half_precision.py,"
    "tests/formats/test_simulation.py"
)
LEFT_OUT = (
    "tests/verify/test_calibration_sweep.py::test_the_curve_is_measured_on_verification_samples",
    "tests/verify/test_calibration_sweep.py::test_the_report_shows_the_curve",
    "tests/verify/test_variable_sizes.py",
    "tests/capture/test_torchvision_ops.py",
)
"""Tests that make real files or start processes: they call most functions, so most mutants would run them."""
RUNNER = Path(__file__).with_name("mutation_runner.py")
STATS = "mutmut-stats.json"
"""mutmut's record of the tests that call each function, below its folder of mutants."""
KILLED = frozenset({1, 3, 36})
"""Outcomes of a run that noticed: failed tests, an error of pytest's, or a run that never ended."""
NO_TEST = 33
"""The outcome of a change in a function that no test calls."""


@dataclass(frozen=True)
class Mutant:
    """One change: where it is, and the exit code of the tests on it; None when no test has run on it."""

    file: str
    name: str
    outcome: int | None

    @property
    def killed(self) -> bool:
        return self.outcome in KILLED


def main() -> None:
    """Mutate, test for as long as is allowed, and print the share that was noticed."""
    arguments = _parser().parse_args()
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="mutation-"))
        )
        if not (folder / "mutants" / STATS).is_file():
            copy(folder, arguments.only.split(","), arguments.tests.split(","))
            generate(folder)
        population = [m for m in mutants(folder) if arguments.text or not is_text(folder, m)]
        chosen = sample(population, arguments.sample, arguments.seed)
        outcomes = tested(folder, [m.name for m in chosen], arguments.minutes)
        results = [replace(m, outcome=outcomes.get(m.name)) for m in chosen]
        print(f"{len(outcomes)} tested, {len(chosen)} drawn from {len(population)}, seed {arguments.seed}")
        print(report(results))
        for mutant in results:
            if mutant.outcome is not None and not mutant.killed:
                print(change(folder, mutant))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, default=0, help="number of mutants to draw; 0 takes all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--minutes", type=float, default=90.0, help="stop after this long and print what is known"
    )
    parser.add_argument("--only", default=FILES, help="globs of the files to change, with commas between")
    parser.add_argument("--tests", default=TESTS, help="files and folders of tests, with commas between")
    parser.add_argument("--text", action="store_true", help="also take changes of prose alone")
    parser.add_argument("--folder", type=Path, help="an empty folder for the copy, which is kept")
    return parser


def copy(folder: Path, mutated: Sequence[str], tests: Sequence[str]) -> None:
    """Copy what the tests need, and say in the copy's pyproject.toml what is mutated."""
    folder.mkdir(exist_ok=True)
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copyfile(source, folder / name)
    settings = {
        "source_paths": ["exporter"],
        "only_mutate": mutated,
        "also_copy": [name for name in COPIED if (folder / name).exists()],
        "pytest_add_cli_args": [
            *("-n0", "-p", "no:cacheprovider", "-m", "not slow"),
            *(f"--deselect={test}" for test in LEFT_OUT),
        ],
        "pytest_add_cli_args_test_selection": tests,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    with (folder / "pyproject.toml").open("a") as stream:
        stream.write("\n[tool.mutmut]\n" + "\n".join(lines) + "\n")


def generate(folder: Path) -> None:
    """Make all mutants and note which test calls which function, without testing any.

    mutmut does both before it looks for the mutants it was asked for, and ends there as it finds none.
    """
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", "1", "none"]
    subprocess.run(command, cwd=folder, env=_environment(), stdout=sys.stderr, check=False)
    if not (folder / "mutants" / STATS).is_file():
        raise SystemExit("The tests fail on the unchanged copy; mutmut's output is above.")


def tested(folder: Path, names: list[str], minutes: float) -> dict[str, int]:
    """Test the mutants in a random order until all are done or the time is over; return their outcomes."""
    random.Random(0).shuffle(names)
    with tempfile.TemporaryDirectory() as exchange:
        listed, outcomes = Path(exchange) / "mutants.json", Path(exchange) / "outcomes.jsonl"
        listed.write_text(json.dumps(names))
        command = [sys.executable, str(RUNNER), str(listed), str(outcomes), str(minutes)]
        subprocess.run(
            command, cwd=folder / "mutants", env=_environment(), stdout=subprocess.DEVNULL, check=True
        )
        return dict(json.loads(line) for line in outcomes.read_text().splitlines())


def _environment() -> dict[str, str]:
    """Return ours with one thread, as several make a fork of a process that has used them hang."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}


def mutants(folder: Path) -> Iterator[Mutant]:
    """Read mutmut's records, a file beside each mutated source."""
    for path in sorted((folder / "mutants").rglob("*.meta")):
        file = str(path.relative_to(folder / "mutants")).removesuffix(".meta")
        for name, outcome in json.loads(path.read_text())["exit_code_by_key"].items():
            yield Mutant(file, name, outcome)


def sample(population: Sequence[Mutant], size: int, seed: int) -> list[Mutant]:
    """Draw from each file in proportion to its mutants, at least one of each; all when `size` is 0."""
    if not 0 < size < len(population):
        return list(population)
    generator = random.Random(seed)
    by_file: dict[str, list[Mutant]] = defaultdict(list)
    for mutant in population:
        by_file[mutant.file].append(mutant)
    shares = {file: max(1, round(size * len(own) / len(population))) for file, own in by_file.items()}
    return [m for file, own in by_file.items() for m in generator.sample(own, shares[file])]


class _WithoutProse(ast.NodeTransformer):
    """Replaces prose, and the None that mutmut may put in its place, by None; removes `strict` of zip."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id == "zip":
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "strict"]
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        prose = isinstance(node.value, str) and " " in node.value
        return ast.Constant(None) if prose else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.Constant:
        return ast.Constant(None)


def is_text(folder: Path, mutant: Mutant) -> bool:
    """Tell whether a mutant differs from its original in prose alone, or in `strict` of a zip.

    Prose is an f-string, or a string that holds a blank. Names of operators, keys and options hold none.
    `strict` asserts that two sequences of our own are of one length; without it the same pairs come out.
    """
    before, after = (_plain(node) for node in _pair(folder, mutant))
    return before == after


def _plain(function: ast.AST) -> str:
    # A round trip through source, as the transformer changes the tree that is shared by all mutants.
    return ast.dump(_WithoutProse().visit(ast.parse(ast.unparse(function))))


_functions: dict[Path, Mapping[str, ast.AST]] = {}


def _pair(folder: Path, mutant: Mutant) -> tuple[ast.AST, ast.AST]:
    """Return the original function and the changed one, both under the original's name."""
    path = folder / "mutants" / mutant.file
    if path not in _functions:
        tree = ast.parse(path.read_text())
        _functions[path] = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    name = mutant.name.rpartition(".")[2]
    original = name.rpartition("__mutmut_")[0] + "__mutmut_orig"
    pair = [_functions[path][key] for key in (original, name)]
    for node in pair:
        node.name = original  # type: ignore[attr-defined]
    return pair[0], pair[1]


def change(folder: Path, mutant: Mutant) -> str:
    """Return a mutant's name and the lines that it changes."""
    before, after = (ast.unparse(node).splitlines() for node in _pair(folder, mutant))
    removed = [f"  - {line.strip()}" for line in before if line not in after]
    added = [f"  + {line.strip()}" for line in after if line not in before]
    outcome = "no test calls it" if mutant.outcome == NO_TEST else f"outcome {mutant.outcome}"
    return "\n".join([f"{mutant.name} ({outcome})", *removed, *added])


def report(chosen: Iterable[Mutant]) -> str:
    """Return a table: mutants, killed and survived per file, and the share killed with its 95 % interval."""
    by_file: dict[str, list[Mutant]] = defaultdict(list)
    for mutant in chosen:
        by_file[mutant.file].append(mutant)
    rows = [_row(file, own) for file, own in sorted(by_file.items())]
    total = _row("all", [mutant for own in by_file.values() for mutant in own])
    head = f"{'file':48} {'mutants':>8} {'killed':>7} {'survived':>9}   share (95 %)"
    return "\n".join([head, *rows, total])


def _row(file: str, own: Sequence[Mutant]) -> str:
    tested = [mutant for mutant in own if mutant.outcome is not None]
    killed = sum(mutant.killed for mutant in tested)
    low, high = accuracy_interval(killed, len(tested))
    share = f"{killed / len(tested):.1%} ({low:.0%} to {high:.0%})" if tested else "not tested"
    return f"{file:48} {len(tested):8} {killed:7} {len(tested) - killed:9}   {share}"


if __name__ == "__main__":
    main()
