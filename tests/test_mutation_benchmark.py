"""How the mutation benchmark chooses its mutants, and the tests that it runs on each."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks import mutation
from benchmarks.mutation_lines import LINES

FILE = "room/module.py"
ORIGINAL = '''\
def x_f__mutmut_orig(a, b=1):
    """Return a number."""
    if a > b:
        for c, d in zip([a], [b], strict=True):
            a += c
    print("no number of ours")
    return (
        a
        + b
    )
'''
CHANGES = [
    ("a > b", "a >= b", {3}),
    ("a += c", "a -= c", {5}),
    ("[a], [b]", "[b]", {4}),
    ("+ b", "- b", {7, 8, 9, 10}),
    ("b=1", "b=2", set()),
    ("no number of ours", "XXno number of oursXX", {6}),
    ("strict=True", "strict=False", {4}),
]
"""What each mutant changes, and the lines of the statement that holds the change."""


CALLERS = {"room.module.x_f": ["t::caller"]}
"""mutmut's note of the tests that call the function."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write the mutants of a function as mutmut does, and which tests execute which lines."""
    mutants = [ORIGINAL.replace(*change[:2]).replace("_orig", f"_{i}") for i, change in enumerate(CHANGES, 1)]
    path = tmp_path / "mutants" / FILE
    path.parent.mkdir(parents=True)
    path.write_text("\n".join([ORIGINAL, *mutants]))
    names = {f"room.module.x_f__mutmut_{i}": None for i in range(1, len(CHANGES) + 1)}
    (path.parent / "module.py.meta").write_text(json.dumps({"exit_code_by_key": names}))
    tests = {"3": ["t::both", "t::inner"], "4": ["t::inner"], "5": ["t::inner"], "6": ["t::both", "t::inner"]}
    (tmp_path / "mutants" / LINES).write_text(json.dumps({FILE: tests | {"7": ["t::both"]}}))
    (tmp_path / "mutants" / mutation.STATS).write_text(
        json.dumps({"tests_by_mangled_function_name": CALLERS})
    )
    return tmp_path


def test_the_lines_of_the_changed_statement_are_found(folder: Path) -> None:
    """A statement over several lines counts whole; one that holds others only up to them."""
    changed = [mutation.changed_lines(folder, mutant) for mutant in mutation.mutants(folder)]
    assert changed == [lines for _, _, lines in CHANGES]


def test_a_mutant_is_given_the_tests_that_reach_it(folder: Path) -> None:
    """A default argument is on no line of a test; then every test of the function may notice."""
    near = mutation.tests_by_mutant(folder, list(mutation.mutants(folder)))
    inner, both = ["t::inner"], ["t::both", "t::inner"]
    assert list(near.values()) == [both, inner, inner, ["t::both"], both, both, inner]


def test_code_that_no_line_is_noted_of_is_given_the_tests_that_call_it(folder: Path) -> None:
    """Code under a trace function of its own is executed, though coverage cannot see it."""
    (folder / "mutants" / LINES).write_text("{}")
    near = mutation.tests_by_mutant(folder, list(mutation.mutants(folder)))
    assert list(near.values()) == [["t::caller"]] * len(CHANGES)


@pytest.mark.parametrize(
    ("file", "change", "equivalent"),
    [
        ("digest.py", ('"slice", a', '"XXsliceXX", a'), True),
        ("digest.py", ('"slice", a', "None, a"), True),
        ("digest.py", ('"slice", a', '"slice", None'), False),
        ("digest.py", ('add("x"', 'add("y"'), False),
        ("other.py", ('"slice", a', '"XXsliceXX", a'), False),
    ],
)
def test_only_another_tag_of_the_digest_is_equivalent(
    tmp_path: Path, file: str, change: tuple[str, str], equivalent: bool
) -> None:
    """A tag under another name changes all keys of a kind; what is hashed under it counts."""
    source = 'def x_f__mutmut_orig(self, a):\n    self._text("slice", a)\n    self.add("x", a)\n'
    (tmp_path / "mutants").mkdir()
    mutant = source.replace("_orig", "_1").replace(*change)
    (tmp_path / "mutants" / file).write_text(f"{source}\n\n{mutant}")
    assert mutation.is_equivalent(tmp_path, mutation.Mutant(file, "x_f__mutmut_1", 0)) is equivalent


def test_prose_and_strict_are_no_mutants(folder: Path) -> None:
    """A message, and zip's assertion of equal lengths, decide nothing."""
    text = [mutation.is_text(folder, mutant) for mutant in mutation.mutants(folder)]
    assert text == [False] * 5 + [True] * 2


def test_each_file_is_drawn_from_in_proportion() -> None:
    """A file with few mutants gives one; the seed decides which ones are drawn."""
    many = [mutation.Mutant("many", f"m{i}", None) for i in range(90)]
    few = [mutation.Mutant("few", f"f{i}", None) for i in range(2)]
    drawn = mutation.sample([*many, *few], 10, 1)
    assert sorted(re.sub(r"\d", "", mutant.name) for mutant in drawn) == ["f"] + ["m"] * 10
    assert drawn == mutation.sample([*many, *few], 10, 1) != mutation.sample([*many, *few], 10, 2)


def test_the_report_counts_what_was_tested() -> None:
    """A timeout counts as killed, and a mutant that was not tried counts not at all."""
    outcomes = [1, 36, 0, 33, None]
    report = mutation.report([mutation.Mutant("a.py", str(i), code) for i, code in enumerate(outcomes)])
    assert re.search(r"^all +4 +2 +2 +50\.0% \(", report, re.MULTILINE)
    tag = mutation.Mutant("a.py", "tag", 0, equivalent=True)
    report = mutation.report([tag, mutation.Mutant("a.py", "0", 1)])
    assert re.search(r"^all +2 +1 +1 +50\.0% \(", report, re.MULTILINE)
    assert re.search(r"^all but equivalent ones +1 +1 +0 +100\.0% \(", report, re.MULTILINE)
