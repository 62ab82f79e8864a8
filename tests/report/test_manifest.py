from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from exporter.errors import VerificationError
from exporter.records import Limits, OperatorCost
from exporter.report import manifest
from exporter.report.manifest import restore
from exporter.report.manifest.schema import Manifest
from tests.report import sample

CONTRACT: dict[str, Any] = {
    "schema_version": 1,
    "tool": {"export_mobile": "0.1.0", "torch": "2.13.0", "executorch": "1.4.1"},
    "source": {
        "file": "mobilenet_v2.ckpt",
        "sha256": "a" * 64,
        "kind": "state_dict",
        "architecture": "torchvision/mobilenet_v2",
        "parameters": 3504872,
    },
    "target": {"name": "snapdragon865", "soc": "SM8250"},
    "budget_ms": 15.0,
    "inputs": [{"name": "x", "shape": [1, 3, 224, 224], "dtype": "float32"}],
    "outputs": [{"name": "logits", "shape": [1, 1000], "dtype": "float32"}],
    "calibration": {"kind": "photos", "count": 64},
    "artifacts": [
        {
            "name": "executorch-xnnpack-int8",
            "file": "executorch-xnnpack-int8.pte",
            "format": "executorch",
            "backend": "xnnpack",
            "precision": "int8",
            "size_bytes": 3706000,
            "sha256": "b" * 64,
            "status": "passed",
            "reason": None,
            "verification": {
                "runtime": "executorch 1.4.1",
                "samples": 64,
                "max_error": 1.2e-6,
                "sqnr_db": 116.5,
                "top1_agreement": 1.0,
                "limits": {"min_sqnr_db": 20},
            },
            "quantized_weight_fraction": 0.99,
            "delegated_fraction": 0.98,
            "host_latency": {"p50_ms": 3.9, "p90_ms": 4.1, "samples": 200, "threads": 2},
            "device_latency": None,
        }
    ],
    "selected": "executorch-xnnpack-int8",
    "verdict": {"numerics": "passed", "budget": "not_measured"},
}
"""The example of the contract, with its ellipses filled in."""


def dumped() -> Any:
    return json.loads(manifest.dump_manifest(sample.report()))


def write(directory: Path, content: Any) -> Path:
    path = directory / "manifest.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def fields(value: Any, prefix: str = "") -> set[str]:
    """Dotted names of every field in nested JSON, lists by their first entry; free-form maps not entered."""
    if isinstance(value, list):
        return fields(value[0], prefix) if value else set()
    if not isinstance(value, dict) or prefix in {".tool", ".artifacts.verification.limits"}:
        return set()
    below = (fields(v, f"{prefix}.{k}") for k, v in value.items())
    return {f"{prefix}.{k}" for k in value}.union(*below)


def test_the_contracts_example_is_accepted(tmp_path: Path) -> None:
    """A manifest of the contract's fields alone, none of ours beside them, is valid."""
    assert manifest.load_manifest(write(tmp_path, CONTRACT)).selected == "executorch-xnnpack-int8"


def test_a_dump_has_every_field_of_the_contract() -> None:
    """No name of the contract is missing or spelt otherwise in what we write."""
    assert fields(CONTRACT) - fields(dumped()) == set()


def test_contract_fields_come_first_and_in_its_order() -> None:
    """Keys keep the contract's order, our additions after them."""
    assert list(dumped())[: len(CONTRACT)] == list(CONTRACT)


def test_dump_is_the_same_twice() -> None:
    """Equal reports give equal bytes."""
    assert manifest.dump_manifest(sample.report()) == manifest.dump_manifest(sample.report())


def test_load_gives_back_the_records(tmp_path: Path) -> None:
    """Everything verify needs survives the way through the file."""
    report = replace(sample.report(), limits=Limits(int8_min_sqnr_db=25.0))
    read = manifest.load_manifest(write(tmp_path, manifest.dump_manifest(report)))
    assert read.inputs == report.inputs
    assert read.outputs == report.outputs
    assert read.preprocessing == report.preprocessing
    assert read.limits == report.limits
    assert read.evidence.matrix_weights == report.matrix_weights
    assert {f.file: f.sha256 for f in read.evidence.files} == report.evidence_files
    for back, artifact in zip(read.artifacts, report.artifacts, strict=True):
        assert (back.name, back.file, back.sha256) == (
            artifact.variant.name,
            artifact.file,
            artifact.sha256,
        )
        assert back.status == artifact.status
        if artifact.file:
            assert replace(artifact.variant, group=back.name, cost_s=0.0) == back.variant()


