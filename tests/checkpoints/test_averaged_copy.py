"""An averaged copy of the network in the same dictionary as the trained one is the network to ship."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from exporter.architectures import build_architecture
from exporter.checkpoints import read_checkpoint
from exporter.checkpoints.averaged_copy import find_averaged_copy
from exporter.errors import ArchitectureError
from tests.architectures.checkpoints import state

SMALL = {"a.weight": (2, 3), "a.bias": (2,)}


def copies(*prefixes: str, **more: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Return shapes of the small network under each prefix, and of other tensors."""
    return {f"{prefix}{name}": shape for prefix in prefixes for name, shape in SMALL.items()} | more


@pytest.mark.parametrize(
    ("shapes", "averaged"),
    [
        (copies("online_model.", "ema_model.", initted=(), step=(1,)), "ema_model."),
        (copies("net.", "net_ema."), "net_ema."),
        (copies("module.", "_orig_mod.ema."), "_orig_mod.ema."),
        (copies("ema."), ""),
        (copies("student.", "teacher."), ""),
        (copies("a.", "b.", "ema."), ""),
        (copies("net.", "ema_net.", **{"ema_net.more": (1,)}), ""),
        (copies("net.", "ema_net.", scale=(4,)), ""),
    ],
)
def test_one_averaged_copy_of_the_only_network_is_found(
    shapes: dict[str, tuple[int, ...]], averaged: str
) -> None:
    """Two copies of equal shapes, of which one is named as an average; counters may be beside them."""
    reading = find_averaged_copy(shapes)
    assert (reading is not None) == bool(averaged)
    if reading is not None:
        assert reading.names == {name: f"{averaged}{name}" for name in SMALL}


def test_the_averaged_copy_is_recognised_and_said(tmp_path: Path) -> None:
    """A file of ema-pytorch is its averaged network, without an option."""
    own = state("squeezenet1_1")
    trained = {f"online_model.{key}": value * 0 for key, value in own.items()}
    averaged = {f"ema_model.{key}": value for key, value in own.items()}
    torch.save(
        {**trained, **averaged, "initted": torch.tensor(True), "step": torch.tensor(9)}, tmp_path / "ema.pt"
    )
    model = build_architecture(read_checkpoint(tmp_path / "ema.pt"))
    assert model.architecture == "torchvision/squeezenet1_1"
    assert "averaged (EMA) weights used: 'ema_model.', instead of 'online_model.'" in model.notes
    assert torch.equal(model.module.state_dict()["classifier.1.bias"], own["classifier.1.bias"])


def test_two_copies_that_nothing_tells_apart_are_not_guessed(tmp_path: Path) -> None:
    """A student and a teacher are refused, and --ignore-key leaves one out."""
    own = state("squeezenet1_1")
    both = {f"{prefix}.{key}": value for prefix in ("student", "teacher") for key, value in own.items()}
    torch.save(both, tmp_path / "distilled.pt")
    checkpoint = read_checkpoint(tmp_path / "distilled.pt")
    with pytest.raises(
        ArchitectureError, match=r"2 copies of one network, 'student\.' and 'teacher\.'"
    ) as caught:
        build_architecture(checkpoint)
    assert "--ignore-key 'teacher.*'" in caught.value.hint
    model = build_architecture(checkpoint, ignore_keys=("teacher.*",))
    assert model.architecture == "torchvision/squeezenet1_1"
