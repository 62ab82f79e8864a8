"""Tests that weights load wherever PyTorch loads them, and in more cases that the tensors decide."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao import quantization
from torch.nn.utils import parametrizations, parametrize, prune
from torch.optim.swa_utils import AveragedModel

from exporter import checkpoints
from exporter.architectures import build_architecture, factory, weight_loading, weight_readings
from exporter.errors import ArchitectureError, UsageError
from exporter.records import Checkpoint, TensorSpec

compile_: Any = torch.compile
old_weight_norm: Any = nn.utils.weight_norm
old_spectral_norm: Any = nn.utils.spectral_norm


class Inner(nn.Module):
    """All names are under `model.`, a prefix that wrappers use, too."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)  # type: ignore[no-any-return]


class Outer(nn.Module):
    """Names begin with `model.model.`, of which nothing may be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Inner()

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)  # type: ignore[no-any-return]


class Modular(nn.Module):
    """A submodule is really named `module`."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)  # type: ignore[no-any-return]


class Renaming(nn.Module):
    """A pre-hook renames an old name when the network is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(4, 3)
        self.register_load_state_dict_pre_hook(self._respell)  # type: ignore[no-untyped-call]

    def _respell(self, module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
        for key in [key for key in state if key.startswith(f"{prefix}fc.")]:
            state[f"{prefix}proj.{key.removeprefix(f'{prefix}fc.')}"] = state.pop(key)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)  # type: ignore[no-any-return]


class Migrating(nn.Module):
    """Version 2 stores a weight doubled; a weight of version 1 is doubled on loading."""

    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(3, 4))

    def _load_from_state_dict(self, state: Any, prefix: str, local_metadata: Any, *rest: Any) -> None:
        if (local_metadata.get("version") or 1) < 2:
            state[f"{prefix}weight"] = 2 * state[f"{prefix}weight"]
        super()._load_from_state_dict(state, prefix, local_metadata, *rest)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.t()


class Growing(nn.Module):
    """A queue takes the file's size, which PyTorch would call a mismatch."""

    def __init__(self, size: int = 1) -> None:
        super().__init__()
        self.register_buffer("queue", torch.rand(size, 4))
        self.queue: Tensor

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        self.queue = torch.empty_like(state[f"{prefix}queue"])
        super()._load_from_state_dict(state, prefix, *rest)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.queue.t()


class Remembering(nn.Module):
    """The outputs depend on extra state, which is no tensor."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.scale = scale

    def get_extra_state(self) -> dict[str, Any]:
        return {"scale": self.scale, "history": [1, 2]}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.scale = state["scale"]

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.scale  # type: ignore[no-any-return]


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LazyLinear(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)  # type: ignore[no-any-return]


class Scalars(nn.Module):
    """The network has scalar buffers, integer buffers, and one that is not saved."""

    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("temperature", torch.tensor(value))
        self.register_buffer("steps", torch.tensor(int(value)))
        self.register_buffer("ramp", torch.arange(3.0), persistent=False)
        self.temperature: Tensor
        self.ramp: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) / self.temperature + self.ramp  # type: ignore[no-any-return]


class Own(nn.Module):
    """The network loads itself, by a method with fewer arguments than PyTorch's."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def load_state_dict(self, state_dict: Any, strict: bool = True) -> Any:  # type: ignore[override]
        return self.linear.load_state_dict({"weight": state_dict["w"], "bias": state_dict["b"]}, strict)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)  # type: ignore[no-any-return]


class Scaled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight * 3


def parametrized() -> nn.Module:
    """Make a weight with two parametrizations."""
    net = nn.Sequential(nn.Linear(4, 3))
    parametrize.register_parametrization(net[0], "weight", Scaled())
    parametrize.register_parametrization(net[0], "weight", Scaled())
    return net


def tied() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    return net


Maker = Callable[[], nn.Module]

NETWORKS: dict[str, Maker] = {
    "model": Inner,
    "model.model": Outer,
    "module": Modular,
    "hook": Renaming,
    "version": Migrating,
    "growing": lambda: Growing(5),
    "extra state": lambda: Remembering(0.25),
    "scalars": lambda: Scalars(7),
    "parametrizations": parametrized,
    "tied": tied,
}
"""Trained networks; each is loaded again as PyTorch would."""

