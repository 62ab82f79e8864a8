from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from exporter.architectures import build_architecture, skeleton
from exporter.errors import UsageError
from exporter.records import Checkpoint, TensorSpec
from tests import nets
from tests.architectures.checkpoints import state


def holding(
    kind: str, module: torch.nn.Module, example: tuple[torch.Tensor, ...] | None = None
) -> Checkpoint:
    return Checkpoint(Path("model"), "0" * 64, kind, None, module, example)


def resnet() -> torch.nn.Module:
    module = skeleton.skeleton_builders()["resnet18"](weights=None)
    module.load_state_dict(state("resnet18"))
    return module.eval()


def test_exported_program_keeps_its_shapes() -> None:
    """A torch.export file runs unchanged, at the shapes it was exported with."""
    net, example = nets.TwoInTwoOut().eval(), (torch.rand(1, 32), torch.rand(1, 32))
    program = torch.export.export(net, example)
    model = build_architecture(holding("exported_program", program.module(), example))
    assert model.architecture == "torch.export"
    assert model.inputs == (TensorSpec("top", (1, 32)), TensorSpec("bottom", (1, 32)))
    assert all(torch.equal(a, e) for a, e in zip(model.module(*example), net(*example), strict=True))


def test_exported_photo_network_keeps_its_size() -> None:
    """A known network exported for 64 pixels gets its photos, at 64 pixels."""
    example = (torch.rand(1, 3, 64, 64),)
    model = build_architecture(
        holding("exported_program", torch.export.export(resnet(), example).module(), example)
    )
    assert model.inputs == (TensorSpec("x", (1, 3, 64, 64)),)
    assert model.preprocessing is not None
    assert model.preprocessing.crop == (64, 64)
    model.module(*example)


@pytest.mark.parametrize(
    "compiled",
    [torch.jit.script, lambda net: torch.jit.trace(net, torch.rand(1, 3, 64, 64))],  # type: ignore[no-untyped-call]
    ids=["script", "trace"],
)
def test_torchscript_of_a_known_network_knows_its_photos(
    compiled: Callable[[torch.nn.Module], torch.nn.Module],
) -> None:
    """TorchScript keeps the tensors' names: size, preprocessing and labels follow from them."""
    module = compiled(resnet())
    model = build_architecture(holding("torchscript", module))
    assert model.architecture == "torchscript"
    assert model.module is module
    assert model.inputs == (TensorSpec("x", (1, 3, 224, 224)),)
    assert model.labels[281] == "tabby"
    assert any("those of torchvision/resnet18" in note for note in model.notes)


def test_torchscript_of_an_unknown_network_asks_for_shapes() -> None:
    """TorchScript has no shapes: they are asked for, with the names that it has."""
    module = torch.jit.script(nets.TwoInTwoOut())
    with pytest.raises(UsageError, match="It takes top, bottom"):
        build_architecture(holding("torchscript", module))
    model = build_architecture(holding("torchscript", module), input_shapes=(TensorSpec("", (1, 32)),) * 2)
    assert [spec.name for spec in model.inputs] == ["top", "bottom"]


def test_pickled_module_is_named_after_its_class() -> None:
    """A whole pickled module is used unchanged in eval mode, and named by its class."""
    model = build_architecture(
        holding("pickled_module", nets.TinyCnn().train()), input_shapes=(TensorSpec("", (1, 1, 8, 8)),)
    )
    assert model.architecture == "pickled/tests.nets.TinyCnn"
    assert not model.module.training


def test_named_architecture_takes_the_modules_tensors() -> None:
    """The option --arch rebuilds the network with the tensors of a self-contained file."""
    model = build_architecture(
        holding("torchscript", torch.jit.script(resnet())), arch="torchvision/resnet18"
    )
    assert model.architecture == "torchvision/resnet18"
    assert type(model.module).__name__ == "ResNet"


def test_arguments_for_a_fixed_network_are_refused() -> None:
    """The option --arch-arg is refused for a file that holds its own network."""
    with pytest.raises(UsageError, match="--arch-arg has no effect"):
        build_architecture(holding("pickled_module", nets.TinyCnn()), arch_args={"width": "3"})
