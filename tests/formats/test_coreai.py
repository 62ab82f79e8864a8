"""Core AI assets are built, read, executed by Apple's runtime for Linux, and judged."""

from __future__ import annotations

import copy
import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import exporter.formats.coreai as coreai
from exporter.capture.captured_program import captured_program_matrix_weights
from exporter.capture.float64_reference import run_float64_reference
from exporter.config.targets import get_target
from exporter.errors import CannotRunHere, LoweringError, MissingDependencyError
from exporter.formats.coreai import coreai_asset
from exporter.pipeline.stage_results import ExpectedResult
from exporter.pipeline.variants import check_variant_extras, plan_variants
from exporter.pipeline.verify_stage import verify_artifact_in_stage
from exporter.records import Captured, Limits, Precision, Variant, Verdict
from exporter.verify import reference_io
from tests import exports
from tests.nets import NETS, captured, samples

pytest.importorskip("coreai_torch", reason="the coreai extra is not installed")

VARIANTS: dict[str, Variant] = {variant.precision: variant for variant in coreai.VARIANTS}


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the inputs and the float64 outputs that artifacts of "cnn" are judged by."""
    path = tmp_path_factory.mktemp("evidence") / "verification.npz"
    given, _ = run_float64_reference(captured("cnn"), samples("cnn", 1400, 16), {})
    reference_io.save_reference_io(given, path)
    return path


def verdict(net: Captured, precision: Precision, references: Path, folder: Path) -> Verdict:
    """Return the verdict on the asset of a network that claims to be "cnn"."""
    model = captured("cnn")
    path = coreai.emit(net, VARIANTS[precision], folder).path
    expected = ExpectedResult(model.inputs, model.outputs, captured_program_matrix_weights(model), Limits())
    return verify_artifact_in_stage(path, VARIANTS[precision], references, None, expected).verdict


def changed(change: nn.Module) -> Captured:
    """Capture a changed "cnn" under the names of the right one."""
    net = captured("cnn")
    return dataclasses.replace(net, module=change, program=torch.export.export(change, net.example))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("precision", "stored"), [("fp32", "float32"), ("fp16", "float16")])
def test_files_hold_and_compute_the_model(name: str, precision: str, stored: str, tmp_path: Path) -> None:
    """Inputs, outputs and weights are the model's, and so are the outputs, as far as the precision allows."""
    net, variant = captured(name), VARIANTS[precision]
    path = coreai.emit(net, variant, tmp_path).path
    contents = coreai.structure(path, variant)
    assert (contents.inputs, contents.outputs) == (net.inputs, net.outputs)
    assert contents.weight_elements == {stored: captured_program_matrix_weights(net)}
    run, runtime = coreai.load(path, variant, 1)
    assert runtime.startswith("coreai 1.")
    outputs = net.module(*net.example)
    wanted = outputs if isinstance(outputs, tuple) else (outputs,)
    for mine, model in zip(run(samples(name, 0, 1)[0]), wanted, strict=True):
        reference = model.detach().numpy()
        assert (
            np.abs(mine - reference).max()
            <= (1e-5 if precision == "fp32" else 5e-3) * np.abs(reference).max()
        )


def test_few_samples_prove_it(references: Path, tmp_path: Path) -> None:
    """The runtime takes seconds a call on a real network: the verdict says that four samples were run."""
    judged = verdict(captured("cnn"), "fp16", references, tmp_path)
    assert (judged.status, judged.reason) == ("passed", None)
    assert judged.comparison is not None
    assert judged.comparison.samples == 4


class Exchanged(nn.Module):
    """Gives the classes in another order: no reader of the file can tell."""

    def __init__(self) -> None:
        super().__init__()
        self.net = captured("cnn").module

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.net(image).roll(1, dims=1)  # type: ignore[no-any-return]


def one_wrong_weight() -> nn.Module:
    net = copy.deepcopy(captured("cnn").module)
    weight = dict(net.named_parameters())["head.weight"]
    with torch.no_grad():
        weight.view(-1)[weight.abs().argmax()] *= -1
    return net


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("fault", ["exchanged classes", "one wrong weight"])
def test_only_execution_finds_the_fault(
    fault: str, precision: Precision, references: Path, tmp_path: Path
) -> None:
    """The file is whole, its weights are as many and as wide as the model's: its outputs are wrong."""
    net = changed(Exchanged().eval() if fault == "exchanged classes" else one_wrong_weight())
    judged = verdict(net, precision, references, tmp_path)
    assert judged.status == "failed"
    assert judged.comparison is not None, judged.reason