FRESH: dict[str, Maker] = {**NETWORKS, "growing": Growing, "extra state": Remembering, "scalars": Scalars}


def read(tmp_path: Path, state: object) -> tuple[weight_readings.Weights, ...]:
    path = tmp_path / "checkpoint.pt"
    torch.save(state, path)
    return weight_readings.weight_readings(checkpoints.read_checkpoint(path))


def loaded(tmp_path: Path, state: object, net: nn.Module, **options: Any) -> tuple[str, ...]:
    notes = weight_loading.load_weights(net, read(tmp_path, state), "nets:make", **options)
    net.eval()
    return notes


def trained(make: Maker) -> nn.Module:
    torch.manual_seed(7)
    net = make().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.rand_like(parameter))
    return net


def answers_alike(net: nn.Module, twin: nn.Module, *shape: int) -> bool:
    x = torch.rand(*(shape or (2, 4)))
    with torch.inference_mode():
        first, second = net(x), twin(x)
    if isinstance(first, tuple):
        first, second = first[0], second[0]
    return torch.allclose(first, second, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_pytorch_takes_is_taken(tmp_path: Path, name: str) -> None:
    """A network's own state_dict loads into a fresh one of its kind, whatever its names and hooks."""
    net, fresh = trained(NETWORKS[name]), FRESH[name]()
    notes = loaded(tmp_path, net.state_dict(), fresh)
    assert answers_alike(net, fresh)
    assert not any("taken off" in note for note in notes)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "net.backbone."])
def test_wrapped_networks_are_found(tmp_path: Path, name: str, prefix: str) -> None:
    """Networks wrapped by DDP, torch.compile, Lightning or the user load with a note."""
    net, fresh = trained(NETWORKS[name]), FRESH[name]()
    state = net.state_dict()
    wrapped = type(state)((prefix + key, value) for key, value in state.items())
    wrapped._metadata = {  # type: ignore[attr-defined]
        (prefix + layer).rstrip("."): value
        for layer, value in state._metadata.items()  # type: ignore[attr-defined]
    }
    notes = loaded(tmp_path, wrapped, fresh)
    assert answers_alike(net, fresh)
    assert any("taken off the names" in note for note in notes)


def test_lazy_layers_get_their_shapes(tmp_path: Path) -> None:
    """A lazy layer has no shapes before it is loaded."""
    net = trained(lambda: nn.Sequential(nn.Linear(4, 3)))
    fresh = Lazy()
    loaded(tmp_path, {f"layer.{key[2:]}": value for key, value in net.state_dict().items()}, fresh)
    assert answers_alike(net, fresh)


def test_a_network_that_loads_itself(tmp_path: Path) -> None:
    """An overridden load_state_dict is called, with what it takes."""
    net = trained(Own)
    own = net.linear.state_dict()  # type: ignore[union-attr]
    fresh = Own()
    loaded(tmp_path, {"w": own["weight"], "b": own["bias"]}, fresh)
    assert answers_alike(net, fresh)


@pytest.mark.parametrize("version", [1, 2, None])
def test_the_files_own_format_version_counts(tmp_path: Path, version: int | None) -> None:
    """The network's own loader migrates old files only, as PyTorch decides."""
    net = trained(Migrating)
    state = net.state_dict()
    if version is None:
        state = dict(state)
    else:
        state._metadata[""]["version"] = version  # type: ignore[attr-defined]
    ours, theirs = Migrating(), Migrating()
    loaded(tmp_path, state, ours)
    theirs.load_state_dict(state)
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.weight, net.weight) is (version == 2)  # type: ignore[arg-type]


def test_real_wrappers_together(tmp_path: Path) -> None:
    """Files of torch.compile and an averaged model, one around the other, load."""
    net = trained(Outer)
    for wrapped in (compile_(net), AveragedModel(net), AveragedModel(compile_(net))):
        fresh = Outer()
        loaded(tmp_path, wrapped.state_dict(), fresh)
        assert answers_alike(net, fresh)


