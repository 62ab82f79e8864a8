"""The documentation is true: its commands run, its tables are complete, its links lead somewhere."""

from __future__ import annotations

import os
import re
import runpy
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
from exporter.formats import VARIANTS, Format
from exporter.nightly.records import EXIT_CODES
from exporter.pipeline import variants
from exporter.report import manifest
from exporter.report.manifest.schema import Artifact, Manifest
from exporter.verify.judge import GATES

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))
}
README = PAGES["README.md"]
RUN_ELSEWHERE = {"scripts/test"}
"""Commands that run this test: CI calls exactly them."""
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```sh\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE
)
OTHER_PROGRAMS = {
    "--branch",
    "--build",
    "--constraint",
    "--count",
    "--depth",
    "--draws",
    "--editable",
    "--from",
    "--front-page",
    "--held-out",
    "--index-url",
    "--markdown",
    "--generations",
    "--models",
    "--no-compile",
    "--no-deps",
    "--now",
    "--only",
    "--only-binary",
    "--parallel",
    "--photos",
    "--platform",
    "--python-version",
    "--quick",
    "--recurse-submodules",
    "--sample",
    "--seed",
    "--sessions",
    "--shallow-submodules",
    "--show",
    "--strict",
    "--target",
    "--tests",
    "--user",
    "--work",
}
"""Options in these pages that belong to git, pip, CMake, systemd, MkDocs and the benchmarks."""


def command(*names: str) -> Any:
    node: Any = get_command(app)
    for name in names:
        node = node.commands[name]
    return node


def commands(node: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Return every command below a group, by its path."""
    if not hasattr(node, "commands"):
        return {path: node}
    below = [commands(child, (*path, name)) for name, child in node.commands.items()]
    return {key: value for part in below for key, value in part.items()}


def shown_options(node: Any) -> set[str]:
    """Return the long options that a command's own --help lists."""
    shown = [parameter for parameter in node.params if not getattr(parameter, "hidden", False)]
    names = {name for parameter in shown for name in (*parameter.opts, *parameter.secondary_opts)}
    return {name for name in names if name.startswith("--")} | {"--help"}


COMMANDS = commands(get_command(app))
ALL_OPTIONS = {"--version"}.union(*(shown_options(node) for node in COMMANDS.values()))


def blocks_to_run(page: str) -> list[str]:
    bodies = [match["body"] for match in BLOCK.finditer(PAGES[page]) if not match["reason"]]
    without = ["".join(f"{line}\n" for line in b.splitlines() if line not in RUN_ELSEWHERE) for b in bodies]
    return [body for body in without if body.strip()]


def test_the_readme_is_short() -> None:
    """What does not fit into 150 lines belongs into docs/."""
    assert len(README.splitlines()) <= 150


def test_the_readme_begins_with_installing_and_the_two_commands_of_a_checkout() -> None:
    """A stranger sees them before anything else."""
    first, second = [match["body"].splitlines() for match in BLOCK.finditer(README)][:2]
    assert first == ["pip install export-mobile"]
    assert second == ["scripts/demo", "scripts/test"]


def test_the_readme_lists_every_command() -> None:
    """No command is a secret."""
    table = README.partition("## Commands")[2].partition("\n## ")[0]
    names = set(command().commands) - {"export"}
    assert names == set(re.findall(r"^\| `export-mobile ([a-z]+)\b", table, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES)
def test_every_shell_block_is_run_or_says_why_not(page: str) -> None:
    """Every shell block is a fence that these tests find; none is made by indentation."""
    assert not re.search(r"^```(bash|shell|console|zsh)", PAGES[page], re.MULTILINE)
    assert not re.search(r"^    (export-mobile|pip|scripts/|\.venv/) ", PAGES[page], re.MULTILINE)
    assert PAGES[page].count("```sh\n") == len(BLOCK.findall(PAGES[page]))


