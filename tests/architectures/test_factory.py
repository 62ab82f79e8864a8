from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from exporter.architectures import build_architecture
from exporter.errors import ArchitectureError, ExportError, UsageError
from exporter.records import TensorSpec
from tests.architectures.checkpoints import checkpoint
from tests.nets import TinyCnn, TwoInTwoOut

SOURCE = """
from torch import nn
from torchvision.models import resnet18

class Net(nn.Module):
    def __init__(self, width=4, bias=True):
        super().__init__()
        self.fc = nn.Linear(3, width, bias=bias)
    def forward(self, features):
        return self.fc(features)

class Tied(Net):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 4)
        self.head.weight = self.fc.weight

class Shaped(Net):
    example_inputs = (__import__("torch").zeros(2, 3),)

def make_net(width=4, bias=True): return Net(width, bias)
def needs(width): return Net(width)
def fails(): raise RuntimeError("no such file: vocabulary.txt")
def leaves(): raise SystemExit(3)
def returns_text(): return "net"
ready = Net()
number = 3
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make a user's project in the current directory; undo the effects of importing it."""
    modules, path = set(sys.modules), list(sys.path)
    folder = tmp_path / "mypkg"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "nets.py").write_text(SOURCE)
    (folder / "broken.py").write_text("def make_net(:\n")
    (folder / "leaving.py").write_text("raise SystemExit(0)\n")
    (folder / "needy.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("mypkg"):
            del sys.modules[name]


def linear(width: int = 4) -> dict[str, torch.Tensor]:
    return {"fc.weight": torch.rand(width, 3), "fc.bias": torch.rand(width)}


SHAPE = (TensorSpec("", (1, 3)),)


@pytest.mark.usefixtures("package")
def test_function_in_the_current_directory() -> None:
    """The function is found, called with literal arguments, and its network carries the weights."""
    tensors = {"fc.weight": torch.rand(7, 3)}
    model = build_architecture(
        checkpoint(tensors),
        arch="mypkg.nets:make_net",
        arch_args={"width": "7", "bias": "false"},
        input_shapes=SHAPE,
    )
    assert model.architecture == "mypkg.nets:make_net"
    assert model.inputs == (TensorSpec("features", (1, 3)),)
    assert model.preprocessing is None
    assert torch.equal(model.module.state_dict()["fc.weight"], tensors["fc.weight"])
    assert not model.module.training


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("arch", ["mypkg.nets:Net", "mypkg.nets:ready"])
def test_classes_and_instances_will_do(arch: str) -> None:
    """A module class, and a module that is already made, are as good as a function."""
    assert build_architecture(checkpoint(linear()), arch=arch, input_shapes=SHAPE).parameters == 16


@pytest.mark.usefixtures("package")
def test_example_inputs_give_the_shape() -> None:
    """A network that carries example_inputs needs no --input-shape."""
    model = build_architecture(checkpoint(linear()), arch="mypkg.nets:Shaped")
    assert model.inputs == (TensorSpec("features", (2, 3)),)


@pytest.mark.usefixtures("package")
def test_tied_weights_may_be_stored_once() -> None:
    """A tensor that the network uses under two names, and safetensors stores under one, is found."""
    tensors = {**linear(), "head.bias": torch.rand(4)}
    module = build_architecture(checkpoint(tensors), arch="mypkg.nets:Tied", input_shapes=SHAPE).module
    assert torch.equal(module.state_dict()["head.weight"], tensors["fc.weight"])


@pytest.mark.usefixtures("package")
def test_current_directory_ends_up_last() -> None:
    """After the import, the user's files cannot shadow frameworks that are imported later."""
    build_architecture(checkpoint(linear()), arch="mypkg.nets:make_net", input_shapes=SHAPE)
    assert sys.path[-1] == str(Path.cwd())
    assert sys.path[0] != str(Path.cwd())


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("arch", "arguments", "kind", "message"),
    [
        ("mypkg.nets.make_net", {}, UsageError, "names no network"),
        ("mypkg.nets:", {}, UsageError, "names no network"),
        ("my pkg:x y", {}, UsageError, "names no network"),
        ("mypkg.netz:make_net", {}, UsageError, "no module 'mypkg.netz' in"),
        ("mypgk.nets:make_net", {}, UsageError, "no module 'mypgk' in"),
        ("mypkg.nets:make_nte", {}, UsageError, "has no 'make_nte'. Did you mean make_net?"),
        ("mypkg.nets:number", {}, UsageError, "int found, not a function"),
        ("mypkg.nets:needs", {}, UsageError, "missing a required argument: 'width'"),
        ("mypkg.nets:make_net", {"depth": "3"}, UsageError, "unexpected keyword argument 'depth'"),
        ("mypkg.broken:make_net", {}, ArchitectureError, "importing mypkg.broken failed: SyntaxError"),
        ("mypkg.leaving:make_net", {}, ArchitectureError, "importing mypkg.leaving failed: SystemExit"),
        ("mypkg.needy:make_net", {}, ArchitectureError, "needs 'a_package_that_is_not_there'"),
        ("mypkg.nets:fails", {}, ArchitectureError, "RuntimeError: no such file: vocabulary.txt"),
        ("mypkg.nets:fails", {}, ArchitectureError, "/mypkg/nets.py:"),
        ("mypkg.nets:leaves", {}, ArchitectureError, "SystemExit: 3"),
        ("mypkg.nets:returns_text", {}, ArchitectureError, "returned str, not a torch.nn.Module"),
        (
            "mypkg.nets:make_net",
            {"width": "5"},
            ArchitectureError,
            "fc.weight is [4, 3] where [5, 3] is expected",
        ),
        ("mypkg.nets:make_net", {"width": "wide"}, ArchitectureError, "the function failed: TypeError"),
    ],
)
def test_every_failure_says_what_it_is(
    arch: str, arguments: dict[str, str], kind: type[ExportError], message: str
) -> None:
    """Each way a user's function can fail is one clear error of the right kind."""
    with pytest.raises(kind) as caught:
        build_architecture(checkpoint(linear()), arch=arch, arch_args=arguments, input_shapes=SHAPE)
    assert message in str(caught.value)
    assert type(caught.value) is kind


