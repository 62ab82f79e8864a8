"""Exports work without the extras, QEMU and npm, and each message names what is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from exporter.cli.doctor.extras import EXTRAS
from tests import exports

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="Linux's rungs")]

PACKAGES = tuple(
    package for extra in EXTRAS.values() for package in extra.packages if package != "jsonschema"
)
"""jsonschema has other users, so that a machine without the extras may have it."""
MODULES = (
    *("coreai", "coreai_torch", "onnxruntime_qnn", "transformers", "timm", "ultralytics", "sqlalchemy"),
    *("alembic", "ruptures", "psycopg", "pyarrow", "tensorboardX", "cyclonedx", "model_signing", "OpenSSL"),
)
BARE = f"""
import importlib.machinery, importlib.metadata

def find_spec(name, *arguments, find=importlib.machinery.PathFinder.find_spec):
    return None if name.partition(".")[0] in {MODULES!r} else find(name, *arguments)

def version(package, known=importlib.metadata.version):
    if package in {PACKAGES!r}:
        raise importlib.metadata.PackageNotFoundError(package)
    return known(package)

importlib.machinery.PathFinder.find_spec = find_spec
importlib.metadata.version = version
"""
"""Every Python process of the commands starts with this: no module and no package of an extra is there."""
COMMANDS = """
import contextlib, io, json, sys
from exporter.cli import main

for arguments in json.loads(sys.argv[1]):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as ended:
            code = ended.code
    print("RESULT", json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)

from exporter.cli.doctor.extras import examine_extras

print("EXTRAS", json.dumps({finding.what: [finding.state, finding.fix] for finding in examine_extras()}))
"""
"""Runs all the commands in one process, and then the part of `doctor` about extras."""


@dataclass(frozen=True)
class Run:
    """What one command did."""

    code: int
    output: str
    errors: str
    out: Path

    def artifacts(self) -> dict[str, Any]:
        rows = json.loads((self.out / "manifest.json").read_text())["artifacts"]
        return {row["name"]: row for row in rows}


EXPORTS = {
    "android": ("snapdragon888", "executorch-xnnpack-fp32,executorch-vulkan-fp16"),
    "apple": ("iphone", "coreml-fp16"),
    "qnn": ("snapdragon888", "default,onnx-qnn"),
    "coreai": ("iphone", "default,coreai"),
}
"""The target and the formats of each export."""


@dataclass(frozen=True)
class Bare:
    """What a machine with the base packages alone did."""

    runs: dict[str, Run]
    extras: dict[str, list[str]]
    """The doctor's finding about each extra: its state and the command that mends it."""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    """Run every command of this file on a machine with the base packages alone, and an empty cache."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text(BARE)
    (folder / "bin").mkdir()
    common = [
        *(str(exports.checkpoint("cnn")), "--arch", "tests.nets:TinyCnn", "--input-shape", "1x1x8x8"),
        *("--calibration", str(exports.arrays("cnn")), "--samples", "8", "--jobs", "1"),
    ]
    commands = {
        name: [*common, "--target", target, "--formats", formats, "-o", str(folder / name)]
        for name, (target, formats) in EXPORTS.items()
    } | {name: ["verify", str(folder / "android"), "--on", name] for name in ("arm64", "vulkan")}
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parents[1])]),
        "PATH": str(folder / "bin"),
        "EXPORT_MOBILE_CACHE": str(folder / "cache"),
        "EXPORT_MOBILE_ESTIMATE": "0",
        "COLUMNS": "200",
    }
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(list(commands.values()))],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = [line.partition(" ") for line in done.stdout.splitlines()]
    results = [json.loads(text) for kind, _, text in lines if kind == "RESULT"]
    (extras,) = (json.loads(text) for kind, _, text in lines if kind == "EXTRAS")
    runs = {
        name: Run(code, output, errors, folder / name)
        for name, (code, output, errors) in zip(commands, results, strict=True)
    }
    return Bare(runs, extras)


@pytest.fixture
def runs(bare: Bare) -> dict[str, Run]:
    return bare.runs


def test_an_android_export_works(runs: dict[str, Run]) -> None:
    """XNNPACK passes; the reason of the Vulkan artifact names the command that prepares its runtime."""
    run = runs["android"]
    assert run.code == 0, run.errors
    rows = run.artifacts()
    assert {name: row["status"] for name, row in rows.items()} == {
        "executorch-xnnpack-fp32": "passed",
        "executorch-vulkan-fp16": "not_run",
    }
    assert "export-mobile doctor --prepare" in rows["executorch-vulkan-fp16"]["reason"]
    assert all((run.out / row["file"]).exists() for row in rows.values())
    assert {row["arm64_emulated"] for row in rows.values()} == {None}


def test_a_core_ml_export_works(runs: dict[str, Run]) -> None:
    """The reference interpreter needs no extra."""
    run = runs["apple"]
    assert run.code == 0, run.errors
    (row,) = run.artifacts().values()
    assert (row["name"], row["status"]) == ("coreml-fp16", "passed")
    assert row["verification"]["executor"] == "reference interpreter"


@pytest.mark.parametrize(("extra", "format_name"), [("qnn", "onnx-qnn"), ("coreai", "coreai")])
def test_the_format_of_an_extra_names_it(extra: str, format_name: str, runs: dict[str, Run]) -> None:
    """The export ends before any work, with the command that installs the extra."""
    run = runs[extra]
    assert run.code == 10
    assert f"--formats {format_name} needs the packages of the {extra} extra" in run.errors
    assert f"pip install 'export-mobile[{extra}]'" in run.errors
    assert not run.out.exists()


@pytest.mark.parametrize(
    ("place", "command"),
    [("arm64", "apt install qemu-user-static g++-aarch64-linux-gnu"), ("vulkan", "apt install npm gcc g++")],
)
def test_a_place_to_verify_names_its_packages(place: str, command: str, runs: dict[str, Run]) -> None:
    """`verify --on` ends with the code of a missing package and the command of the system."""
    run = runs[place]
    assert run.code == 10
    assert command in run.errors


@pytest.mark.parametrize("name", EXTRAS)
def test_the_doctor_names_each_extra(name: str, bare: Bare) -> None:
    """A missing extra is no fault, and its command installs it."""
    assert bare.extras[f"Extra {name}"] == ["limited", f"pip install 'export-mobile[{name}]'"]
