"""Runs the acceptance suite on another set of framework versions, and prints what differs from this one.

    python -m benchmarks.toolchains torch=2.14.1 torchvision=0.29.1 executorch=1.5.1 [--work FOLDER]

Makes a virtual environment in FOLDER (5 GB with CUDA's libraries) with the given versions; packages that are
not named have those of the first tested set. This environment and that one then export the sample MobileNetV2
for a phone, take networks of the zoo through all formats, and run the fast tests of `--tests`. Ends with 1
where an artifact or a test that passes here does not pass there. `FOLDER/*.json` keeps the outcomes, and a
second call repeats only those parts that have none.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from exporter.config.toolchains import TOOLCHAIN_SETS

ROOT = Path(__file__).parents[1]
TESTS = ("tests/capture", "tests/formats", "tests/quantize", "tests/checkpoints")
"""The tests of the rooms that call the frameworks."""
NETWORKS = ("mlp", "transformer", "lstm", "detector", "depthwise", "group norm", "top k", "lengths")
PASSED = "passed"
Outcomes = Mapping[str, str]
"""What was tried -> "passed", or what became of it."""


def write_constraints(versions: Mapping[str, str], path: Path) -> None:
    """Write what pip is held to."""
    path.write_text("".join(f"{name}=={version}\n" for name, version in versions.items()))


def make_environment(folder: Path, versions: Mapping[str, str]) -> Path:
    """Make a virtual environment with the versions and this checkout's requirements; return its Python."""
    python = folder / "venv/bin/python"
    done = folder / "installed.json"
    if not done.exists() or json.loads(done.read_text()) != dict(versions):
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        write_constraints(versions, folder / "constraints.txt")
        pip = [str(python), "-m", "pip", "install", "--quiet", "--no-compile"]
        wanted = ["--constraint", str(folder / "constraints.txt"), f"{ROOT}[dev]"]
        subprocess.run([*pip, *wanted], check=True)
        sample = ["--no-deps", "--requirement", str(ROOT / "scripts/sample-checkpoint.txt")]
        subprocess.run([*pip, *sample], check=True)
        done.write_text(json.dumps(dict(versions)))
    return python


def suite_outcomes(python: Path, folder: Path, name: str, tests: Sequence[str]) -> Outcomes:
    """Run the three parts of the suite in an environment; parts that are on file are not repeated."""
    parts: Mapping[str, Callable[[], Outcomes]] = {
        "export": partial(export_outcomes, python, folder / f"{name}-export"),
        "zoo": partial(zoo_outcomes, python),
        "tests": partial(pytest_outcomes, python, folder / f"{name}-tests.xml", tests),
    }
    outcomes: dict[str, str] = {}
    for part, run in parts.items():
        path = folder / f"{name}-{part}.json"
        if not path.exists():
            path.write_text(json.dumps(run(), indent=1))
        outcomes |= json.loads(path.read_text())
        print(f"{name}: {part} done", file=sys.stderr, flush=True)
    return outcomes


