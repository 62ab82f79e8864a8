"""The README's words are true: its commands run, its tables are complete."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from android_harness import errors as harness
from exporter import errors
from exporter.cli import device
from exporter.cli.app import app
from exporter.config import targets
from exporter.formats import VARIANTS
from exporter.nightly.records import EXIT_CODES
from exporter.pipeline import variants
from exporter.report import manifest
from exporter.report.manifest.schema import Manifest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RUN_ELSEWHERE = {"scripts/test"}
"""Commands that run this test: CI calls exactly them."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    return [
        line for block in blocks("sh") for line in block.splitlines() if line and line not in RUN_ELSEWHERE
    ]


def in_own_environment() -> bool:
    return Path(sys.prefix).resolve() == (ROOT / ".venv").resolve()


def test_the_two_commands_come_first() -> None:
    """A stranger sees them before anything else."""
    assert blocks("sh")[0].splitlines() == ["scripts/demo", "scripts/test"]


def test_every_exit_code_is_in_the_readme() -> None:
    """Of the refusals a user of `export`, `verify`, `release` and the history can meet."""
    more = (harness.HistoryError.exit_code, errors.ReleaseError.exit_code, errors.INTERRUPTED_EXIT_CODE)
    for code in (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, *more):
        assert re.search(rf"^\|[^|]*\b{code}\b[^|]*\|", README, re.MULTILINE), code


def in_table(code: int) -> str | None:
    """The words beside an exit code, in the table that the measuring section has of its own."""
    section = README.partition("## Measure on your phone")[2]
    found = re.search(rf"^\| {code} \| (.+) \|$", section, re.MULTILINE)
    return found[1] if found else None


def test_every_exit_code_of_bench_is_in_the_readme() -> None:
    """And each of them means what the code says."""
    kinds = [c for c in vars(harness).values() if isinstance(c, type) and issubclass(c, harness.HarnessError)]
    codes = {c.exit_code for c in kinds} - {harness.HistoryError.exit_code}
    codes = codes - {1} | set(device.EXIT_CODES.values())
    assert codes == {0, 13, 14, 15, 16, 17, 18, 19}
    assert all(in_table(code) for code in codes)
    words = {"pass": "within budget", "fail": "over budget", "inconclusive": "inconclusive"}
    for verdict, word in {**words, "not_measured": "not measured"}.items():
        assert word in str(in_table(device.EXIT_CODES[verdict]))


def options_of(*command: str) -> set[str]:
    """Long options of a command, as its own --help would list them."""
    found: Any = get_command(app)
    for name in command:
        found = found.commands[name]
    own = {"--json", "--debug", "--help"}
    return {
        option for parameter in found.params for option in parameter.opts if option.startswith("--")
    } - own


@pytest.mark.parametrize("command", ["release", "verify", "diff"])
def test_every_option_for_releases_is_in_the_readme(command: str) -> None:
    """And the command itself, as it is typed."""
    section = README.partition("## Ship it")[2].partition("\n## ")[0]
    assert f"export-mobile {command} demo/" in section
    missing = {o for o in options_of(command) if not re.search(rf"{o}(?![a-z-])", section)}
    assert missing <= {"--jobs", "--out"}  # -o is what the example says


@pytest.mark.parametrize("command", [("devices",), ("bench",), ("runner", "build")])
def test_every_command_and_option_for_phones_is_in_the_readme(command: tuple[str, ...]) -> None:
    """A stranger with a phone finds what there is; and nothing is there that is not."""
    section = README.partition("## Measure on your phone")[2]
    assert f"export-mobile {' '.join(command)}" in section
    missing = {o for o in options_of(*command) if not re.search(rf"{o}(?![a-z-])", section)}
    assert not missing


@pytest.mark.parametrize("command", ["list", "show", "export", "prune", "accept"])
def test_every_option_of_the_history_is_in_the_readme(command: str) -> None:
    """Nobody should have to guess how to forget."""
    section = README.partition("## Remember every measurement")[2].partition("\n## ")[0]
    assert f"history {command}" in section or command == "list"
    missing = {o for o in options_of("history", command) if not re.search(rf"{o}(?![a-z-])", section)}
    assert not missing