@pytest.mark.usefixtures("package")
def test_unknown_shapes_are_asked_for() -> None:
    """A network of the user's without a known input shape asks for --input-shape, naming its inputs."""
    with pytest.raises(UsageError, match=r"It takes features\. Give --input-shape once per input"):
        build_architecture(checkpoint(linear()), arch="mypkg.nets:make_net")


def digits(**arguments: object) -> tuple[TensorSpec, ...]:
    model = build_architecture(
        checkpoint(TwoInTwoOut().state_dict()),
        arch="tests.nets:TwoInTwoOut",
        **arguments,  # type: ignore[arg-type]
    )
    return model.inputs


def test_two_inputs_by_position_and_by_name() -> None:
    """Shapes without names go by position, with names into forward's order."""
    expected = (TensorSpec("top", (1, 32)), TensorSpec("bottom", (1, 32), "float16"))
    positional = (TensorSpec("", (1, 32)), TensorSpec("", (1, 32), "float16"))
    assert digits(input_shapes=positional) == expected
    assert digits(input_shapes=expected[::-1]) == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((TensorSpec("", (1, 32)),), "forward takes (top, bottom), and 1 input shape(s) are given"),
        ((TensorSpec("top", (1, 32)), TensorSpec("", (1, 32))), "names top, (none)"),
        ((TensorSpec("top", (1, 32)), TensorSpec("top", (1, 32))), "Name each input once"),
        ((TensorSpec("left", (1, 32)), TensorSpec("bottom", (1, 32))), "inputs are top, bottom"),
    ],
)
def test_wrong_shapes_are_explained(asked: tuple[TensorSpec, ...], message: str) -> None:
    """Too few, half-named, doubled or unknown inputs are refused with forward's names."""
    with pytest.raises(UsageError) as caught:
        digits(input_shapes=asked)
    assert message in str(caught.value)


def test_preprocessing_of_a_users_photo_network() -> None:
    """A network of the user's that takes photos gets preprocessing when asked for, and says so when not."""
    shape = (TensorSpec("", (1, 1, 8, 8)),)
    weights = checkpoint(TinyCnn().state_dict())
    silent = build_architecture(weights, arch="tests.nets:TinyCnn", input_shapes=shape)
    assert silent.preprocessing is None
    assert any("--preprocess" in note for note in silent.notes)
    asked = build_architecture(weights, arch="tests.nets:TinyCnn", input_shapes=shape, preprocess="unit")
    assert asked.preprocessing is not None
    assert (asked.preprocessing.mean, asked.preprocessing.std) == ((0.0,), (1.0,))
    assert (asked.preprocessing.resize, asked.preprocessing.crop) == (8, (8, 8))


def test_preprocessing_of_other_inputs_is_refused() -> None:
    """Preprocessing for inputs that are no photo is a usage error."""
    shapes = (TensorSpec("", (1, 32)), TensorSpec("", (1, 32)))
    with pytest.raises(UsageError, match="are for one photo input"):
        digits(input_shapes=shapes, preprocess="unit")
