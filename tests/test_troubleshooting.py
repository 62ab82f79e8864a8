"""Every error names its entry of docs/troubleshooting.md, and every entry is named by an error."""

from __future__ import annotations

import ast
import pickle
import re
from pathlib import Path

import pytest

import android_harness
import exporter
from android_harness import errors as harness
from exporter import cli, errors

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / errors.TROUBLESHOOTING).read_text()
ENTRIES = re.findall(r"^### (.+)$", PAGE, re.MULTILINE)
SOURCES = [
    path
    for package in (exporter, android_harness)
    for path in sorted(Path(str(package.__file__)).parent.rglob("*.py"))
]


def classes() -> list[type[BaseException]]:
    """Return every exception class of the two modules of errors."""
    return [
        value
        for module in (errors, harness)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == module.__name__
    ]


def codes_at(path: Path) -> set[tuple[str, str]]:
    """Return (class, code) of the single refusals in a file that have a finer code, `code="EM-..."`."""
    text = path.read_text(encoding="utf-8")
    return {
        (ast.unparse(node.func).rpartition(".")[2], str(keyword.value.value))
        for node in ast.walk(ast.parse(text if "EM-" in text else ""))  # parsing all takes seconds
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "code" and isinstance(keyword.value, ast.Constant)
    }


REFUSALS = sorted({pair for path in SOURCES for pair in codes_at(path) if pair[1].startswith("EM-")})


def used_codes() -> set[str]:
    own = {str(vars(kind)["code"]) for kind in classes() if "code" in vars(kind)}
    return own | {code for _, code in REFUSALS}


def test_every_code_has_an_entry_and_every_entry_a_code() -> None:
    """A reader who looks up a code finds one entry for it."""
    assert sorted(ENTRIES) == sorted(used_codes())


@pytest.mark.parametrize("kind", classes())
def test_every_class_of_errors_has_a_code_of_its_own(kind: type[BaseException]) -> None:
    """A class without one would send its readers to another class's entry."""
    assert re.fullmatch(r"EM-[A-Z]+(-[A-Z]+)*", str(vars(kind).get("code")))


def test_no_two_classes_share_a_code() -> None:
    """A code says which class it was."""
    codes = [vars(kind).get("code") for kind in classes()]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("kind", [errors.ExportError, errors.CodeInFileError, harness.DeviceError])
def test_the_code_of_one_refusal_survives_the_way_out_of_a_worker(kind: type[BaseException]) -> None:
    """Errors are pickled when a worker raises them."""
    error = pickle.loads(pickle.dumps(kind("message", "hint", "EM-FINER")))
    assert (error.message, error.hint, error.code) == ("message", "hint", "EM-FINER")
    assert pickle.loads(pickle.dumps(kind("message", "hint"))).code == kind.code  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["missing.pth", "--target", "snapdragon865"], "EM-CHECKPOINT"),
        (["missing.pth", "--target", "snapdragon86"], "EM-TARGET"),
        (["verify", "missing"], "EM-NO-EXPORT"),
        (["missing.toml", "--target", "snapdragon865"], "EM-CONFIG"),
        (["history", "list", "--history", "missing/history.sqlite"], "EM-HISTORY"),
    ],
)
def test_a_message_ends_with_the_place_of_its_entry(
    arguments: list[str],
    code: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The last line on standard error leads to the entry."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        cli.main(arguments)
    assert capsys.readouterr().err.splitlines()[-1] == f"See {errors.TROUBLESHOOTING}#{code.lower()}"
    assert f"### {code}\n" in PAGE


@pytest.mark.parametrize(
    ("name", "code"), [*((k.__name__, str(vars(k).get("code"))) for k in classes()), *REFUSALS]
)
def test_an_entry_names_the_exit_code(name: str, code: str) -> None:
    """The number in brackets is one that a command ends with when it raises this."""
    kind = next(kind for kind in classes() if kind.__name__ == name)
    entry = PAGE.partition(f"### {code}\n")[2].partition("\n### ")[0]
    numbers = re.match(r"\s*\*\[([\d or]+)\]\*", entry)
    ends_a_command = hasattr(kind, "exit_code")
    assert str(getattr(kind, "exit_code", "")) in numbers[1].split(" or ") if numbers else not ends_a_command
