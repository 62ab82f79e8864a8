"""Several parts of a network in one export: a folder each, and what they compute together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exporter.pipeline.parts import calibration_of_part
from exporter.pipeline.parts_record import load_parts, remove_earlier_parts
from tests.architectures.test_huggingface import T5, saved
from tests.command import exit_code

ONE_FORMAT = ["--formats", "onnx", "--precisions", "fp32", "--samples", "2", "--no-cache"]


def test_calibration_data_may_lie_apart(tmp_path: Path) -> None:
    """An item named like a part calibrates it; without one, the folder calibrates all."""
    (tmp_path / "text.jsonl").touch()
    (tmp_path / "vision").mkdir()
    assert calibration_of_part(tmp_path, "text") == tmp_path / "text.jsonl"
    assert calibration_of_part(tmp_path, "vision") == tmp_path / "vision"
    assert calibration_of_part(tmp_path, "decoder") == tmp_path
    assert calibration_of_part(tmp_path / "text.jsonl", "vision") == tmp_path / "text.jsonl"
    assert calibration_of_part(None, "text") is None


def test_what_an_earlier_export_listed_goes_and_nothing_else(tmp_path: Path) -> None:
    """A file of replaced parts must not look like the new export's; the user's own files stay."""
    for name in ("encoder.pte", "decoder.pte", "notes.txt"):
        (tmp_path / name).touch()
    outside = tmp_path / "elsewhere" / "kept.pte"
    outside.parent.mkdir()
    outside.touch()
    listed = ["encoder.pte", "decoder.pte", "elsewhere/kept.pte", "notes.txt", None]
    parts = [{"name": (file or "vision").split(".")[0], "file": file} for file in listed]
    parts[3]["name"] = "text"
    (tmp_path / "parts.json").write_text(json.dumps({"parts": parts}))
    remove_earlier_parts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "notes.txt"]
    assert outside.exists()
    remove_earlier_parts(tmp_path)


@pytest.mark.slow
def test_an_encoder_and_a_decoder_are_one_export(tmp_path: Path) -> None:
    """One command makes both, runs them together, and puts a file of each in OUT; `verify` sees a change."""
    path, _ = saved(tmp_path, "T5ForConditionalGeneration", T5)
    out = tmp_path / "out"
    command = [str(path), "--target", "snapdragon865", "-o", str(out), *ONE_FORMAT]
    assert exit_code(*command) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["T5ForConditionalGeneration", "out"]
    listed = json.loads((out / "parts.json").read_text())
    assert [part["name"] for part in listed["parts"]] == ["encoder", "decoder"]
    assert {verdict["name"]: verdict["status"] for verdict in listed["together"]} == {
        "onnx-fp32": "passed",
        "ort-fp32": "passed",
    }
    for part in listed["parts"]:
        chosen = json.loads((out / part["folder"] / "manifest.json").read_text())["artifacts"]
        assert part["sha256"] in {artifact["sha256"] for artifact in chosen}
        assert (out / part["file"]).name in ("encoder.onnx", "decoder.onnx", "encoder.ort", "decoder.ort")
    assert load_parts(out) == {name: (out / name, "") for name in ("encoder", "decoder")}
    assert exit_code("verify", out, "--jobs", "1") == 0
    file = out / listed["parts"][0]["file"]
    file.write_bytes(file.read_bytes() + b"\0")
    assert "is not the file" in load_parts(out)["encoder"][1]
    assert exit_code("verify", out, "--jobs", "1") == 9
