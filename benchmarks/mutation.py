"""How many small changes of `exporter/verify/` and `exporter/capture/` the fast tests notice.

    python -m benchmarks.mutation [--sample 400] [--seed 1] [--only GLOB] [--tests A,B] [--minutes 90]
                                  [--budget 240]

mutmut makes the changes (another operator, another number, a removed argument, …) in a copy of the sources
and times the tests, while `mutation_lines.py` notes which test executes which line. `mutation_runner.py` runs
the tests of the changed lines on each change, and then, where none of them fails, all tests of the two rooms.
A change that no test fails on has survived. `--sample` draws from all files, each in proportion to its
changes; 0 takes every change. `--folder` keeps the copy: a run there makes no mutants again.

Changes of prose alone, and of `zip(strict=)` (see `is_text`), are left out unless `--text` is given: what a
message says is not what a gate decides. `docs/development/mutation.md` explains the survivors. mutmut forks,
so this runs on Linux and macOS.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import functools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.mutation_lines import LINES
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
    "tests/verify/test_sweep_decision.py::test_the_curve_is_measured_on_verification_samples",
    "tests/verify/test_sweep_decision.py::test_the_report_shows_the_curve",
    "tests/verify/test_variable_sizes.py",
    "tests/capture/test_torchvision_ops.py::test_torchvision_imports_in_a_fresh_process",
    "tests/capture/test_dynamic_shapes.py::test_artifacts_are_right_at_the_ends_and_between",
    "tests/capture/test_dynamic_shapes.py::test_int8_keeps_the_ranges",
    "tests/capture/test_dynamic_shapes.py::test_the_file_itself_refuses_other_sizes",
    "tests/capture/test_embedded_preprocessing.py::test_artifacts_take_bytes",
    "tests/capture/test_folded_weights.py::test_xnnpack_takes_the_layer",
    "tests/capture/test_sigmoids.py::test_a_detector_that_is_not_trained_passes",
    "tests/verify/test_rounded_quantities.py::test_a_right_picture_passes",
    "tests/capture/test_draws_and_sizes.py::test_a_draw_has_the_users_line_and_the_function_that_it_calls",
)
"""Tests that make real files or start processes: they call most functions, so most mutants would run them.

The last one counts the frames of a stack, to which mutmut adds its own.
"""
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
    equivalent: bool = False
    """Whether the rule of `is_equivalent` says that no input can tell it from the original."""

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
        outcomes = tested(folder, chosen, arguments.minutes, arguments.budget)
        results = [
            replace(m, outcome=outcomes.get(m.name), equivalent=is_equivalent(folder, m)) for m in chosen
        ]
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
    parser.add_argument(
        "--budget", type=float, default=240.0, help="seconds of tests on each mutant, the shortest first"
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
            *("-n0", "-p", "no:cacheprovider", "-p", "benchmarks.mutation_lines", "-m", "not slow"),
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


def tested(folder: Path, chosen: Sequence[Mutant], minutes: float, budget: float) -> dict[str, int]:
    """Test the mutants in a random order until all are done or the time is over; return their outcomes.

    Args:
        folder: The copy.
        chosen: The mutants.
        minutes: The time.
        budget: The seconds that the tests of one mutant take unchanged, at most; the shortest are taken.
    """
    shuffled = random.Random(0).sample(chosen, len(chosen))
    near = tests_by_mutant(folder, shuffled)
    with tempfile.TemporaryDirectory() as exchange:
        listed, outcomes = Path(exchange) / "mutants.json", Path(exchange) / "outcomes.jsonl"
        listed.write_text(json.dumps(near))
        command = [sys.executable, str(RUNNER), str(listed), str(outcomes), str(minutes), str(budget)]
        subprocess.run(
            command, cwd=folder / "mutants", env=_environment(), stdout=subprocess.DEVNULL, check=True
        )
        return dict(json.loads(line) for line in outcomes.read_text().splitlines())


def tests_by_mutant(folder: Path, chosen: Sequence[Mutant]) -> dict[str, list[str]]:
    """Return the tests that execute a line which a mutant changes; those that call it where no line is noted.

    No line is noted of a default argument, which Python evaluates when the module is imported, and none of
    code that runs under a trace function of its own: mutmut's notes have those that call the function.
    """
    record = json.loads((folder / "mutants" / LINES).read_text())
    callers = json.loads((folder / "mutants" / STATS).read_text())["tests_by_mangled_function_name"]
    tests = {}
    for mutant in chosen:
        by_line = record.get(mutant.file, {})
        original, _ = _pair(folder, mutant)
        body = range(original.body[0].lineno, (original.end_lineno or 0) + 1)
        near: set[str] = set()
        for lines in (changed_lines(folder, mutant), body):
            near = near or {test for line in lines for test in by_line.get(str(line), ())}
        near = near or set(callers.get(mutant.name.partition("__mutmut_")[0], ()))
        tests[mutant.name] = sorted(near)
    return tests


def changed_lines(folder: Path, mutant: Mutant) -> set[int]:
    """Return the lines of the original's statements that a mutant changes, in mutmut's file.

    A line of a statement that holds others (`if`, `for`, `with`) stands for its first lines alone.
    """
    source = _source(folder, mutant)
    original, changed = _pair(folder, mutant)
    before, after = (source[f.body[0].lineno - 1 : f.end_lineno] for f in (original, changed))
    first, lines = original.body[0].lineno, set[int]()
    for tag, start, end, *_ in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag != "equal":
            lines.update(range(first + start, first + max(end, start + 1)))
    return {line for changed_line in lines for line in _statement(original, changed_line)}


def _statement(function: ast.FunctionDef, line: int) -> Iterable[int]:
    """Return the lines of the innermost statement around a line, without the statements inside it."""
    inner = [
        node
        for node in ast.walk(function)
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno)
    ]
    if not inner or inner[-1] is function:
        return ()
    last = max(inner, key=lambda node: node.lineno)
    held = [node.lineno for node in ast.iter_child_nodes(last) if isinstance(node, ast.stmt)]
    end = min(held) - 1 if held else last.end_lineno or last.lineno
    return range(last.lineno, max(end, last.lineno) + 1)


def _environment() -> dict[str, str]:
    """Return ours with one thread, as several make a fork of a process that has used them hang.

    `CI` makes property tests try the same examples on every mutant.
    """
    ours = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return ours | {"OMP_NUM_THREADS": "1", "CI": "true"}


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


class _WithoutTags(ast.NodeTransformer):
    """Replaces the tags with which the digest tells kinds of values apart (`_text("slice", …)`) by None."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        tagged = isinstance(node.func, ast.Attribute) and node.func.attr == "_text" and node.args
        if tagged and isinstance(node.args[0], ast.Constant):
            node.args[0] = ast.Constant(None)
        return self.generic_visit(node)


