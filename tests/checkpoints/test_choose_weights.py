"""Containers, averaged weights, Lightning modules and the prefixes of wrappers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from exporter import checkpoints
from exporter.checkpoints import prefixes
from exporter.errors import CheckpointError
from exporter.records import Checkpoint
from tests.checkpoints.makers import LAYOUTS, Call, Net, image, net, torch_bytes, weights, written
from tests.checkpoints.test_kinds import last_reading, note, same


def read(tmp_path: Path, value: object, layout: str = "zip") -> Checkpoint:
    return checkpoints.read_checkpoint(written(tmp_path, torch_bytes(value, layout)))


def prefixed(prefix: str, scale: float = 1.0) -> dict[str, Any]:
    return {prefix + name: tensor for name, tensor in weights(scale).items()}


def trained() -> dict[str, Any]:
    """What trainers keep beside the weights: a stepped Adam, a scheduler, a GradScaler, an epoch."""
    model = Net()
    optimizer = torch.optim.Adam(model.parameters())
    model(image().repeat(2, 1, 1, 1)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    return {
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": scheduler.state_dict(),
        "scaler": torch.amp.GradScaler("cpu").state_dict(),
        "epoch": 3,
        "best_acc": torch.tensor(0.5),
        "rng_state": torch.get_rng_state(),
    }


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "key", ["state_dict", "model", "model_state_dict", "net", "network", "weights", "ema"]
)
def test_container(tmp_path: Path, key: str, layout: str) -> None:
    """The weights under any usual key are found beside optimizer, scheduler, GradScaler and epoch."""
    checkpoint = read(tmp_path, {**trained(), key: weights()}, layout)
    assert checkpoint.kind == "container"
    assert same(weights(), checkpoint)
    assert note(checkpoint, repr(key))


def test_nested_container(tmp_path: Path) -> None:
    """Containers may nest."""
    assert same(weights(), read(tmp_path, {"checkpoint": {"model": {"state_dict": weights()}, **trained()}}))


@pytest.mark.parametrize(
    ("last", "ema"),
    [
        ("state_dict", "state_dict_ema"),
        ("model", "model_ema"),
        ("model", "ema"),
        ("net", "ema_state_dict"),
        ("params", "params_ema"),
        ("model", "averaged_model"),
    ],
)
def test_ema_is_shipped(tmp_path: Path, last: str, ema: str) -> None:
    """Averaged weights beside the last ones are used, and the choice is noted."""
    checkpoint = read(tmp_path, {last: weights(), ema: weights(0.5), **trained()})
    assert same(weights(0.5), checkpoint)
    assert note(checkpoint, f"averaged (EMA) weights used: {ema!r}, instead of {last!r}")


def test_nested_ema(tmp_path: Path) -> None:
    """An EMA helper's own state (module, decay, updates) is looked into."""
    ema = {"module": weights(0.5), "decay": 0.999, "updates": torch.tensor(7)}
    assert same(weights(0.5), read(tmp_path, {"model": weights(), "ema": ema}))


@pytest.mark.parametrize("key", ["model_ema", None])
def test_averaged_model(tmp_path: Path, key: str | None) -> None:
    """An AveragedModel of torch keeps `n_averaged` and `module.`: both go."""
    state = AveragedModel(net()).state_dict()
    checkpoint = read(tmp_path, {"model": weights(0.5), key: state} if key else state)
    assert same(weights(), checkpoint)


def test_incomplete_ema_is_left_out(tmp_path: Path) -> None:
    """Averaged parameters without the batch norms' statistics are no whole network."""
    partial = {k: v * 0.5 for k, v in weights().items() if "running" not in k and "num_batches" not in k}
    checkpoint = read(tmp_path, {"model": weights(), "ema": partial})
    assert same(weights(), checkpoint)
    assert note(checkpoint, "they lack 3 tensors, first 'norm.running_mean'")


def test_ambiguous_weights_are_refused(tmp_path: Path) -> None:
    """Two networks that nothing tells apart are named, not guessed between."""
    with pytest.raises(CheckpointError, match=r"'generator' \(9 tensors\), 'discriminator' \(9 tensors\)"):
        read(tmp_path, {"generator": weights(), "discriminator": weights(2)})


@pytest.mark.parametrize(
    "value",
    [{}, [], {"epoch": 3}, {"optimizer": {"a": torch.ones(2)}}, None, "text", [1, [2, {3: 4}]]],
    ids=repr,
)
def test_no_weights(tmp_path: Path, value: object) -> None:
    """A file of torch.save without weights says what it holds."""
    with pytest.raises(CheckpointError, match="holds no weights"):
        read(tmp_path, value)


def test_cyclic_container(tmp_path: Path) -> None:
    """A container that holds itself ends."""
    cycle: dict[str, Any] = {"state_dict": weights()}
    cycle["self"] = cycle
    cycle["list"] = [cycle, [cycle]]
    assert same(weights(), read(tmp_path, cycle))


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "model.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "model._orig_mod.module.model.",
    ],
)
def test_prefixes_are_stripped(tmp_path: Path, prefix: str) -> None:
    """Wrappers' prefixes go, in any nesting, with a note."""
    checkpoint = read(tmp_path, prefixed(prefix))
    assert same(weights(), checkpoint)
    assert note(checkpoint, "taken off")