@pytest.mark.parametrize("page", sorted(set(PAGES) - {"CHANGELOG.md"}))  # which also names what is gone
def test_no_option_is_invented(page: str) -> None:
    """What a page says, the command line accepts and its --help shows."""
    spans = "\n".join(
        re.findall(r"`([^`\n]+)`", PAGES[page]) + [m["body"] for m in BLOCK.finditer(PAGES[page])]
    )
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+\b", spans)) - OTHER_PROGRAMS
    assert used <= ALL_OPTIONS


@pytest.mark.parametrize("page", PAGES)
def test_no_option_is_given_to_another_command(page: str) -> None:
    """A command in a shell block takes the options that stand behind it."""
    for body in (match["body"].replace("\\\n", " ") for match in BLOCK.finditer(PAGES[page])):
        for line in re.findall(r"^export-mobile .+$", body, re.MULTILINE):
            words = line.split()[1:]
            names = max((n for n in COMMANDS if tuple(words[: len(n)]) == n), key=len, default=("export",))
            node = command(words[0]) if words[0] == "history" and names == ("export",) else command(*names)
            used = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert used <= shown_options(node) | ({"--help"} if words[0] == "history" else set()), line


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("docs/guides/releases.md", ("release",)),
        ("docs/guides/releases.md", ("diff",)),
        ("docs/guides/phones.md", ("devices",)),
        ("docs/guides/phones.md", ("bench",)),
        ("docs/guides/phones.md", ("runner", "build")),
        ("docs/guides/nights.md", ("nightly",)),
        ("docs/guides/history.md", ("history", "list")),
        ("docs/guides/history.md", ("history", "show")),
        ("docs/guides/history.md", ("history", "export")),
        ("docs/guides/history.md", ("history", "prune")),
        ("docs/guides/history.md", ("history", "accept")),
    ],
)
def test_a_guide_names_every_option_of_its_commands(page: str, names: tuple[str, ...]) -> None:
    """A reader finds every option; -o, --json, --debug and --help are the same everywhere."""
    text = PAGES[page]
    assert f"export-mobile {' '.join(names)}" in text or names == ("history", "list")
    everywhere = {"--json", "--debug", "--help", "--out"}
    missing = {o for o in shown_options(command(*names)) if not re.search(rf"{o}(?![a-z-])", text)}
    assert missing <= everywhere


def exit_codes() -> dict[int, set[str]]:
    """Return every exit code that the code can end with, and what it belongs to."""
    codes: dict[int, set[str]] = {0: {"success"}, errors.INTERRUPTED_EXIT_CODE: {"interrupted"}}
    for module, root in ((errors, errors.ExportError), (harness, harness.HarnessError)):
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, root):
                codes.setdefault(kind.exit_code, set()).add(kind.__name__)
    for state, code in (*EXIT_CODES.items(), *device.EXIT_CODES.items()):
        codes.setdefault(code, set()).add(state)
    return codes


def test_the_table_of_exit_codes_is_complete() -> None:
    """One table, one row a code, no code that the program does not have."""
    rows = re.findall(r"^\| (\d+) \| .+ \| .+ \|$", PAGES["docs/reference/exit-codes.md"], re.MULTILINE)
    assert [int(row) for row in rows] == sorted(exit_codes())


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (device.EXIT_CODES["fail"], "over budget"),
        (device.EXIT_CODES["inconclusive"], "inconclusive"),
        (device.EXIT_CODES["not_measured"], "not measured"),
        (EXIT_CODES["regression"], "slower or worse"),
        (EXIT_CODES["over_budget"], "over budget"),
        (EXIT_CODES["failed"], "something failed"),
        (EXIT_CODES["no_phone"], "no phone"),
        (EXIT_CODES["inconclusive"], "inconclusive"),
        (EXIT_CODES["not_measured"], "not measured"),
        (errors.NightRunningError.exit_code, "another night"),
        (harness.NotReadyError.exit_code, "may not be measured now"),
        (errors.ReleaseError.exit_code, "`release`"),
        (errors.MissingDependencyError.exit_code, "optional package"),
    ],
)
def test_the_table_of_exit_codes_says_what_the_code_means(code: int, words: str) -> None:
    """A row says in words what the code means by the number."""
    row = re.search(rf"^\| {code} \| (.+) \|$", PAGES["docs/reference/exit-codes.md"], re.MULTILINE)
    assert row
    assert words in row[1]


