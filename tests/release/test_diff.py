"""Tests of `diff`: it reports what is better, worse or different, and refuses only what it cannot read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.errors import VerificationError
from exporter.release import bundle
from exporter.release.diff import ArtifactDiff, Diff, Word, diff_releases
from exporter.release.release_request import ReleaseRequest
from tests.command import exit_code
from tests.release import outs


def pair(tmp_path: Path, change: Callable[[Any], None]) -> Diff:
    """Compare a made-up export with a changed copy."""
    before = outs.write(tmp_path / "before", outs.report("pass"))
    after = outs.write(tmp_path / "after", outs.report("pass"))
    outs.edit(after, change)
    return diff_releases(before, after)


def row(listed: Any, name: str = "onnx-fp32") -> Any:
    return next(a for a in listed["artifacts"] if a["name"] == name)


def artifact(difference: Diff, name: str = "onnx-fp32") -> ArtifactDiff:
    return next(a for a in difference.artifacts if a.name == name)


def words(difference: Diff) -> dict[str, Word]:
    return {line.what: line.word for line in artifact(difference).lines}


def test_an_export_against_itself(tmp_path: Path) -> None:
    """An export does not differ from itself."""
    difference = pair(tmp_path, lambda _: None)
    assert {line.word for line in difference.facts} == {"same"}
    assert {a.word for a in difference.artifacts} == {"same"}
    assert {line.word for a in difference.artifacts for line in a.lines} == {"same"}


def verification(**values: float) -> Callable[[Any], None]:
    return lambda m: row(m)["verification"].update(values)


def host(p50: float) -> Callable[[Any], None]:
    def change(listed: Any) -> None:
        row(listed)["host_latency"]["p50_ms"] = p50
        row(listed)["sha256"] = "f" * 64

    return change


def device(low: float, high: float, **other: Any) -> Callable[[Any], None]:
    def change(listed: Any) -> None:
        middle = (low + high) / 2
        for latency in (row(listed)["device_latency"], row(listed)["device_latencies"][0]):
            latency.update(p50_ms=middle, p90_ms=middle, p90_ci_ms=[low, high])
            latency["device"].update(other)

    return change


CHANGES: list[tuple[str, Callable[[Any], None], str, Word]] = [
    ("smaller", lambda m: row(m).update(size_bytes=2000), "size_bytes", "better"),
    ("larger", lambda m: row(m).update(size_bytes=3001), "size_bytes", "worse"),
    ("less error", verification(max_error=1e-7), "max_error", "better"),
    ("more error", verification(max_error=9e-6), "max_error", "worse"),
    ("rounding", verification(max_error=7.9e-7), "max_error", "same"),
    ("more dB", verification(sqnr_db=130.0), "sqnr_db", "better"),
    ("fewer dB", verification(sqnr_db=100.0), "sqnr_db", "worse"),
    ("agreement", verification(top1_agreement=0.9), "top1_agreement", "worse"),
    ("faster", host(1.0), "host_p50_ms", "better"),
    ("slower", host(9.0), "host_p50_ms", "worse"),
    ("host noise", host(4.1), "host_p50_ms", "same"),
    ("phone faster", device(2.0, 2.5), "device_p90_ms", "better"),
    ("phone slower", device(5.0, 6.0), "device_p90_ms", "worse"),
    ("phone's intervals overlap", device(3.9, 6.0), "device_p90_ms", "same"),
    ("another phone", device(5.0, 6.0, model="Other"), "device_p90_ms", "changed"),
    ("never timed", lambda m: row(m).update(host_latency=None), "host_p50_ms", "gone"),
]


@pytest.mark.parametrize(("change", "figure", "word"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_each_figure_has_its_direction(
    change: Callable[[Any], None], figure: str, word: Word, tmp_path: Path
) -> None:
    """Smaller errors, sizes and times and larger agreement are better; noise is neither."""
    difference = pair(tmp_path, change)
    assert words(difference)[figure] == word
    others = {w for name, w in words(difference).items() if name != figure}
    assert others == {"same"}


@pytest.mark.parametrize(("right", "word"), [(970, "same"), (600, "worse"), (1000, "better")])
def test_accuracy_is_noise_where_intervals_overlap(right: int, word: Word, tmp_path: Path) -> None:
    """Accuracies of 1000 samples with overlapping intervals count as the same."""

    def accurate(count_right: int) -> Callable[[Any], None]:
        before = {"count": 1000, "right": 960, "right5": None, "lost": 0, "gained": 0, "same": 1000}
        lost, gained = max(960 - count_right, 0), max(count_right - 960, 0)
        after = before | {"right": count_right, "lost": lost, "gained": gained, "same": 1000 - lost - gained}

        def change(listed: Any) -> None:
            listed["accuracy"] = {
                "kind": "photos",
                "classes": 9,
                "max_drop_points": 50.0,
                "float32": accuracy_of(before),
            }
            row(listed)["accuracy"] = accuracy_of(after)

        return change

    def accuracy_of(counts: dict[str, Any]) -> dict[str, Any]:
        share = counts["right"] / 1000
        drop = (counts["lost"] - counts["gained"]) / 10
        wide = [max(share - 0.015, 0.0), min(share + 0.015, 1.0)]
        return counts | {"top1": share, "top5": None, "top1_interval": wide, "drop_points": drop,
                         "drop_interval_points": [drop, drop]}  # fmt: skip

    before = outs.write(tmp_path / "before", outs.report("pass"))
    after = outs.write(tmp_path / "after", outs.report("pass"))
    outs.edit(before, accurate(960))
    outs.edit(after, accurate(right))
    assert words(diff_releases(before, after))["accuracy_top1"] == word


def test_the_same_file_is_not_faster(tmp_path: Path) -> None:
    """A host latency of an unchanged file is never better or worse."""
    difference = pair(tmp_path, lambda m: row(m)["host_latency"].update(p50_ms=1.0))
    assert words(difference)["host_p50_ms"] == "changed"


def test_a_status_that_changes(tmp_path: Path) -> None:
    """Starting to pass is better; ceasing to pass is worse."""

    def fail(listed: Any) -> None:
        row(listed).update(status="failed", reason="bad", device_latency=None, device_latencies=[])
        listed.update(selected=None)
        listed["verdict"]["budget"] = "not_measured"

    difference = pair(tmp_path, fail)
    assert words(difference)["status"] == "worse"
    back = diff_releases(tmp_path / "after", tmp_path / "before")
    assert words(back)["status"] == "better"


def test_operators_are_counted(tmp_path: Path) -> None:
    """Only operators whose number differs are listed, with 0 for none."""

    def change(listed: Any) -> None:
        row(listed)["structure"]["operators"] = {"conv2d": 50, "linear": 1, "cast": 7}

    operators = artifact(pair(tmp_path, change)).operators
    assert operators == {"add": (10, 0), "cast": (0, 7), "conv2d": (52, 50)}


def test_other_models_targets_and_tools_are_lines(tmp_path: Path) -> None:
    """Any two exports can be compared."""
    before = outs.write(tmp_path / "before", outs.report("pass"))
    other = replace(
        outs.report(),
        architecture="mypkg:other",
        target_name="generic-arm64",
        target_soc="any",
        artifacts=outs.report().artifacts[:1],
        selected=None,
        tools={"export_mobile": "0.2.0", "torch": "2.13.0"},
    )
    difference = diff_releases(before, outs.write(tmp_path / "after", other))
    lines = {line.what: (line.before, line.after) for line in difference.facts if line.word == "changed"}
    assert lines["network"] == ("torchvision/mobilenet_v2", "mypkg:other")
    assert lines["target"] == ("snapdragon865", "generic-arm64")
    assert lines["export_mobile"] == ("0.1.0", "0.2.0")
    assert lines["onnxruntime"] == ("1.32.0", None)
    assert "torch" not in lines
    assert artifact(difference).word == "gone"


def test_releases_and_exports_in_any_mixture(tmp_path: Path) -> None:
    """A release's folder, its zip and an export can be compared."""
    out = outs.write(tmp_path / "out", outs.report("pass"))
    signed = bundle.release_bundle(ReleaseRequest(out, "1.4.0", tmp_path / "released", name="net")).directory
    difference = diff_releases(out, signed)
    assert difference.after.endswith("(net 1.4.0)")
    assert artifact(difference).word == "same"
    assert artifact(difference, "onnx-int8").word == "gone"
    same = diff_releases(signed, signed / "net-1.4.0.zip")
    assert {line.word for line in same.facts} == {"same"}


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The output is a table or JSON; an unreadable input exits with 9."""
    pair(tmp_path, verification(max_error=9e-6))
    assert exit_code("diff", tmp_path / "before", tmp_path / "after") == 0
    printed = capsys.readouterr().out
    assert "max_error" in printed
    assert "worse" in printed
    assert "sqnr_db" not in printed
    assert exit_code("diff", tmp_path / "before", tmp_path / "after", "--json") == 0
    rows = json.loads(capsys.readouterr().out)["artifacts"]
    assert any(line["word"] == "worse" for a in rows for line in a["lines"])
    assert exit_code("diff", tmp_path / "before", tmp_path / "before") == 0
    assert "No difference" in capsys.readouterr().out
    assert exit_code("diff", tmp_path / "before", tmp_path) == 9
    with pytest.raises(VerificationError):
        diff_releases(tmp_path / "before", tmp_path / "nowhere")
