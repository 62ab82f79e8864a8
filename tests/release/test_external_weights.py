"""Tests of releases of an ONNX artifact with its weights in a second file: hashes, libraries, app code."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.errors import VerificationError
from exporter.records import ONNX_FOLDER_NOTE, ONNX_GRAPH, ONNX_WEIGHTS
from exporter.release import bundle, check
from exporter.release import zip as archive
from exporter.release.release_request import ReleaseRequest
from tests.release import outs
from tests.release.forging import forged, library

ARTIFACT = "onnx-fp32.onnx"
Change = Callable[[Path], object]
pytestmark = pytest.mark.usefixtures("numerics")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return OUT of a measured export whose choice is a folder, and a release of it."""
    folder = tmp_path_factory.mktemp("external")
    report = outs.report("pass")
    rows = tuple(
        replace(a, notes=(ONNX_FOLDER_NOTE,)) if a.variant.name == "onnx-fp32" else a
        for a in report.artifacts
    )
    out = outs.write(folder / "out", replace(report, artifacts=rows))
    request = ReleaseRequest(out=out, version="1.4.0", destination=folder / "released", name="net")
    return out, bundle.release_bundle(request, check=False).directory


@pytest.fixture
def released(made: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[1], tmp_path / "released"))


@pytest.fixture
def unpacked(made: tuple[Path, Path], tmp_path: Path) -> Path:
    """What the app team gets: the zip, unpacked."""
    inside = tmp_path / "inside"
    inside.mkdir()
    archive.unpack_zip(made[1] / "net-1.4.0.zip", inside)
    return inside


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def forget(path: Path) -> None:
    path.unlink()


def add(path: Path) -> None:
    path.with_name("more.bin").write_bytes(b"more")


CHANGES = (flip, forget, add)


def test_a_release_holds(released: Path, unpacked: Path) -> None:
    """Folder, zip and unpacked zip verify."""
    for path in (released, released / "net-1.4.0.zip", unpacked):
        assert check.check_release(path).holds


def test_both_files_are_named_and_hashed(made: tuple[Path, Path], unpacked: Path) -> None:
    """The list of hashes and the bill of materials have each file; the folder itself has no file's hash."""
    out, directory = made
    digests = {
        f"{ARTIFACT}/{part}": hashlib.sha256((out / ARTIFACT / part).read_bytes()).hexdigest()
        for part in (ONNX_GRAPH, ONNX_WEIGHTS)
    }
    sums = (unpacked / "SHA256SUMS").read_text().splitlines()
    assert {f"{digest}  {name}" for name, digest in digests.items()} <= set(sums)
    bill = json.loads((directory / "net-1.4.0.cdx.json").read_text())
    (listed,) = (c for c in bill["components"] if c["name"] == ARTIFACT)
    assert "hashes" not in listed
    assert {c["name"]: c["hashes"][0]["content"] for c in listed["components"]} == digests


def test_the_library_holds_both_files_and_the_code_opens_the_graph(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    """The Kotlin code copies each asset of the library to one folder, and opens the graph in it."""
    out, directory = made
    (aar,) = directory.rglob("*.aar")
    inside = tmp_path / "aar"
    inside.mkdir()
    archive.unpack_zip(aar, inside)
    code = (directory / "snippets" / "LoadAndRun.kt").read_text()
    for part in (ONNX_GRAPH, ONNX_WEIGHTS):
        asset = inside / "assets" / "net" / ARTIFACT / part
        assert asset.read_bytes() == (out / ARTIFACT / part).read_bytes()
        assert f'"{part}"' in code
    assert f'context.assets.open("net/{ARTIFACT}/$part")' in code
    assert f'File(context.filesDir, "{ARTIFACT}/{ONNX_GRAPH}").path' in code
    assert 'noCompress += listOf("data", "onnx")' in code


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("part", [ONNX_GRAPH, ONNX_WEIGHTS])
def test_a_changed_file_of_the_unpacked_zip_is_found(change: Change, part: str, unpacked: Path) -> None:
    """One changed bit of graph or weights, a missing file and a further one fail, and the file is named."""
    change(unpacked / ARTIFACT / part)
    audited = check.check_release(unpacked)
    assert not audited.holds
    assert f"{ARTIFACT}/{'more.bin' if change is add else part}" in " ".join(audited.problems)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("part", [ONNX_GRAPH, ONNX_WEIGHTS])
def test_a_changed_file_of_out_is_not_released(
    change: Change, part: str, made: tuple[Path, Path], tmp_path: Path
) -> None:
    """The hash in the manifest covers both files."""
    out = Path(shutil.copytree(made[0], tmp_path / "out"))
    change(out / ARTIFACT / part)
    with pytest.raises(VerificationError):
        bundle.release_bundle(ReleaseRequest(out=out, version="1.4.0", destination=tmp_path / "again"))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("part", [ONNX_GRAPH, ONNX_WEIGHTS])
def test_a_library_with_other_weights_is_found(change: Change, part: str, released: Path) -> None:
    """A library that was packed again from other files fails, also where every hash was made to fit."""
    forged(library(lambda inside: change(inside / "assets" / "net" / ARTIFACT / part)))(released)
    audited = check.check_release(released)
    assert not audited.holds
    assert ARTIFACT in " ".join(audited.problems)
