"""Models are compiled for Hexagon NPUs, read, executed on Qualcomm's simulator, and judged."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import exporter.formats.qnn as qnn
from exporter.capture.captured_program import captured_program_matrix_weights
from exporter.config.targets import TARGETS, get_target
from exporter.errors import CannotRunHere, LoweringError
from exporter.formats.qnn.qnn_contents import CONTEXT, MODEL
from exporter.formats.qnn.session import compile_in_htp_session
from exporter.pipeline.stage_results import ExpectedResult
from exporter.pipeline.variants import plan_variants
from exporter.pipeline.verify_stage import verify_artifact_in_stage
from exporter.records import Limits, Variant, Verdict
from tests import exports, nets, proof

pytest.importorskip("onnxruntime_qnn", reason="the qnn extra is not installed")

VARIANTS: dict[str, Variant] = {variant.backend.removeprefix("htp-"): variant for variant in qnn.VARIANTS}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the evidence of "cnn", and its artifact for v73."""
    folder = tmp_path_factory.mktemp("qnn")
    captured = proof.capture(nets.trained("cnn"), nets.samples("cnn", 1400, 32), folder)
    quantized = proof.quantize(captured, nets.samples("cnn", 0, 32), folder)
    qnn.emit(quantized, VARIANTS["v73"], folder)
    return folder


@pytest.fixture
def out(built: Path, tmp_path: Path) -> Path:
    """Return a copy, to be damaged."""
    return Path(shutil.copytree(built, tmp_path / "out"))


def artifact(out: Path) -> Path:
    return out / "onnx-qnn-v73-int8.qnn"


def verdict(out: Path) -> Verdict:
    captured = nets.captured("cnn")
    specs = (replace(captured.inputs[0], name="x0"),)
    outputs = qnn.structure(artifact(out), VARIANTS["v73"]).outputs
    expected = ExpectedResult(specs, outputs, captured_program_matrix_weights(captured), Limits())
    return verify_artifact_in_stage(
        artifact(out), VARIANTS["v73"], out / proof.EVIDENCE, out / proof.LOWERING, expected
    ).verdict


def test_it_passes_on_the_simulator(out: Path) -> None:
    """Every operator is on the NPU, and every sample was run there."""
    structure = qnn.structure(artifact(out), VARIANTS["v73"])
    judged = verdict(out)
    assert (judged.status, judged.reason) == ("passed", None)
    assert structure.delegated_fraction == 1.0
    assert structure.weight_elements == {"int8": captured_program_matrix_weights(nets.captured("cnn"))}
    assert judged.runtime.startswith("onnxruntime-qnn 2.")
    assert judged.runtime.endswith("(simulator, v73)")
    assert judged.comparison is not None
    assert judged.comparison.samples == 32


@pytest.mark.parametrize("generation", ["v68", "v75"])
def test_another_generation_is_compiled_for_itself(generation: str, out: Path) -> None:
    """Each binary names its own generation; under another's name it is refused, whatever it computes."""
    folder = artifact(out)
    (folder / CONTEXT).unlink()
    compile_in_htp_session(folder / MODEL, folder / CONTEXT, f"htp-{generation}")
    assert qnn.structure(folder, VARIANTS[generation]).delegated_fraction == 1.0
    with pytest.raises(LoweringError, match=f"Hexagon {generation}, and not for v73"):
        qnn.structure(folder, VARIANTS["v73"])


def recompiled(out: Path, change: Callable[[Any], None]) -> None:
    """Change the QDQ model, compile it, and put the good QDQ model back beside the binary."""
    folder = artifact(out)
    good = (folder / MODEL).read_bytes()
    model = onnx.load_model_from_string(good)
    change(model.graph)
    (folder / MODEL).write_bytes(model.SerializeToString())
    (folder / CONTEXT).unlink()
    compile_in_htp_session(folder / MODEL, folder / CONTEXT, "htp-v73")
    (folder / MODEL).write_bytes(good)


def exchange_classes(graph: Any) -> None:
    """Exchange the rows of the last layer's weight."""
    tensors = {t.name: t for t in graph.initializer}
    weight = next(t for t in reversed(graph.initializer) if 10 in t.dims and len(t.dims) == 2)
    values = numpy_helper.to_array(weight)
    axis = values.shape.index(10)
    tensors[weight.name].CopyFrom(numpy_helper.from_array(np.roll(values, 1, axis), weight.name))