def test_the_help_of_nightly_names_every_exit_code_of_its_own() -> None:
    """Who reads only --help can write a script, too."""
    text = str(command("nightly").help)
    for code in {*EXIT_CODES.values(), errors.NightRunningError.exit_code}:
        assert re.search(rf"\b{code}\b", text), code


def test_no_other_page_has_a_table_of_exit_codes() -> None:
    """Two tables would drift apart."""
    for page, text in PAGES.items():
        if page != "docs/reference/exit-codes.md":
            assert not re.search(r"^\| (exit )?code", text, re.MULTILINE | re.IGNORECASE), page
            assert not re.search(r"^\| \d\d \|", text, re.MULTILINE), page


def test_every_format_is_in_the_readme_and_every_variant_has_a_row() -> None:
    """No format is a secret."""
    names = {"executorch": "ExecuTorch", "torchscript": "TorchScript", "onnx": "ONNX", "coreml": "Core ML"}
    names |= {"coreai": "Core AI", "onnx-qnn": "ONNX for Hexagon"}
    rows = PAGES["docs/reference/output-folder.md"].partition("## Variants")[2]
    for variant in VARIANTS.values():
        assert names[variant.format].partition(" for ")[0] in README
        assert re.search(rf"^\| {names[variant.format]}( \||,)", rows, re.MULTILINE)


def test_every_gate_of_verification_is_explained() -> None:
    """A reader of a reason finds the gate that gave it, in the order in which they are asked."""
    hooks = runpy.run_path(str(ROOT / "scripts" / "docs_hooks.py"))
    rows = re.findall(r"^\| ([a-z]+) \| (.+) \| (.+) \|$", hooks["GENERATED"]["gates"](), re.MULTILINE)
    assert [name for name, _, _ in rows] == ["gate", *GATES, *hooks["BESIDE_GATES"]]
    for name, fails, faults in rows[1:]:
        assert fails, name
        assert int(faults) > 0, f"no fault is planted for the gate {name}"


def test_the_walk_through_a_format_names_everything_that_one_needs() -> None:
    """Who follows CONTRIBUTING.md ends with a module that the table of formats takes."""
    walk = PAGES["CONTRIBUTING.md"].partition("## Example: add a format")[2].partition("\n## ")[0]
    names = {*Format.__annotations__, *(name for name in vars(Format) if not name.startswith("_"))}
    assert len(names) == 6
    assert not {name for name in names if not re.search(rf"`{name}[`(]", walk)}


def test_the_demos_target_exists() -> None:
    """The first command names a real target."""
    assert "snapdragon865" in {target.name for target in targets.TARGETS}


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page: str) -> None:
    """A path in backticks, or to a Python file anywhere, leads to a file of this repository."""
    folders = "exporter|android_harness|tests|benchmarks|scripts|models|docs"
    named = set(re.findall(rf"`((?:{folders})/[\w./-]+|[A-Z]+\.md|mkdocs\.yml|\.ci/run)`", PAGES[page]))
    named |= set(re.findall(rf"(?<![\w/.-])((?:{folders})/[\w/]+\.py)\b", PAGES[page]))
    named -= {name for name in named if "NAME" in name} | {"MODEL_CARD.md"}
    assert not {name for name in named if not (ROOT / name).exists()}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_between_files_leads_somewhere(page: str) -> None:
    """The site's builder checks the links of docs/; GitHub shows the other files, too."""
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", PAGES[page])
    generated = {"manifest.schema.json"}
    assert not {x for x in links if x not in generated and not ((ROOT / page).parent / x).exists()}