def _called(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module of this checkout, whatever the environment has installed of it."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "EXPORT_MOBILE_ESTIMATE": "0"}
    command = [str(python), "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def export_outcomes(python: Path, out: Path) -> Outcomes:
    """Export the sample MobileNetV2, and read what became of each artifact."""
    _called(python, "exporter.data.demo", str(out.with_name("demo")))
    demo = out.with_name("demo")
    options = ["--calibration", str(demo / "photos"), "--target", "snapdragon865", "--no-cache", "--force"]
    run = _called(python, "exporter", str(demo / "mobilenet_v2.pth"), *options, "--out", str(out))
    if not (out / "manifest.json").is_file():
        return {"mobilenet_v2": f"no export: {(run.stdout + run.stderr).strip()[-300:]}"}
    return dict(_artifact_outcomes(json.loads((out / "manifest.json").read_text())))


def _artifact_outcomes(manifest: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    artifacts = manifest["artifacts"]
    assert isinstance(artifacts, list)
    for artifact in artifacts:
        reason = f": {artifact['reason'][:160]}" if artifact["reason"] else ""
        status = PASSED if artifact["status"] == PASSED else f"{artifact['status']}{reason}"
        yield f"mobilenet_v2 {artifact['name']}", status
        figures = artifact.get("verification") or {}
        if figures.get("sqnr_db") is not None:
            yield f"mobilenet_v2 {artifact['name']}, dB", f"{figures['sqnr_db']:.0f}"
        if artifact["size_bytes"]:
            yield f"mobilenet_v2 {artifact['name']}, MB", f"{artifact['size_bytes'] / 1e6:.1f}"


def zoo_outcomes(python: Path) -> Outcomes:
    """Take networks through capture, every format and verification."""
    run = _called(python, "benchmarks.false_failures", *NETWORKS)
    return dict(_zoo_lines(run.stdout)) or {"zoo": f"no outcome: {run.stderr.strip()[-300:]}"}


def _zoo_lines(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        if row := re.fullmatch(r" *[\d.]+ (\w+) +([\w-]+) +([^:]+): ?(.*)", line):
            status, variant, network, reason = row.groups()
            yield f"{network} {variant}", PASSED if status == PASSED else f"{status}: {reason}"


def pytest_outcomes(python: Path, report: Path, tests: Sequence[str]) -> Outcomes:
    """Run tests, and read what became of each."""
    run = _called(
        python, "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", f"--junitxml={report}", *tests
    )
    if not report.is_file():
        return {"tests": f"no report: {run.stdout.strip()[-300:]}"}
    return dict(_junit_outcomes(ET.parse(report).getroot()))


def _junit_outcomes(root: ET.Element) -> Iterator[tuple[str, str]]:
    for case in root.iter("testcase"):
        problem = next((item for item in case if item.tag in {"failure", "error", "skipped"}), None)
        lines = (problem.get("message") or "").splitlines() if problem is not None else []
        text = PASSED if problem is None else f"{problem.tag}: {(lines or [''])[0][:160]}"
        yield f"{case.get('classname')}.{case.get('name')}", text


def outcome_differences(ours: Outcomes, theirs: Outcomes) -> list[tuple[str, str, str]]:
    """Return what was tried, what became of it here, and there, where these differ."""
    names = [*ours, *(name for name in theirs if name not in ours)]
    pairs = [(name, ours.get(name, "not tried"), theirs.get(name, "not tried")) for name in names]
    return [row for row in pairs if row[1] != row[2]]


def outcome_losses(differences: Sequence[tuple[str, str, str]]) -> list[str]:
    """Return what passes here and not there."""
    return [name for name, ours, theirs in differences if ours == PASSED != theirs]


def main(arguments: Sequence[str]) -> int:
    """Run the suite twice and print the differences as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("versions", nargs="+", help="PACKAGE=VERSION")
    parser.add_argument("--work", type=Path, default=Path("toolchains"))
    parser.add_argument("--tests", nargs="*", default=TESTS)
    asked = parser.parse_args(arguments)
    versions = dict(TOOLCHAIN_SETS[0].versions) | dict(item.split("=", 1) for item in asked.versions)
    asked.work.mkdir(parents=True, exist_ok=True)
    work = asked.work.resolve()
    second = make_environment(work, versions)
    ours = suite_outcomes(Path(sys.executable), work, "here", asked.tests)
    theirs = suite_outcomes(second, work, "there", asked.tests)
    differences = outcome_differences(ours, theirs)
    print("| tried | here | there |\n|---|---|---|")
    for row in differences:
        print("| " + " | ".join(cell.replace("|", "/") for cell in row) + " |")
    lost = outcome_losses(differences)
    print(f"\n{len(theirs)} outcomes, {len(differences)} differ, {len(lost)} of them pass here only")
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