def test_no_option_for_phones_is_invented() -> None:
    """What the commands of that section say, the command line accepts."""
    section = README.partition("## Measure on your phone")[2].partition("## Without CUDA")[0]
    lines = re.findall(r"^    (export-mobile .+)$", section, re.MULTILINE)
    assert len(lines) >= 5
    for line in lines:
        first, second = line.split()[1:3] if len(line.split()) > 2 else (line.split()[1], "")
        command = {"runner": ("runner", second), "CKPT": ("export",)}.get(first, (first,))
        assert set(re.findall(r"--[a-z-]+", line)) <= options_of(*command), line


def test_every_exit_code_of_nightly_is_in_the_readme() -> None:
    """And its --help."""
    section = README.partition("## Run it every night")[2].partition("\n## ")[0]
    group: Any = get_command(app)
    told = str(group.commands["nightly"].help)
    for code in {*EXIT_CODES.values(), errors.NightRunningError.exit_code}:
        assert re.search(rf"^\| {code} \| .+ \|$", section, re.MULTILINE), code
        assert re.search(rf"\b{code}\b", told), code
    for word, code in (("slower", 40), ("over budget", 41), ("failed", 42), ("no phone", 43), ("fine", 0)):
        assert re.search(rf"^\| {code} \| .*{word}", section, re.MULTILINE)


def test_every_option_of_nightly_is_in_the_readme() -> None:
    """In its own section."""
    section = README.partition("## Run it every night")[2].partition("\n## ")[0]
    assert "export-mobile nightly" in section
    assert not {o for o in options_of("nightly") if not re.search(rf"{o}(?![a-z-])", section)}


def test_every_variant_is_of_a_format_the_readme_names() -> None:
    """No format is a secret."""
    names = {"executorch": "ExecuTorch", "torchscript": "TorchScript", "onnx": "ONNX", "coreml": "Core ML"}
    for variant in VARIANTS.values():
        assert names[variant.format] in README


def test_the_demos_target_exists() -> None:
    """The first command names a real target."""
    assert "snapdragon865" in {target.name for target in targets.TARGETS}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The project's own programs, and a cache that is empty at first."""
    return os.environ | {
        "PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "EXPORT_MOBILE_CACHE": str(tmp_path_factory.mktemp("cache")),
    }


@pytest.mark.slow
@pytest.mark.xdist_group("demo")
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not in_own_environment(), reason="the README's commands run in the project's .venv")
def test_the_readmes_commands_run(environment: dict[str, str]) -> None:
    """In order, in a shell, as they stand; the demo's export first, then the rest on its files."""
    shutil.rmtree(ROOT / "demo" / "released", ignore_errors=True)  # of an earlier run
    for command in commands():
        command += " --force" if " -o " in command and " release " not in command else ""
        found = subprocess.run(
            ["sh", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert found.returncode == 0, f"{command}\n{found.stdout}\n{found.stderr}"
    _check_the_demo(manifest.load(ROOT / "demo" / "out" / "manifest.json"))


def _check_the_demo(found: Manifest) -> None:
    """Real weights, real photos: fp32 proven to 1e-5, int8 within default limits, no device claimed."""
    rows = {row.name: row for row in found.artifacts}
    assert set(rows) == {v.name for v in variants.plan(targets.get("snapdragon865"))}
    for row in rows.values():
        if row.precision == "fp32":
            assert row.status == "passed"
            assert row.verification is not None
            assert row.verification.max_error is not None
            assert row.verification.max_error <= 1e-5
        if row.precision == "int8":
            assert row.status == "passed", row.reason
            assert row.quantized_weight_fraction is not None
            assert row.quantized_weight_fraction > 0.99
    assert (found.calibration.kind, found.evidence.count) == ("photos", 64)
    assert found.selected is not None
    assert rows[found.selected].status == "passed"
    assert found.verdict.budget == "not_measured"


@pytest.mark.slow
@pytest.mark.xdist_group("demo")
@pytest.mark.skipif(not in_own_environment(), reason="the README's commands run in the project's .venv")
def test_the_readmes_python_runs(tmp_path: Path, environment: dict[str, str]) -> None:
    """The API example, as a plain script; the cache has what the commands before it made."""
    (code,) = blocks("python")
    code = code.replace('out="demo/api"', f'out="{tmp_path / "api"}", formats=("onnx",)')
    subprocess.run([sys.executable, "-m", "exporter.data.demo", "demo"], cwd=ROOT, check=True)
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.startswith(("onnx-", "ort-"))