def double_a_range(graph: Any) -> None:
    """Double the scale of the first activation behind the input."""
    names = [n.input[1] for n in graph.node if n.op_type == "QuantizeLinear"]
    tensor = next(t for t in graph.initializer if t.name == names[1])
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(8), tensor.name))


@pytest.mark.parametrize("fault", [exchange_classes, double_a_range])
def test_only_the_simulator_finds_what_is_wrong_in_the_binary(
    fault: Callable[[Any], None], out: Path
) -> None:
    """The QDQ model is right and nobody can read the binary: its outputs are wrong."""
    recompiled(out, fault)
    judged = verdict(out)
    assert judged.status == "failed"
    assert judged.comparison is not None, judged.reason


def leave_on_cpu(out: Path) -> None:
    """Put the operators of the QDQ model beside the binary, as a compiler does that takes few of them."""
    folder = artifact(out)
    context, model = onnx.load(folder / CONTEXT), onnx.load(folder / MODEL)
    renamed = {name for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        node.output[:] = [f"cpu_{name}" for name in node.output]
        node.input[:] = [f"cpu_{name}" if name in renamed else name for name in node.input]
        context.graph.node.append(node)
    have = {t.name for t in context.graph.initializer}
    context.graph.initializer.extend(t for t in model.graph.initializer if t.name not in have)
    onnx.save(context, folder / CONTEXT)


def test_what_runs_on_the_cpu_is_counted(out: Path) -> None:
    """An artifact that leaves the NPU idle fails, with the share."""
    leave_on_cpu(out)
    assert "of the compute is delegated to htp-v73" in str(verdict(out).reason)


def outside(out: Path) -> None:
    """Let the compiled model read its binary from another file."""
    path = artifact(out) / CONTEXT
    model = onnx.load(path)
    (node,) = (n for n in model.graph.node if n.op_type == "EPContext")
    kept = [a for a in node.attribute if a.name not in ("embed_mode", "ep_cache_context")]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.append(helper.make_attribute("embed_mode", 0))
    node.attribute.append(helper.make_attribute("ep_cache_context", "/etc/passwd"))
    onnx.save(model, path)


def cut(out: Path) -> None:
    path = artifact(out) / CONTEXT
    path.write_bytes(path.read_bytes()[:-5000])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "another file's binary": (outside, "keeps its binary in another file"),
    "cut": (cut, "not a whole ONNX model"),
    "no binary": (
        lambda out: shutil.copy(artifact(out) / MODEL, artifact(out) / CONTEXT),
        "nothing for the NPU",
    ),
    "one file too many": (lambda out: (artifact(out) / "more").touch(), "must be a folder of"),
    "one file too few": (lambda out: (artifact(out) / MODEL).unlink(), "must be a folder of"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_folders_are_refused(damage: str, out: Path) -> None:
    """A damaged folder is one sentence, when it is read and when it is loaded."""
    change, words = DAMAGES[damage]
    change(out)
    with pytest.raises(LoweringError, match=words):
        qnn.structure(artifact(out), VARIANTS["v73"])
    with pytest.raises(LoweringError, match=words):
        qnn.load(artifact(out), VARIANTS["v73"], 1)


@pytest.mark.parametrize(
    "target", [t for t in TARGETS if t.name.startswith("snapdragon")], ids=lambda t: t.name
)
def test_each_snapdragon_gets_its_own_generation(target: Any) -> None:
    """The 865 gets none, and says why."""
    if target.name == "snapdragon865":
        assert not any("qnn" in name for name in target.on_request)
        assert "v66" in target.why_not["onnxruntime-qnn"]
        return
    (variant,) = plan_variants(get_target(target.name), ["onnx-qnn"])
    assert f"({variant.backend.removeprefix('htp-')})" in target.npu
    assert variant.name in target.runnable
    assert "onnx-qnn" not in {v.format for v in plan_variants(target)}


def test_without_the_extra_nothing_passes(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export is verified on a machine without the simulator: not run, never passed."""
    monkeypatch.setitem(sys.modules, "onnxruntime_qnn", None)
    with pytest.raises(CannotRunHere, match="not installed"):
        qnn.load(artifact(out), VARIANTS["v73"], 1)


@pytest.mark.slow
def test_an_export_executes_it_in_the_sandbox(tmp_path: Path) -> None:
    """The row is passed by the simulator, in a confined process, and has no latency."""
    row = exports.row_by_command("snapdragon888", "onnx-qnn", tmp_path / "out")
    assert (row["status"], row["host_latency"], row["delegated_fraction"]) == ("passed", None, 1.0)
    assert row["verification"]["runtime"].endswith("(simulator, v68)")