def wrapper(make: Maker) -> nn.Module:
    """Wrap a network around a saved one."""

    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = make()

        def forward(self, x: Tensor) -> Tensor:
            return self.backbone(x)  # type: ignore[no-any-return]

    return Wrapper()


def test_a_network_around_the_saved_one(tmp_path: Path) -> None:
    """A wrapper loads the network that was saved without it, and the reverse."""
    net = trained(Inner)
    around = wrapper(Inner)
    notes = loaded(tmp_path, net.state_dict(), around)
    assert answers_alike(net, around)
    assert any("'backbone.' put before" in note for note in notes)
    fresh = Inner()
    notes = loaded(tmp_path, {**around.state_dict(), "loss.weight": torch.ones(2)}, fresh)
    assert answers_alike(net, fresh)
    assert any("under 'backbone.'; 1 other tensors left out, first loss.weight" in note for note in notes)


def test_two_parts_that_fit_are_not_chosen_between(tmp_path: Path) -> None:
    """A student and a teacher of one kind are both named, with the option that decides."""
    both = {
        f"{part}.{key}": value
        for part in ("student", "teacher")
        for key, value in Inner().state_dict().items()
    }
    with pytest.raises(ArchitectureError, match=r"'student\.', 'teacher\.'") as caught:
        loaded(tmp_path, both, Inner())
    assert "--ignore-key 'teacher.*'" in caught.value.hint


NORMS: dict[str, tuple[Maker, Maker, tuple[int, ...]]] = {
    "conv": (lambda: nn.Conv1d(4, 6, 3), lambda: nn.Conv1d(4, 6, 3), (2, 4, 9)),
    "transposed": (lambda: nn.ConvTranspose1d(4, 6, 3), lambda: nn.ConvTranspose1d(4, 6, 3), (2, 4, 9)),
    "linear": (lambda: nn.Linear(4, 1), lambda: nn.Linear(4, 1), (2, 4)),
}


def normed(kind: str, name: str, dim: int | None = 0) -> nn.Module:
    make, _, _ = NORMS[name]
    apply = {"old": old_weight_norm, "new": parametrizations.weight_norm, "plain": lambda layer, **_: layer}
    return nn.Sequential(apply[kind](make(), dim=dim))


@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize(
    ("stored", "network"),
    [("old", "new"), ("new", "old"), ("old", "plain"), ("new", "plain"), ("plain", "old"), ("plain", "new")],
)
def test_weight_norm_in_any_form(
    tmp_path: Path, stored: str, network: str, name: str, dim: int | None
) -> None:
    """Old weight norm, parametrizations and plain weights give the same outputs."""
    net, fresh = trained(lambda: normed(stored, name, dim)), normed(network, name, dim)
    loaded(tmp_path, net.state_dict(), fresh)
    assert answers_alike(net, fresh, *NORMS[name][2])


def lstm(kind: str) -> nn.Module:
    apply = old_weight_norm if kind == "old" else parametrizations.weight_norm
    return apply(nn.LSTM(4, 5, batch_first=True), "weight_hh_l0")  # type: ignore[no-any-return]


@pytest.mark.parametrize(("stored", "network"), [("old", "new"), ("new", "new")])
def test_weight_norm_of_an_lstm(tmp_path: Path, stored: str, network: str) -> None:
    """Weight norm of a weight that is not named `weight` is converted."""
    net, fresh = trained(lambda: lstm(stored)), lstm(network)
    loaded(tmp_path, net.state_dict(), fresh)
    assert answers_alike(net, fresh, 2, 3, 4)


def test_spectral_norm_between_its_names(tmp_path: Path) -> None:
    """Spectral norm's old names and those of parametrizations hold the same tensors."""
    net = nn.Sequential(old_spectral_norm(nn.Linear(4, 3)))
    net(torch.rand(2, 4))
    fresh = nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 3)))
    loaded(tmp_path, net.eval().state_dict(), fresh)
    assert answers_alike(net, fresh)
    back = nn.Sequential(old_spectral_norm(nn.Linear(4, 3)))
    loaded(tmp_path, fresh.state_dict(), back)
    assert answers_alike(net, back)