def test_limits_and_preprocessing_are_the_records() -> None:
    """The manifest holds every field of both records."""
    assert dumped()["limits"] == asdict(Limits())
    assert dumped()["preprocessing"] == json.loads(json.dumps(asdict(sample.report().preprocessing)))  # type: ignore[arg-type]


def test_figures_that_are_not_finite_become_null_with_the_reason() -> None:
    """JSON has no Infinity: the figure is null, and what it was stands beside it."""
    row = next(a for a in dumped()["artifacts"] if a["name"] == "torchscript-lite-fp32")["verification"]
    assert (row["max_error"], row["sqnr_db"]) == (None, None)
    assert row["not_finite"] == {"max_error": "inf", "sqnr_db": "-inf"}


def test_a_floor_that_is_nan_becomes_null() -> None:
    """A model whose reference is NaN still gives a readable manifest."""
    text = manifest.dump_manifest(replace(sample.report(), floor=math.nan))
    assert json.loads(text)["evidence"]["floor"] is None


def test_an_artifact_never_made_has_no_figures() -> None:
    """Nothing is invented for an artifact that failed to lower."""
    row = next(a for a in dumped()["artifacts"] if a["status"] == "error")
    assert all(
        row[k] is None for k in ("file", "sha256", "verification", "host_latency", "delegated_fraction")
    )
    assert row["source_line"] == "nets/mobile.py:88"


def test_the_schema_can_be_exported() -> None:
    """Downstream users get a JSON schema that requires the contract's fields."""
    assert set(Manifest.model_json_schema()["required"]) == set(CONTRACT)


def _set(*route: Any, value: Any) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for key in route[:-1]:
            content = content[key]
        content[route[-1]] = value

    return change


def _drop(*route: Any) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for key in route[:-1]:
            content = content[key]
        del content[route[-1]]

    return change


def _rename_selected(content: Any, name: str) -> None:
    """Call the chosen artifact, which passed, by another name."""
    (row,) = [row for row in content["artifacts"] if row["name"] == content["selected"]]
    row["name"] = content["selected"] = name


A = ("artifacts", 0)
SECOND = ("artifacts", 1)
HOSTILE: dict[str, tuple[Callable[[Any], None], str]] = {
    "another schema version": (_set("schema_version", value=2), "has schema version 2; this export-mobile"),
    "no schema version": (_drop("schema_version"), "schema_version: Field required"),
    "no artifacts": (_drop("artifacts"), "artifacts: Field required"),
    "no inputs": (_set("inputs", value=[]), "inputs"),
    "text for a number": (_set("source", "parameters", value="3504872"), "source.parameters is '3504872'"),
    "true for a number": (_set("budget_ms", value=True), "budget_ms is True"),
    "a parent folder": (_set(*A, "file", value="../x.pte"), r"artifacts\[0\].file is '../x.pte': must be a"),
    "a hidden parent": (_set(*A, "file", value="a/../../x.pte"), "relative path inside"),
    "an absolute path": (_set(*A, "file", value="/etc/passwd"), "relative path inside"),
    "a Windows path": (_set(*A, "file", value="C:\\x.pte"), "must not hold backslashes"),
    "a line break": (_set(*A, "file", value="a\nb.pte"), "control characters"),
    "the manifest itself": (_set(*A, "file", value="Manifest.json"), "one of the export's own files"),
    "an evidence path": (_set("evidence", "files", 0, "file", value="../e.npz"), r"evidence.files\[0\].file"),
    "the same file twice": (_set(*SECOND, "file", value="EXECUTORCH-xnnpack-fp32.pte"), "same file"),
    "the same name twice": (_set(*SECOND, "name", value="executorch-xnnpack-fp32"), "same name"),
    "a name with a slash": (_set(*A, "name", value="a/b"), r"artifacts\[0\].name"),
    "a short hash": (_set(*A, "sha256", value="abc"), r"artifacts\[0\].sha256 is 'abc'"),
    "an upper-case hash": (_set("source", "sha256", value="A" * 64), "source.sha256"),
    "a missing hash": (_set(*A, "sha256", value=None), "must be given together"),
    "passed without verification": (_set(*A, "verification", value=None), "without a file and its verif"),
    "an unknown status": (_set(*A, "status", value="fine"), r"artifacts\[0\].status is 'fine'"),
    "an unknown format": (_set(*A, "format", value="tflite"), r"artifacts\[0\].format"),
    "a share over one": (_set(*A, "delegated_fraction", value=1.5), "delegated_fraction is 1.5"),
    "a negative size": (_set(*A, "size_bytes", value=-1), "size_bytes is -1"),
    "a huge shape": (_set("inputs", 0, "shape", value=[10**6, 10**6]), "elements; at most"),
    "a negative shape": (_set("inputs", 0, "shape", value=[-1]), r"inputs\[0\].shape\[0\] is -1"),
    "a dtype of objects": (
        _set("inputs", 0, "dtype", value="object"),
        r"inputs\[0\] is .*: dtype is 'object'",
    ),
    "a failed selection": (_set("selected", value="onnx-int8"), "not an artifact that passed"),
    "a selection for another target": (
        lambda content: _rename_selected(content, "coreml-int8"),
        "'coreml-int8', which snapdragon865 does not run",
    ),
    "an absent selection": (_set("selected", value="nothing"), "not an artifact that passed"),
    "a device figure": (_set(*A, "device_latency", value={"p50_ms": 1}), "device_latency"),
    "zero deviation": (_set("preprocessing", "std", value=[0.0, 1.0, 1.0]), r"preprocessing.std\[0\] is 0.0"),
    "a budget of zero": (_set("budget_ms", value=0), "budget_ms is 0"),
}