def test_the_code_cites_sections_of_the_protocol_that_exist() -> None:
    """A reader who follows a comment to a section finds it."""
    page = "docs/explanation/measurement-protocol.md"
    sections = set(re.findall(r"^###? (\d(?:\.\d+)?)\.? ", PAGES[page], re.MULTILINE))
    assert {"4", "4.2", "4.9"} <= sections
    for folder in ("exporter", "android_harness"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = re.sub(r"[#\s]+", " ", path.read_text())
            cited = re.findall(r"(?:protocol|measurement-protocol\.md),? \(?section (\d(?:\.\d+)?)", text)
            assert set(cited) <= sections, path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the built documentation."""
    folder = tmp_path_factory.mktemp("site")
    argv = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_builds_without_a_warning(site: Path) -> None:
    """`--strict` refuses broken links, missing anchors and pages that nothing leads to."""
    assert (site / "index.html").is_file()
    assert (site / "assets" / "report.png").stat().st_size < 300_000


def test_the_site_lists_every_command_and_option(site: Path) -> None:
    """The reference comes from the Typer application."""
    page = (site / "reference" / "cli" / "index.html").read_text()
    for names, node in COMMANDS.items():
        part = page.partition(f"<code>export-mobile {' '.join(names)}</code>")[2].partition("<h")[0]
        assert part, names
        assert not {option for option in shown_options(node) if option not in part}, names
    assert "[bold]" not in page


def test_the_site_lists_every_field_of_the_manifest_and_every_public_name(site: Path) -> None:
    """The reference comes from the pydantic models and from `exporter.__all__`."""
    import exporter

    page = (site / "reference" / "manifest" / "index.html").read_text()
    assert not {field for field in Manifest.model_fields if f"<code>{field}</code>" not in page}
    assert "<!-- generated" not in page
    api = (site / "reference" / "api" / "index.html").read_text()
    assert not {name for name in exporter.__all__ if f'id="exporter.{name}"' not in api} - {"__version__"}


@pytest.mark.parametrize("guide", ["guides/model-cards", "guides/nights"])
def test_the_site_lists_the_keys_of_a_file_of_settings(site: Path, guide: str) -> None:
    """A key of a card or of nightly.toml is looked up, not guessed."""
    page = (site / guide / "index.html").read_text()
    keys = {"guides/model-cards": "checkpoint", "guides/nights": "retention"}
    assert f"<code>{keys[guide]}</code>" in page
    assert "<!-- generated" not in page


def in_own_environment() -> bool:
    return Path(sys.prefix).resolve() == (ROOT / ".venv").resolve()


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return variables that find the project's own programs, and a cache that is empty at first."""
    return os.environ | {
        "PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "EXPORT_MOBILE_CACHE": str(tmp_path_factory.mktemp("cache")),
    }


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """Return a copy of what the pages use of the checkout, in which the README's commands have run."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("scripts", "models"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("LICENSE", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    # Already done by scripts/test; from here it would install this copy in the place of the project.
    (folder / "scripts" / "setup").write_text("#!/bin/sh\n")
    # Downloads and compiles for minutes; after it every export runs on emulated Arm, as tests/emulated does.
    demo = folder / "scripts" / "demo"
    demo.write_text("".join(x for x in demo.read_text().splitlines(True) if "doctor --prepare" not in x))
    run_blocks("README.md", folder, environment)
    return folder


def run_blocks(page: str, folder: Path, environment: dict[str, str]) -> None:
    """Run a page's shell blocks in order, each in a shell of its own."""
    for block in blocks_to_run(page):
        done = subprocess.run(
            ["sh", "-eu", "-c", block],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{page}:\n{block}\n{done.stdout}\n{done.stderr}"


MOBILENET_MULTIPLICATIONS = 300_774_272
MOBILENET_WEIGHTS = 3_469_760
"""The elements of its filters and of its last layer's matrix."""
WITH_BLOCKS = [page for page in PAGES if page != "README.md" and blocks_to_run(page)]
in_project = pytest.mark.skipif(not in_own_environment(), reason="the commands run in the project's .venv")


@pytest.mark.slow
@pytest.mark.xdist_group("demo")
@pytest.mark.timeout(1200)
@in_project
def test_the_readmes_commands_run(checkout: Path) -> None:
    """The sample is exported from real weights on real photos, and no device is claimed."""
    _check_the_demo(checkout / "demo" / "out")
    assert manifest.load_manifest(checkout / "demo" / "mine" / "manifest.json").selected


@pytest.mark.slow
@pytest.mark.xdist_group("demo")
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", WITH_BLOCKS)
@in_project
def test_a_pages_commands_run(page: str, checkout: Path, environment: dict[str, str]) -> None:
    """A page's commands run as they stand, in order, on what the README's commands made."""
    run_blocks(page, checkout, environment)


def _check_int8_through_and_through(path: Path, row: Artifact) -> None:
    """All weights of MobileNetV2 are int8, all its multiplications delegated, and no value is lost."""
    from exporter.formats.executorch import delegates, pte

    assert row.structure is not None
    assert row.structure.weight_elements == {"int8": MOBILENET_WEIGHTS}
    assert (row.quantized_weight_fraction, row.delegated_fraction) == (1.0, 1.0)
    file = pte.read_pte_program(path.read_bytes()).program
    graphs: list[delegates.DelegateGraph] = list(pte._pte_delegate_graphs(file.execution_plan[0], file))
    assert sum(graph.work.macs for graph in graphs) == MOBILENET_MULTIPLICATIONS
    assert row.verification is not None
    assert row.verification.lowering is not None
    assert row.verification.lowering.max_error is not None
    assert row.verification.lowering.max_error <= 1e-6


def _check_the_demo(out: Path) -> None:
    """fp32 is proven to 1e-5, and int8 passes on sixty scenes that nothing was calibrated on."""
    listed = manifest.load_manifest(out / "manifest.json")
    rows = {row.name: row for row in listed.artifacts}
    assert set(rows) == {v.name for v in variants.plan_variants(targets.get_target("snapdragon865"))}
    for row in rows.values():
        if row.precision == "fp32":
            assert row.status == "passed"
            assert row.verification is not None
            assert row.verification.max_error is not None
            assert row.verification.max_error <= 1e-5
        if row.precision == "int8":
            assert row.status == "passed", row.reason
            assert row.verification is not None
            assert row.verification.sqnr_db is not None
            assert row.verification.sqnr_bounds_db is not None
            assert row.verification.sqnr_bounds_db[0] > 20
            assert row.quantized_weight_fraction is not None
            assert row.quantized_weight_fraction > 0.99
        if row.name == "executorch-xnnpack-int8":
            _check_int8_through_and_through(out / str(row.file), row)
    assert (listed.calibration.kind, listed.evidence.count) == ("photos", 64)
    assert (listed.scenes.calibration, listed.scenes.verification) == (60, 60)
    assert listed.selected is not None
    assert rows[listed.selected].status == "passed"
    assert listed.verdict.budget == "not_measured"


@pytest.mark.slow
@pytest.mark.xdist_group("demo")
@in_project
def test_the_pages_python_runs(tmp_path: Path, checkout: Path, environment: dict[str, str]) -> None:
    """The API example runs as a plain script; the cache has what the commands before it made."""
    codes = {
        code
        for page in PAGES.values()
        for code in re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
        if "exporter" in code  # the others are for apps; test_torchvision_detectors.py runs them
    }
    for code in codes:
        code = code.replace('out="demo/api"', f'out="{tmp_path / "api"}", formats=("onnx",)')
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=checkout,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith(("onnx-", "ort-"))