def test_pruned_weights_are_multiplied(tmp_path: Path) -> None:
    """A pruned network's weights and masks load into the plain network, and into a pruned one."""
    net = trained(Inner)
    prune.l1_unstructured(net.model[0], "weight", amount=0.5)  # type: ignore[index,no-untyped-call]
    fresh, pruned = Inner(), Inner()
    prune.identity(pruned.model[0], "weight")  # type: ignore[no-untyped-call]
    notes = loaded(tmp_path, net.state_dict(), fresh)
    assert answers_alike(net, fresh)
    assert any("weight and mask are multiplied (1 weights, first model.0.weight)" in note for note in notes)
    loaded(tmp_path, net.state_dict(), pruned)
    pruned(torch.rand(2, 4))
    assert answers_alike(net, pruned)


def test_quantisation_aware_training_leaves_float_weights(tmp_path: Path) -> None:
    """The observers of fake-quantisation are left out, with a note."""
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).train()
    torch_ao: Any = quantization
    net.qconfig = torch_ao.get_default_qat_qconfig("fbgemm")
    prepared = torch_ao.prepare_qat(copy.deepcopy(net))
    prepared(torch.rand(2, 4))
    fresh = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    notes = loaded(tmp_path, prepared.state_dict(), fresh)
    assert torch.equal(fresh.state_dict()["2.weight"], prepared[2].weight)
    assert any("quantisation-aware training" in note for note in notes)


@pytest.mark.parametrize(
    "buffer",
    [
        "embeddings.position_ids",
        "attn.inv_freq",
        "total_ops",
        "0.total_params",
        "block.relative_position_index",
    ],
)
def test_buffers_that_no_network_uses_are_left_out(tmp_path: Path, buffer: str) -> None:
    """Indices and counters that other versions of a network saved do not matter; they are named."""
    net, fresh = trained(Inner), Inner()
    notes = loaded(tmp_path, {**net.state_dict(), buffer: torch.arange(5)}, fresh)
    assert answers_alike(net, fresh)
    assert any(f"does not use are left out: {buffer}" in note for note in notes)


def test_a_buffer_that_is_no_longer_saved(tmp_path: Path) -> None:
    """A computed buffer is left out where it is equal, and refused where it is not."""
    net, fresh = trained(lambda: Scalars(2)), Scalars()
    loaded(tmp_path, {**net.state_dict(), "ramp": torch.arange(3.0)}, fresh)
    assert answers_alike(net, fresh)
    with pytest.raises(ArchitectureError, match=r"ramp \[3\] is one too many"):
        loaded(tmp_path, {**net.state_dict(), "ramp": torch.ones(3)}, fresh)


def test_old_files_lack_counters_and_tied_tensors(tmp_path: Path) -> None:
    """Batch norm's counters, and a tied tensor that is stored once, may be missing."""
    net, fresh = trained(Inner), Inner()
    loaded(tmp_path, {k: v for k, v in net.state_dict().items() if "num_batches" not in k}, fresh)
    assert answers_alike(net, fresh)
    net, twin = trained(tied), tied()
    notes = loaded(tmp_path, {k: v for k, v in net.state_dict().items() if k != "1.weight"}, twin)
    assert answers_alike(net, twin)
    assert "1.weight is 0.weight, which the file stores once" in notes


def test_other_tensors_are_refused_with_the_way_out(tmp_path: Path) -> None:
    """A tensor too many, one missing and one of another shape are named with what helps."""
    state = Inner().state_dict()
    with pytest.raises(ArchitectureError, match=r"extra\.weight \[2\] is one too many") as caught:
        loaded(tmp_path, {**state, "extra.weight": torch.ones(2)}, Inner())
    assert "--ignore-key 'extra.weight'" in caught.value.hint
    del state["model.2.bias"]
    with pytest.raises(ArchitectureError, match=r"model\.2\.bias \[3\] is missing") as caught:
        loaded(tmp_path, state, Inner())
    assert "--weights-from-arch" in caught.value.hint
    with pytest.raises(ArchitectureError, match=r"model\.0\.weight is \[5, 4\] where \[6, 4\]") as caught:
        loaded(tmp_path, {**state, "model.0.weight": torch.ones(5, 4)}, Inner(), from_arch=True)
    assert "--weights-from-arch" not in caught.value.hint


