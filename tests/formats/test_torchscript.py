from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import exporter.formats.torchscript as torchscript
from exporter.capture.calls import FlatCallOutputs
from exporter.errors import LoweringError
from exporter.records import Array, Captured, Limits, TensorSpec
from exporter.verify.contract import check_structure_by_contract
from tests.nets import NETS, captured, samples

(VARIANT,) = torchscript.VARIANTS


class Branch(nn.Module):
    """A network in which the sign of the input's sum decides which layer runs."""

    def __init__(self) -> None:
        super().__init__()
        self.positive = nn.Linear(4, 4)
        self.negative = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        if bool(x.sum() > 0):
            return self.positive(x)  # type: ignore[no-any-return]
        return self.negative(x)  # type: ignore[no-any-return]


class Equal(nn.Module):
    """A network that branches on `torch.equal`, about which the tracer does not warn."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if torch.equal(x, x.abs()) else x * 3


class Item(nn.Module):
    """A network that `torch.export` can express and a trace can't."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.sum().item()


class Nested(nn.Module):
    """A network with control flow, and outputs in a dictionary."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if bool(x.sum() > 0):
            return {"twice": x * 2, "minus": -x}
        return {"twice": x * 3, "minus": x}


class Unscriptable(nn.Module):
    """A network whose control flow is written in a way that TorchScript doesn't know."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0] * 2 if bool(inputs[0].sum() > 0) else inputs[0]


UP, DOWN = torch.ones(1, 4), -torch.ones(1, 4)


def capture(module: nn.Module, example: Tensor = UP, mode: str = "auto") -> Captured:
    outputs = module.eval()(example)
    count = len(outputs) if isinstance(outputs, tuple) else 1
    try:
        program, error = torch.export.export(module, (example,)), ""
    except Exception as failure:
        program, error = None, f"torch.export: {str(failure).splitlines()[0]}"
    spec = TensorSpec("x", tuple(example.shape), str(example.dtype).removeprefix("torch."))
    outputs = tuple(TensorSpec(f"y{i}", tuple(example.shape)) for i in range(count))
    return Captured(module, program, error, (example,), (spec,), outputs, mode)  # type: ignore[arg-type]


def run(path: Path, *inputs: Array) -> tuple[Array, ...]:
    return torchscript.load(path, VARIANT, 1)[0](inputs)


@pytest.mark.parametrize("name", NETS)
def test_outputs_equal_eager(name: str, tmp_path: Path) -> None:
    """The written file gives eager's outputs, in order, on digits the export has not seen."""
    net = captured(name)
    path = torchscript.emit(net, VARIANT, tmp_path).path
    runner, runtime = torchscript.load(path, VARIANT, 1)
    for sample in samples(name, 1500, 20):
        expected = net.module(*(torch.from_numpy(array) for array in sample))
        expected = expected if isinstance(expected, tuple) else (expected,)
        for ours, eager in zip(runner(sample), expected, strict=True):
            np.testing.assert_allclose(ours, eager.detach().numpy(), atol=2e-5)
    assert runtime == f"torchscript lite (torch {torch.__version__.partition('+')[0]})"


@pytest.mark.parametrize(
    ("name", "weights", "operators"),
    [
        ("cnn", 3 * 144 - 144 + 256 + 160, {"aten::_convolution": 3, "aten::linear": 1}),
        ("two_in_two_out", 2112, {"aten::linear": 4, "aten::cat": 1, "aten::relu": 1}),
        ("attention", 8 * 32 + 8 * 32 + 32 * 96 + 32 * 32 + 320, {"aten::linear": 4, "aten::softmax.int": 1}),
    ],
)
def test_structure(name: str, weights: int, operators: dict[str, int], tmp_path: Path) -> None:
    """Inputs, outputs, operators and every weight can be read without running the file."""
    net = captured(name)
    contents = torchscript.structure(torchscript.emit(net, VARIANT, tmp_path).path, VARIANT)
    assert (contents.inputs, contents.outputs) == (net.inputs, net.outputs)
    assert operators.items() <= contents.operators.items()
    assert contents.weight_elements == {"float32": weights}
    assert contents.weight_bytes == 4 * weights


