"""Print figures on the state of the code; tests/test_house.py compares them with the goals.

Tiers of imports, placeholder identifiers in every 1,000 lines, docstrings that begin without a subject, and
the size of modules and functions. STYLE.md says why these.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("exporter", "android_harness")
PLACEHOLDERS = ("found", "one", "told", "kept", "said", "what")
"""Identifiers used in place of the value's own noun."""
NO_SUBJECT = ("Of ", "And ", "Or ", "But ", "With ", "Without ", "By ", "Also ", "So ", "Else ")
"""Words that begin the second half of a sentence."""


@dataclass(frozen=True)
class House:
    """The figures of one set of Python files."""

    files: int
    lines: int
    placeholders: Counter[str]
    docstrings: int
    without_subject: tuple[str, ...]
    """`file:line` of docstrings that begin with one of `NO_SUBJECT`."""
    longest_modules: tuple[tuple[int, str], ...]
    median_function: int
    """The median length of functions in lines."""

    def per_thousand(self, name: str) -> float:
        """Return the occurrences of an identifier in every 1,000 lines."""
        return 1000 * self.placeholders[name] / self.lines


def measure(paths: Sequence[Path]) -> House:
    """Read the files and count."""
    lines, names, functions, docstrings = 0, Counter[str](), list[int](), list[tuple[str, str]]()
    sizes = []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        size = text.count("\n")
        lines += size
        sizes.append((size, path.relative_to(ROOT).as_posix()))
        names.update(identifiers(text))
        tree = ast.parse(text)
        docstrings += [(f"{path.relative_to(ROOT)}:{line}", doc) for line, doc in documented(tree)]
        functions += [
            (node.end_lineno or node.lineno) - node.lineno + 1
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
    return House(
        files=len(paths),
        lines=lines,
        placeholders=Counter({name: names[name] for name in PLACEHOLDERS}),
        docstrings=len(docstrings),
        without_subject=tuple(place for place, doc in docstrings if doc.startswith(NO_SUBJECT)),
        longest_modules=tuple(sorted(sizes, reverse=True)[:5]),
        median_function=sorted(functions)[len(functions) // 2],
    )


def identifiers(text: str) -> Iterator[str]:
    """Yield every name in the code, but not those in comments and strings."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            yield token.string


def documented(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of every docstring, those of constants and fields included."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for child in body if isinstance(body, list) else ():
            if (
                isinstance(child, ast.Expr)
                and isinstance(child.value, ast.Constant)
                and isinstance(child.value.value, str)
            ):
                yield child.lineno, child.value.value


def python_files(*folders: str) -> list[Path]:
    """Return the Python files below folders of the repository, sorted."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def main() -> None:
    """Print the figures of the packages and of the tests."""
    from tests.test_architecture_rules import TIERS

    print(f"tiers of imports: {len(TIERS)}")
    for title, folders in (("packages", PACKAGES), ("tests and benchmarks", ("tests", "benchmarks"))):
        house = measure(python_files(*folders))
        print(f"\n{title}: {house.files} files, {house.lines} lines")
        print(f"  median function {house.median_function} lines")
        for name in PLACEHOLDERS:
            print(f"  {name:6} {house.placeholders[name]:5}  {house.per_thousand(name):5.1f} in 1,000 lines")
        share = f"{len(house.without_subject)} of {house.docstrings}"
        print(f"  docstrings that begin without a subject: {share}")
        for place in house.without_subject[:10]:
            print(f"    {place}")
        for size, name in house.longest_modules:
            print(f"  {size:5} lines  {name}")


if __name__ == "__main__":
    main()