@pytest.mark.parametrize("fault", HOSTILE)
def test_a_faulty_manifest_is_refused(fault: str, tmp_path: Path) -> None:
    """Each fault is one VerificationError that names the field and what was seen in it."""
    change, expected = HOSTILE[fault]
    content = dumped()
    change(content)
    with pytest.raises(VerificationError, match=expected):
        manifest.load_manifest(write(tmp_path, content))


def test_a_selection_for_an_unknown_target_is_read(tmp_path: Path) -> None:
    """Another version may know targets that this one does not."""
    content = dumped()
    content["target"]["name"] = "snapdragon999"
    _rename_selected(content, "npu-int8")
    assert manifest.load_manifest(write(tmp_path, content)).selected == "npu-int8"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "\ufeff{}", "[" * 100_000, '{"schema_version": NaN}'], ids=range(7)
)
def test_text_that_is_no_manifest_is_refused(text: str, tmp_path: Path) -> None:
    """Broken JSON of any kind is one VerificationError that names the file."""
    with pytest.raises(VerificationError, match=r"manifest\.json"):
        manifest.load_manifest(write(tmp_path, text))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """Invalid UTF-8 is one VerificationError."""
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe{}\x00")
    with pytest.raises(VerificationError, match="not a valid manifest"):
        manifest.load_manifest(tmp_path / "manifest.json")


def test_infinity_is_refused(tmp_path: Path) -> None:
    """Python's own JSON dialect (Infinity) is not accepted for a figure."""
    content = dumped()
    content["artifacts"][0]["verification"]["max_error"] = math.inf
    with pytest.raises(VerificationError, match="max_error"):
        manifest.load_manifest(write(tmp_path, content))


def test_a_missing_or_unreadable_manifest_is_refused(tmp_path: Path) -> None:
    """No file, or a folder in its place, is a VerificationError and not a traceback."""
    with pytest.raises(VerificationError, match="does not exist"):
        manifest.load_manifest(tmp_path / "manifest.json")
    with pytest.raises(VerificationError, match="cannot be read"):
        manifest.load_manifest(tmp_path)


def test_a_huge_manifest_is_refused_unread(tmp_path: Path) -> None:
    """A file of more than 64 MB is refused by its size alone."""
    with (tmp_path / "manifest.json").open("wb") as stream:
        stream.truncate(manifest.MAX_BYTES + 1)
    with pytest.raises(VerificationError, match="has 67108865 bytes"):
        manifest.load_manifest(tmp_path / "manifest.json")


def test_a_long_hostile_value_is_shown_short_and_escaped(tmp_path: Path) -> None:
    """Terminal escapes of a hostile manifest don't reach the terminal."""
    content = dumped()
    content["artifacts"][0]["sha256"] = "\x1b[2J" + "z" * 5000
    with pytest.raises(VerificationError) as caught:
        manifest.load_manifest(write(tmp_path, content))
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_an_artifact_behind_an_outward_link_is_refused(tmp_path: Path) -> None:
    """A symbolic link cannot make verify read outside the export's folder."""
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "secret").write_text("x")
    (out / "executorch-xnnpack-fp32.pte").symlink_to(tmp_path / "secret")
    first = manifest.load_manifest(write(out, dumped())).artifacts[0]
    with pytest.raises(VerificationError, match="leads out of"):
        first.path(out)


