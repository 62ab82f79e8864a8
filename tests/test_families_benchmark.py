"""The table of families is made from what exports wrote."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks.families import __main__ as program
from benchmarks.families import inputs, page
from benchmarks.families.made import TRANSFORMERS, pretrained_folder
from benchmarks.families.packages import PACKAGED
from benchmarks.families.rows import Figure, Row, read_row
from benchmarks.families.table import FAMILIES, TRAINED, Family

SHOWN = "export-mobile net.pth --target snapdragon865 --calibration photos/ --samples 16"


def family_of(path: Path) -> Family:
    return Family("A network, classifier", TRAINED, "a package", lambda _: path, calibration="photos")


def write_manifest(out: Path, status: str, reason: str | None) -> None:
    out.mkdir(parents=True, exist_ok=True)
    artifact = {"name": "onnx-fp32", "status": status, "reason": reason}
    (out / "manifest.json").write_text(json.dumps({"artifacts": [artifact]}))


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        ("passed", None, (("onnx-fp32",), ())),
        ("failed", "12 dB", ((), (("onnx-fp32: failed", "12 dB"),))),
    ],
)
def test_a_row_says_what_the_manifest_says(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    reason: str | None,
    expected: tuple[Any, Any],
) -> None:
    """Passed artifacts, the others with their reasons, and the command without this machine's paths."""
    monkeypatch.setitem(FAMILIES, "net", family_of(tmp_path / "net.pth"))

    def export(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        write_manifest(Path(command[command.index("-o") + 1]), status, reason)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("subprocess.run", export)
    row = program.run_family("net", tmp_path, tmp_path)
    assert (row.passed, row.others) == expected
    assert row.command == SHOWN
    text = page.markdown_of_families([row])
    assert SHOWN in text
    assert (reason or "Passed: onnx-fp32") in text
    assert str(tmp_path) not in text


def test_parts_that_differ_together_are_in_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variant that passed in each part, and not one after the other, is counted and has its reason."""
    monkeypatch.setitem(FAMILIES, "net", family_of(tmp_path / "net.pth"))

    def export(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        out = Path(command[command.index("-o") + 1])
        write_manifest(out / "text", "passed", None)
        words = {"name": "onnx-fp32", "status": "failed", "measure": "tokens: 3 of 64", "reason": "It stops."}
        (out / "parts.json").write_text(json.dumps({"together": [words]}))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("subprocess.run", export)
    row = program.run_family("net", tmp_path, tmp_path)
    assert (row.passed, row.together) == (("text/onnx-fp32",), ())
    text = page.markdown_of_families([row])
    assert "| 1 | 1 |" in text
    assert "- together, onnx-fp32: failed. tokens: 3 of 64. It stops." in text


def test_the_front_page_has_its_part_of_the_table(tmp_path: Path) -> None:
    """What stands between the marks is replaced: verdicts, the least SQNR and the size of each precision."""
    figures = (
        Figure("decoder/onnx-fp32", "fp32", "passed", 121.4, 4_000_000, ""),
        Figure("encoder/onnx-fp32", "fp32", "passed", 118.2, 3_000_000, ""),
        Figure("decoder/onnx-int8", "int8", "failed", 12.0, 1_000_000, "equal tokens 0.5"),
    )
    row = Row(
        name="whisper",
        title="Whisper",
        weights=TRAINED,
        source="a package",
        command="export-mobile whisper/ --target snapdragon865 --samples 16",
        passed=("decoder/onnx-fp32", "encoder/onnx-fp32"),
        together=("onnx-fp32 (logits: 110 dB)",),
        others=(("decoder/onnx-int8: failed", "12 dB"),),
        refusal="",
        seconds=3.0,
        figures=figures,
    )
    readme = tmp_path / "README.md"
    kept = "| Llama (AGPL-3.0) (random) | `export-mobile llama/` | 1 passed | 1 failed |"
    readme.write_text(f"Before.\n{page.BEGIN}\nold\n{kept}\n{page.END}\nAfter.\n")
    titles = dict.fromkeys(page.FRONT, "None") | {"whisper": "Whisper", "llama": "Llama (AGPL-3.0)"}
    page.write_front_page(readme, [row], titles)
    text = readme.read_text()
    assert text.startswith(f"Before.\n{page.BEGIN}\n| network |")
    assert text.endswith(f"{kept}\n{page.END}\nAfter.\n")
    assert "old" not in text
    command = "`export-mobile whisper/ --target snapdragon865`"
    assert (
        f"| Whisper (trained) | {command} | 2 passed, 118 dB or more, 3 MB; "
        "together: onnx-fp32 (logits: 110 dB) | 1 failed, 12 dB or more, equal tokens 0.5, 1 MB |"
    ) in text
    (tmp_path / "row.json").write_text(json.dumps(asdict(row)))
    assert read_row(tmp_path / "row.json").figures == figures


def test_the_page_keeps_what_it_says_of_networks_without_a_result(tmp_path: Path) -> None:
    """A result replaces its network's line and section; the others stay, in the order of the families."""

    def row(title: str, refusal: str) -> Row:
        return Row(title, title, TRAINED, "a package", f"export-mobile {title}", (), (), (), refusal, 1.0)

    first, second, third = (row(title, "It was refused.") for title in ("A", "B, small", "C (random)"))
    titles = [first.title, second.title, third.title]
    text = page.markdown_of_families([first, third], titles)
    assert page.markdown_of_families([], titles, text) == text
    together = page.markdown_of_families([row("A", "It is refused now."), second], titles, text)
    assert together == page.markdown_of_families([row("A", "It is refused now."), second, third])


def test_a_refusal_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing was built, the row has the message."""
    monkeypatch.setitem(FAMILIES, "net", family_of(tmp_path / "net.pth"))
    refused = subprocess.CompletedProcess([], 4, "", "[ 0.1 s] reading\nexport-mobile: No known network.\n")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: refused)
    row = program.run_family("net", tmp_path, tmp_path)
    assert row.refusal == "export-mobile: No known network."
    assert "refused" in page.markdown_of_families([row])


KINDS = (
    "detector", "segmentation", "keypoints", "text detector", "text recognition", "VAD", "speech",
    "sentence embeddings", "token classifier", "two towers", "super-resolution",
    "language model with a cache",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_network_has_a_row(kind: str) -> None:
    """Its title says the kind."""
    assert any(kind in family.title for family in FAMILIES.values())


@pytest.mark.parametrize("name", FAMILIES)
def test_no_command_names_the_network(name: str) -> None:
    """A network is found from its file alone; its inputs are some that the program can write."""
    assert "--arch" not in FAMILIES[name].options
    assert FAMILIES[name].calibration in {"", inputs.PHOTO_FOLDER, *inputs.WRITERS}


def test_every_family_has_a_source(tmp_path: Path) -> None:
    """Trained networks come from pinned packages; a made one is saved as its users do."""
    trained = {family.source for family in FAMILIES.values() if family.weights == TRAINED}
    assert trained == {packaged.requirement for packaged in PACKAGED.values()}
    assert all("==" in source for source in trained)
    assert len(trained) >= 8
    folder = pretrained_folder("BertForTokenClassification", tmp_path / "bert")
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["BertForTokenClassification"]
    assert set(TRANSFORMERS) >= {"CLIPModel", "WhisperForConditionalGeneration", "LlamaForCausalLM"}