def test_batch_norm_is_folded(tmp_path: Path) -> None:
    """No batch norm is left, and the notes say what was not done."""
    emission = torchscript.emit(captured("cnn"), VARIANT, tmp_path)
    operators = torchscript.structure(emission.path, VARIANT).operators
    assert not [name for name in operators if "batch_norm" in name]
    assert "batch norms folded" in emission.notes[1]


@pytest.mark.parametrize("module", [Branch, Equal, Item, Nested])
def test_control_flow_is_scripted(module: type[nn.Module], tmp_path: Path) -> None:
    """A network that decides by values is scripted, says so, and is right on both branches."""
    net = module()
    flat = FlatCallOutputs(net).eval() if module is Nested else net
    emission = torchscript.emit(capture(flat), VARIANT, tmp_path)
    assert emission.notes[0].startswith("Scripted, because ")
    for x in (UP, DOWN):
        expected = flat(x)
        expected = expected if isinstance(expected, tuple) else (expected,)
        for ours, eager in zip(run(emission.path, x.numpy()), expected, strict=True):
            np.testing.assert_allclose(ours, eager.detach().numpy(), atol=1e-6)


def test_trace_would_lose_the_branch(tmp_path: Path) -> None:
    """A forced trace keeps the example's branch for all inputs, and the notes warn, with the line."""
    emission = torchscript.emit(capture(Branch(), mode="trace"), VARIANT, tmp_path)
    assert "Traced, as asked." in emission.notes
    assert any("may be wrong" in note and "test_torchscript.py:" in note for note in emission.notes)
    net = Branch()
    path = torchscript.emit(capture(net, mode="trace"), VARIANT, tmp_path).path
    np.testing.assert_allclose(run(path, UP.numpy())[0], net(UP).detach().numpy(), atol=1e-6)
    assert np.abs(run(path, DOWN.numpy())[0] - net(DOWN).detach().numpy()).max() > 0.01


def test_script_can_be_forced(tmp_path: Path) -> None:
    """`--torchscript script` scripts what auto would trace."""
    net = dataclasses.replace(captured("cnn"), torchscript="script")
    assert torchscript.emit(net, VARIANT, tmp_path).notes[0] == "Scripted, as asked."


def test_neither_way(tmp_path: Path) -> None:
    """Control flow that can't be scripted is refused with the reason and the line, not traced wrongly."""
    with pytest.raises(LoweringError, match="A trace would lose control flow") as raised:
        torchscript.emit(capture(Unscriptable()), VARIANT, tmp_path)
    assert raised.value.source is not None
    assert "test_torchscript.py:" in raised.value.source


@pytest.mark.parametrize("freeze", [False, True])
def test_script_modules_are_used_as_they_are(freeze: bool, tmp_path: Path) -> None:
    """A TorchScript checkpoint keeps its control flow, frozen before or not."""
    net = Branch().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.script(net)
        script = torch.jit.freeze(script) if freeze else script
    source = dataclasses.replace(capture(net), module=script)
    emission = torchscript.emit(source, VARIANT, tmp_path)
    assert emission.notes[0] == "The model is already TorchScript: used unchanged."
    np.testing.assert_allclose(run(emission.path, DOWN.numpy())[0], net(DOWN).detach().numpy(), atol=1e-6)


def test_integer_inputs(tmp_path: Path) -> None:
    """The artifact takes token numbers as int64."""
    net = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 4)).eval()
    tokens = torch.tensor([[1, 2, 3]])
    path = torchscript.emit(capture(net, tokens), VARIANT, tmp_path).path
    np.testing.assert_allclose(run(path, tokens.numpy())[0], net(tokens).detach().numpy(), atol=1e-6)


def test_any_damage_is_found(tmp_path: Path) -> None:
    """A truncated file, or one with a changed byte, is refused by reader and runtime and crashes neither."""
    whole = torchscript.emit(captured("two_in_two_out"), VARIANT, tmp_path).path.read_bytes()
    with zipfile.ZipFile(tmp_path / f"{VARIANT.name}.ptl") as archive:
        bytecode = archive.read(f"{VARIANT.name}/bytecode.pkl")
    damaged = tmp_path / "damaged.ptl"
    rng = random.Random(0)
    cuts = [whole[: rng.randrange(len(whole))] for _ in range(20)]
    places = [whole.index(bytecode) + rng.randrange(len(bytecode)) for _ in range(20)]
    flips = [whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :] for at in places]
    for data in (*cuts, *flips, b"", rng.randbytes(5000)):
        damaged.write_bytes(data)
        for read in (torchscript.structure, lambda p, v: torchscript.load(p, v, 1)):
            with pytest.raises(LoweringError, match=r"is damaged|not a whole"):
                read(damaged, VARIANT)