def test_an_artifacts_path_lies_in_the_folder(tmp_path: Path) -> None:
    """An ordinary name becomes a path below the folder."""
    first = manifest.load_manifest(write(tmp_path, dumped())).artifacts[0]
    assert first.path(tmp_path) == tmp_path / "executorch-xnnpack-fp32.pte"


def test_costs_and_points_come_back_from_the_manifest(tmp_path: Path) -> None:
    """Every field of what quantisation cost, that an operator costs nothing included."""
    points = (replace(sample.mixed_points()[0], drop=-0.25), *sample.mixed_points()[1:])
    report = replace(sample.report(), mixed_points=points)
    read = restore.restore_report(manifest.load_manifest(write(tmp_path, manifest.dump_manifest(report))))
    assert read.operator_costs == report.operator_costs
    assert read.mixed_points == points


def test_points_written_before_drops_were_measured_are_read(tmp_path: Path) -> None:
    """What lacks the field has no drop."""
    content = dumped()
    for point in content["mixed_points"]:
        del point["drop"]
    read = restore.restore_report(manifest.load_manifest(write(tmp_path, content)))
    assert [point.drop for point in read.mixed_points] == [None] * len(content["mixed_points"])


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_decibels_that_are_not_finite_come_back(value: float, tmp_path: Path) -> None:
    """Null in the file with the reason beside it; the same number after reading."""
    report = sample.report()
    cost = OperatorCost.of_decibels("conv2d", "features.0", "conv2d", value)
    point = replace(report.mixed_points[0], sqnr_db=value)
    text = manifest.dump_manifest(replace(report, operator_costs=(cost,), mixed_points=(point,)))
    for entry in (json.loads(text)["operator_costs"][0], json.loads(text)["mixed_points"][0]):
        assert (entry["sqnr_db"], entry["not_finite"]) == (None, {"sqnr_db": str(value)})
    read = restore.restore_report(manifest.load_manifest(write(tmp_path, text)))
    decibels = (str(read.operator_costs[0].sqnr_db), str(read.mixed_points[0].sqnr_db))
    assert decibels == (str(value), str(value))


def test_a_manifest_written_before_costs_were_measured_is_read(tmp_path: Path) -> None:
    """Both lists may be missing."""
    content = dumped()
    del content["operator_costs"], content["mixed_points"]
    read = restore.restore_report(manifest.load_manifest(write(tmp_path, content)))
    assert (read.operator_costs, read.mixed_points) == ((), ())


def test_decibels_that_would_overflow_are_refused(tmp_path: Path) -> None:
    """A forged cost cannot crash the reader."""
    content = dumped()
    content["operator_costs"][0]["sqnr_db"] = -1e9
    with pytest.raises(VerificationError, match=r"operator_costs\[0\]\.sqnr_db is -1000000000\.0"):
        manifest.load_manifest(write(tmp_path, content))


def many(field: str, item: Any, count: int) -> Callable[[Any], object]:
    return lambda content: content.update({field: [item] * count})


def many_files(content: Any) -> None:
    content["evidence"]["files"] = [{"file": f"f{i}", "sha256": "0" * 64} for i in range(20_001)]


def long_shape(content: Any) -> None:
    content["inputs"][0]["shape"] = [10**4000]


HUGE: dict[str, tuple[Callable[[Any], object], str]] = {
    "artifacts": (lambda c: c.update(artifacts=c["artifacts"][:1] * 1001), "artifacts"),
    "artifacts that are none": (many("artifacts", {}, 200_000), "artifacts"),
    "files": (many_files, "evidence.files"),
    "costs": (many("operator_costs", {}, 200_000), "operator_costs"),
    "points": (many("mixed_points", {}, 200_000), "mixed_points"),
    "a size of 4,000 digits": (long_shape, "inputs"),
    "dimensions": (lambda c: c["inputs"][0].update(shape=[1] * 100_000), "inputs"),
    "a long name": (lambda c: c["artifacts"][0].update(file="a" * 1_000_000), "file"),
    "two equal long names": (
        lambda c: [row.update(file="a" * 250, size_bytes=1, sha256="0" * 64) for row in c["artifacts"]],
        "same file",
    ),
}
"""Manifests that would cost time or memory, or fill the screen."""


@pytest.mark.parametrize("name", HUGE)
def test_a_manifest_of_too_much_is_one_short_message(name: str, tmp_path: Path) -> None:
    """Lists have a largest length, and no hostile value is printed whole."""
    change, words = HUGE[name]
    content = dumped()
    change(content)
    with pytest.raises(VerificationError, match=words) as caught:
        manifest.load_manifest(write(tmp_path, content))
    assert len(str(caught.value)) < 600