def test_norms_are_folded_before_they_are_rounded(tmp_path: Path) -> None:
    """A variance below float16's smallest number gives the outputs that float32 gives, not NaN."""
    layer, norm = nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4, eps=1e-10)
    layer.weight.data.mul_(1e-4)
    assert norm.running_var is not None
    norm.running_var.fill_(1e-8)
    net = nn.Sequential(layer, norm).eval()
    image = torch.from_numpy(samples("cnn", 0, 1)[0][0])
    output = net(image)
    model = captured("cnn")
    spec = dataclasses.replace(model.outputs[0], shape=tuple(output.shape))
    small = dataclasses.replace(
        model, module=net, program=torch.export.export(net, (image,)), example=(image,), outputs=(spec,)
    )
    run, _ = coreai.load(coreai.emit(small, VARIANTS["fp16"], tmp_path).path, VARIANTS["fp16"], 1)
    (mine,) = run((image.numpy(),))
    assert np.abs(mine - output.detach().numpy()).max() < 5e-3 * output.abs().max()


def test_weights_beyond_float16_are_refused(tmp_path: Path) -> None:
    """A weight that would become infinite is named."""
    net = copy.deepcopy(captured("cnn").module)
    with torch.no_grad():
        dict(net.named_parameters())["head.weight"].view(-1)[3] = 1e6
    with pytest.raises(LoweringError, match=r"head\.weight.*65504"):
        coreai.emit(changed(net), VARIANTS["fp16"], tmp_path)


def test_overflow_on_the_way_fails(references: Path, tmp_path: Path) -> None:
    """Values that leave float16's range between two layers give NaN or Inf, which never passes."""
    net = copy.deepcopy(captured("cnn").module)
    with torch.no_grad():
        dict(net.named_parameters())["head.weight"].mul_(1e4)
    judged = verdict(changed(net), "fp16", references, tmp_path)
    assert judged.status == "failed"
    assert "not finite" in str(judged.reason) or "NaN" in str(judged.reason) or "Inf" in str(judged.reason)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return coreai.emit(captured("two_in_two_out"), VARIANTS["fp32"], tmp_path).path


def test_the_same_model_gives_the_same_bytes(written: Path, tmp_path: Path) -> None:
    """No day, path or order of a set is in the files."""
    folder = tmp_path / "again"
    folder.mkdir()
    again = coreai.emit(captured("two_in_two_out"), VARIANTS["fp32"], folder).path
    assert {n: (written / n).read_bytes() for n in coreai_asset.FILES} == {
        n: (again / n).read_bytes() for n in coreai_asset.FILES
    }


def cut(path: Path) -> None:
    program = path / coreai_asset.PROGRAM
    program.write_bytes(program.read_bytes()[:-100])


def linked(path: Path) -> None:
    program = path / coreai_asset.PROGRAM
    program.rename(path.parent / coreai_asset.PROGRAM)
    program.symlink_to(path.parent / coreai_asset.PROGRAM)


DAMAGES = {
    "cut": (cut, "is damaged"),
    "a link": (linked, "is not a Core AI asset"),
    "one file too many": (lambda path: (path / "more.bin").touch(), "is not a Core AI asset"),
    "one file too few": (lambda path: (path / coreai_asset.METADATA).unlink(), "is not a Core AI asset"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_assets_are_refused(damage: str, written: Path) -> None:
    """A damaged folder is one sentence, when it is read and when it is loaded."""
    change, words = DAMAGES[damage]
    change(written)
    with pytest.raises(LoweringError, match=words):
        coreai.structure(written, VARIANTS["fp32"])


@pytest.mark.parametrize("target", ["iphone", "snapdragon865"])
def test_it_is_made_only_when_it_is_named(target: str) -> None:
    """What an export makes does not depend on what is installed; `default` stands for the rest."""
    formats = {v.format for v in plan_variants(get_target(target))}
    named = plan_variants(get_target(target), ["default", "coreai"])
    assert "coreai" not in formats
    assert {v.format for v in named} == formats | {"coreai"}
    assert [v.name for v in plan_variants(get_target(target), ["coreai"])] == ["coreai-fp16", "coreai-fp32"]


def test_without_the_extra_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 10 and the pip command, before any work."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError) as refusal:
        check_variant_extras(coreai.VARIANTS)
    assert refusal.value.exit_code == 10
    assert "pip install 'export-mobile[coreai]'" in refusal.value.hint


def test_without_the_extra_nothing_passes(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export is verified on a machine without the runtime: not run, never passed."""
    monkeypatch.setitem(sys.modules, "coreai.authoring", None)
    with pytest.raises(CannotRunHere, match="not installed"):
        coreai.load(written, VARIANTS["fp32"], 1)


@pytest.mark.slow
def test_an_export_executes_it_in_the_sandbox(tmp_path: Path) -> None:
    """The row is passed by Core AI's runtime, in a confined process, and has no latency."""
    row = exports.row_by_command("iphone", "coreai-fp16", tmp_path / "out")
    assert (row["status"], row["host_latency"]) == ("passed", None)
    assert row["verification"]["runtime"].startswith("coreai 1.")
