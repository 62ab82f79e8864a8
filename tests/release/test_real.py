"""Test that a real export is released and verified with its numerics."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from exporter.release import sha256sums
from exporter.release import zip as archive
from tests.command import exit_code
from tests.exports import exported
from tests.faults import edit_onnx, rehash, swap, weights

pytestmark = [
    pytest.mark.slow, pytest.mark.xdist_group("faults"), pytest.mark.usefixtures("audits_share_workers"),
]  # fmt: skip
Keys = tuple[Path, Path]


def release(code: int, directory: Path, *arguments: object) -> None:
    assert exit_code("release", exported("cnn")[0], "--version", "2.0.1", "-o", directory, *arguments) == code


def test_from_export_to_verified_release(
    keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unmeasured export is refused; with consent it is released, signed and verified."""
    made = tmp_path / "made"
    chosen = ("--artifacts", "onnx-fp32,onnx-fp16")
    release(30, made, *chosen)
    assert "No phone has measured onnx-fp32" in capsys.readouterr().err
    assert not made.exists()
    release(0, made, *chosen, "--allow-unmeasured", "--key", keys[0], "--json")
    printed = json.loads(capsys.readouterr().out)
    assert printed["signed"] is True
    assert "tinycnn-2.0.1.zip" in printed["files"]
    assert exit_code("verify", made, "--key", keys[1], "--json") == 0
    audit = json.loads(capsys.readouterr().out)
    assert audit["facts"][0] == "It is tinycnn 2.0.1 of com.example."
    assert "Signed with the private half of pub.pem." in audit["facts"]
    assert {f["name"]: f["found"] for f in audit["findings"]} == {
        "onnx-fp32": "passed",
        "onnx-fp16": "passed",
    }
    with (made / "README.md").open("a") as readme:
        readme.write("x")
    assert exit_code("verify", made, "--key", keys[1]) == 9
    assert "README.md is not the file that was released" in capsys.readouterr().out


def test_a_consistent_lie_fails_the_numerics(tmp_path: Path) -> None:
    """Swapped classes with new hashes fail by the bundled inputs."""
    made = tmp_path / "made"
    release(0, made, "--artifacts", "onnx-fp32", "--allow-unmeasured")
    inside = tmp_path / "inside"
    inside.mkdir()
    archive.unpack_zip(made / "tinycnn-2.0.1.zip", inside)
    edit_onnx("onnx-fp32", lambda graph: weights(graph, swap(0), -1))(inside)
    rehash(inside)
    sha256sums.write_sha256sums(inside)
    lie = tmp_path / "lie.zip"
    archive.write_zip(lie, archive.folder_for_zip(inside), datetime(1980, 1, 1, tzinfo=UTC))
    assert exit_code("verify", made / "tinycnn-2.0.1.zip") == 0
    assert exit_code("verify", lie) == 9