def is_equivalent(folder: Path, mutant: Mutant) -> bool:
    """Tell whether a mutant only renames a tag of the digest: every key of a kind changes alike."""
    before, after = (_WithoutTags().visit(ast.parse(ast.unparse(node))) for node in _pair(folder, mutant))
    return mutant.file.endswith("digest.py") and ast.dump(before) == ast.dump(after)


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
    pair = _pair(folder, mutant)
    source = _source(folder, mutant)
    texts = [{_NUMBER.sub("", line) for line in source[node.lineno - 1 : node.end_lineno]} for node in pair]
    if not any(mark in line for line in texts[0] ^ texts[1] for mark in ("'", '"', "strict=")):
        return False  # most mutants: nothing is parsed for them
    before, after = map(_plain, pair)
    return before == after


def _plain(function: ast.AST) -> str:
    # A round trip through source, as the transformer changes the tree that is shared by all mutants.
    return ast.dump(_WithoutProse().visit(ast.parse(ast.unparse(function))))


@functools.cache
def _source_lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def _source(folder: Path, mutant: Mutant) -> list[str]:
    return _source_lines(folder / "mutants" / mutant.file)


_NUMBER = re.compile(r"__mutmut_\w+")
_functions: dict[Path, Mapping[str, ast.FunctionDef]] = {}


def _pair(folder: Path, mutant: Mutant) -> tuple[ast.FunctionDef, ast.FunctionDef]:
    """Return the original function and the changed one, both under the original's name."""
    path = folder / "mutants" / mutant.file
    if path not in _functions:
        tree = ast.parse(path.read_text())
        _functions[path] = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    name = mutant.name.rpartition(".")[2]
    original = name.rpartition("__mutmut_")[0] + "__mutmut_orig"
    pair = [_functions[path][key] for key in (original, name)]
    for node in pair:
        node.name = original
    return pair[0], pair[1]


def change(folder: Path, mutant: Mutant) -> str:
    """Return a mutant's name and the lines that it changes."""
    before, after = (ast.unparse(node).splitlines() for node in _pair(folder, mutant))
    removed = [f"  - {line.strip()}" for line in before if line not in after]
    added = [f"  + {line.strip()}" for line in after if line not in before]
    outcome = "no test calls it" if mutant.outcome == NO_TEST else f"outcome {mutant.outcome}"
    return "\n".join([f"{mutant.name} ({outcome})", *removed, *added])


def report(chosen: Iterable[Mutant]) -> str:
    """Return a table: mutants, killed and survived per file, and the share killed with its 95 % interval.

    The last line is the same without the mutants that are equivalent by rule.
    """
    by_file: dict[str, list[Mutant]] = defaultdict(list)
    for mutant in chosen:
        by_file[mutant.file].append(mutant)
    rows = [_row(file, own) for file, own in sorted(by_file.items())]
    everything = [mutant for own in by_file.values() for mutant in own]
    totals = [
        _row("all", everything),
        _row("all but equivalent ones", [mutant for mutant in everything if not mutant.equivalent]),
    ]
    head = f"{'file':48} {'mutants':>8} {'killed':>7} {'survived':>9}   share (95 %)"
    return "\n".join([head, *rows, *totals])


def _row(file: str, own: Sequence[Mutant]) -> str:
    tested = [mutant for mutant in own if mutant.outcome is not None]
    killed = sum(mutant.killed for mutant in tested)
    low, high = accuracy_interval(killed, len(tested))
    share = f"{killed / len(tested):.1%} ({low:.0%} to {high:.0%})" if tested else "not tested"
    return f"{file:48} {len(tested):8} {killed:7} {len(tested) - killed:9}   {share}"


if __name__ == "__main__":
    main()