def test_missing_tensors_may_come_from_the_function(tmp_path: Path) -> None:
    """The function's own tensors stay with --weights-from-arch, and are listed."""
    net, fresh = trained(Inner), trained(Inner)
    state = {k: v + 1 for k, v in net.state_dict().items() if not k.startswith("model.2.")}
    notes = loaded(tmp_path, {f"module.{k}": v for k, v in state.items()}, fresh, from_arch=True)
    assert torch.equal(fresh.model[0].weight, state["model.0.weight"])  # type: ignore[index,union-attr]
    assert torch.equal(fresh.model[2].weight, net.model[2].weight)  # type: ignore[index,union-attr]
    assert any("2 tensors are those that nets:make made, as asked: model.2.weight" in note for note in notes)


def ignoring(tmp_path: Path, state: object, *patterns: str) -> tuple[weight_readings.Weights, ...]:
    path = tmp_path / "checkpoint.pt"
    torch.save(state, path)
    return weight_readings.weight_readings(checkpoints.read_checkpoint(path), patterns)


@pytest.mark.parametrize("pattern", ["aux.*", "module.aux.*", "*aux*"])
def test_ignored_keys(tmp_path: Path, pattern: str) -> None:
    """A pattern matches the stored and the bare name, and the ignored keys are listed."""
    net, fresh = trained(Inner), Inner()
    state = {f"module.{k}": v for k, v in {**net.state_dict(), "aux.w": torch.ones(1)}.items()}
    notes = weight_loading.load_weights(fresh, ignoring(tmp_path, state, pattern), "nets:make")
    assert answers_alike(net, fresh.eval())
    assert any(f"1 tensors left out, as --ignore-key {pattern} asks" in note for note in notes)


def test_a_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    """A pattern is given for a reason: one that matches nothing is misspelt."""
    with pytest.raises(UsageError, match=r"--ignore-key 'haed\.\*' matches none"):
        ignoring(tmp_path, Inner().state_dict(), "haed.*")


def test_eight_bit_integers_are_said(tmp_path: Path) -> None:
    """Integers copied into float weights, as PyTorch does, are listed."""
    state = {k: v.to(torch.int8) if k.endswith("0.weight") else v for k, v in Inner().state_dict().items()}
    assert any("8-bit integers" in note for note in loaded(tmp_path, state, Inner()))


def test_the_factory_loads_so(tmp_path: Path) -> None:
    """`--arch` loads weights in the same way."""
    net = trained(Outer)
    built = factory.build_by_factory(
        "tests.architectures.test_weight_loading:Outer", read(tmp_path, net.state_dict()), {}
    )
    assert answers_alike(net, built.module.eval())


class LastChannels(nn.Module):
    """A one-channel image in channels_last, whose sizes of 1 hide their strides."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 5, 3)
        self.body = nn.Conv2d(5, 4, 1)
        self.register_buffer("grid", torch.rand(2, 3, 4).permute(2, 0, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.stem(x))  # type: ignore[no-any-return]


def last_channels() -> nn.Module:
    net: Any = LastChannels()
    moved: nn.Module = net.to(memory_format=torch.channels_last)
    return moved


def test_every_tensor_is_laid_out_plainly() -> None:
    """A network in channels_last gets the strides of C order and keeps its outputs."""
    net = last_channels().eval()
    held = Checkpoint(Path("net.pt"), "0" * 64, "state_dict", net.state_dict())
    shape = (TensorSpec("", (1, 1, 8, 8)),)
    model = build_architecture(
        held, arch="tests.architectures.test_weight_loading:last_channels", input_shapes=shape
    )
    for tensor in (*model.module.parameters(), *model.module.buffers()):
        assert tensor.stride() == torch.empty(tensor.shape).stride()
    assert answers_alike(net, model.module, 1, 1, 8, 8)