def test_real_wrappers(tmp_path: Path) -> None:
    """What torch.compile itself writes is understood, of the whole model and of a part."""
    compile_: Any = torch.compile
    assert same(weights(), read(tmp_path, compile_(net()).state_dict()))
    part = nn.Sequential(compile_(nn.Linear(2, 2)), nn.Linear(2, 2))
    tensors = last_reading(read(tmp_path, part.state_dict()))
    assert tensors is not None
    assert list(tensors) == ["0.weight", "0.bias", "1.weight", "1.bias"]


@pytest.mark.parametrize("names", [["model.a", "head.b"], ["module."], ["model"], ["m.", "m.a"], []])
def test_only_what_all_names_share_is_a_prefix(names: list[str]) -> None:
    """A prefix that not all tensors share, or that is a whole name, stays."""
    assert [list(reading.names) for reading in prefixes.prefix_readings(names)] == [names]


@pytest.mark.parametrize("names", [["a._orig_mod.b", "a.b"], ["a.module.b", "a.b"], ["m.module.a", "m.a"]])
def test_no_two_tensors_get_one_name(names: list[str]) -> None:
    """Where a wrapper's name is all that tells two tensors apart, it stays."""
    assert all(len(reading.names) == len(names) for reading in prefixes.prefix_readings(names))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["model.model.a", "model.model.b"], [["model.model.a"], ["model.a"], ["a"]]),
        (["module.a", "module.b"], [["module.a"], ["a"]]),
        (["net.a", "net.b"], [["net.a"], ["a"]]),
        (["module._orig_mod.model.a", "module._orig_mod.model.b"], None),
        (["enc.module.a", "dec.a"], [["enc.module.a"], ["enc.a"]]),
        (["module.a", "b"], [["module.a"], ["a"]]),
        (["a._orig_mod.b", "a.b"], [["a._orig_mod.b"], ["_orig_mod.b"]]),
    ],
)
def test_stored_names_come_first(names: list[str], expected: list[list[str]] | None) -> None:
    """Every name that a network may have is there to try: first as stored, then without each prefix."""
    firsts = [[next(iter(reading.names))] for reading in prefixes.prefix_readings(names)]
    if expected is None:
        expected = [["module._orig_mod.model.a"], ["module.model.a"], ["model.a"], ["a"]]
    assert firsts == expected


def test_stored_names_lead_back_to_the_tensors(tmp_path: Path) -> None:
    """The file's own names are kept: a network that really has a `model.` finds its tensors."""
    checkpoint = read(tmp_path, prefixed("model."))
    assert checkpoint.tensors is not None
    assert list(checkpoint.tensors) == list(prefixed("model."))
    assert checkpoint.readings[0].names == {name: name for name in prefixed("model.")}
    assert checkpoint.readings[0].notes == ()


def lightning(state: dict[str, Any]) -> dict[str, Any]:
    return {
        "epoch": 1,
        "global_step": 10,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": state,
        "loops": {"fit_loop": {"x": torch.ones(3)}},
        "callbacks": {"ModelCheckpoint": {"best": torch.tensor(1.0)}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}],
        "lr_schedulers": [],
        "hyper_parameters": {"net": Call(Path, "/x"), "lr": 0.1, "other": Net},
        "hparams_name": "kwargs",
    }


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("attribute", ["model", "net", "network"])
def test_lightning(tmp_path: Path, attribute: str, layout: str) -> None:
    """A Lightning file with foreign hyper-parameters gives its network's tensors."""
    checkpoint = read(tmp_path, lightning(prefixed(f"{attribute}.")), layout)
    assert checkpoint.kind == "lightning"
    assert same(weights(), checkpoint)


def test_lightning_losses_are_dropped(tmp_path: Path) -> None:
    """Tensors of losses and metrics are left out, and it is said which."""
    state = {**prefixed("model._orig_mod."), "loss_fn.weight": torch.ones(3), "val_acc.total": torch.ones(1)}
    checkpoint = read(tmp_path, lightning(state))
    assert same(weights(), checkpoint)
    assert note(checkpoint, "1 tensor of 'loss_fn' left out")
    assert note(checkpoint, "1 tensor of 'val_acc' left out")


def test_lightning_stored_names_come_first(tmp_path: Path) -> None:
    """A network that has its loss inside, as the file does, finds every tensor under its stored name."""
    state = {**prefixed("model."), "loss_fn.weight": torch.ones(3)}
    first, *others = read(tmp_path, lightning(state)).readings
    assert first.names == {name: name for name in state}
    assert all("loss_fn.weight" not in reading.names for reading in others)


def test_lightning_head_is_kept(tmp_path: Path) -> None:
    """Another attribute that may be part of the network is never dropped."""
    state = {**prefixed("model."), "classifier.weight": torch.ones(3, 3)}
    checkpoint = read(tmp_path, lightning(state))
    assert same(state, checkpoint)
    assert all(len(reading.names) == len(state) for reading in checkpoint.readings)


def test_lightning_ema(tmp_path: Path) -> None:
    """An averaged copy inside the LightningModule is the one to ship."""
    checkpoint = read(tmp_path, lightning({**prefixed("model."), **prefixed("model_ema.", 0.5)}))
    assert same(weights(0.5), checkpoint)
    assert note(checkpoint, "averaged (EMA) weights used: 'model_ema.'")