def test_archive_code_does_not_run(tmp_path: Path) -> None:
    """A pickle in the archive that calls a function is not executed."""
    path = torchscript.emit(captured("cnn"), VARIANT, tmp_path).path
    marker, hostile = tmp_path / "ran", tmp_path / "hostile.ptl"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(hostile, "w") as target:
        for info in source.infolist():
            data = source.read(info)
            if info.filename.endswith("bytecode.pkl"):
                data = f"cos\nmkdir\n(S'{marker}'\ntR.".encode()
            target.writestr(info.filename, data)
    with pytest.raises(LoweringError, match="malformed bytecode"):
        torchscript.structure(hostile, VARIANT)
    assert not marker.exists()


@pytest.mark.slow
def test_bytes_are_reproducible(tmp_path: Path) -> None:
    """Two fresh processes write the same bytes."""
    code = (
        "import sys; from pathlib import Path; from tests.nets import captured;"
        "from exporter.formats import torchscript as t;"
        "t.emit(captured('cnn'), t.VARIANTS[0], Path(sys.argv[1]))"
    )
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        root = Path(__file__).parents[2]
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / name)], check=True, cwd=root
        )
    first, second = (tmp_path / n / f"{VARIANT.name}.ptl" for n in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


class Saver(nn.Module):
    """A network that writes its input to a file whenever it runs."""

    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, "MARKER")
        return x


class Reader(nn.Module):
    """A network that adds the content of a file."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.from_file("/etc/passwd", False, 4).sum()


class Speaker(nn.Module):
    """A network that prints to the terminal."""

    def forward(self, x: Tensor) -> Tensor:
        print("Every claim holds.")  # noqa: T201
        return x


@pytest.mark.parametrize(
    ("module", "operator"),
    [(Saver(), "aten::save"), (Reader(), "aten::from_file"), (Speaker(), "prim::Print")],
    ids=["writes", "reads", "prints"],
)
def test_a_file_that_does_more_than_compute_is_neither_read_nor_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    module: nn.Module,
    operator: str,
) -> None:
    """Structure and runtime refuse operators of the bytecode by name, and nothing happens."""
    monkeypatch.chdir(tmp_path)
    script: Any = torch.jit.script(module)
    script._save_for_lite_interpreter("net.ptl")
    capfd.readouterr()
    for refusing in (
        lambda: torchscript.structure(Path("net.ptl"), VARIANT),
        lambda: torchscript.load(Path("net.ptl"), VARIANT, 1),
    ):
        with pytest.raises(LoweringError, match=operator):
            refusing()
    assert [path.name for path in tmp_path.iterdir()] == ["net.ptl"]
    assert capfd.readouterr() == ("", "")


class Fourier(nn.Module):
    """A layer of complex weights between a Fourier transform and its inverse, and a complex output."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(6, 6, dtype=torch.complex64))
        self.register_buffer("phase", torch.polar(torch.ones(5), torch.arange(5.0)))

    phase: Tensor

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        spectrum = self.weight @ (torch.fft.rfft(x) * self.phase)
        return torch.fft.irfft(spectrum), spectrum


def test_complex_weights_and_outputs_are_kept(tmp_path: Path) -> None:
    """A file of complex numbers can be read, is what it is called, and gives the network's outputs."""
    net, x = Fourier().eval(), torch.randn(1, 6, 8)
    path = torchscript.emit(capture(net, x), VARIANT, tmp_path).path
    contents = torchscript.structure(path, VARIANT)
    assert contents.weight_elements == {"complex64": 36}
    assert (
        check_structure_by_contract(contents, VARIANT, contents.inputs, contents.outputs, 36, Limits()) == ""
    )
    for ours, eager in zip(run(path, x.numpy()), net(x), strict=True):
        np.testing.assert_allclose(ours, eager.detach().numpy(), atol=1e-5)
