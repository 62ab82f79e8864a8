"""A checkpoint's tensors under one reading of their names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from exporter.architectures import network_index
from exporter.checkpoints import prefixes
from exporter.errors import UsageError
from exporter.records import Checkpoint, Reading

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Weights:
    """Tensors by the names that a network may use for them."""

    tensors: Mapping[str, torch.Tensor]
    layer_versions: Mapping[str, Mapping[str, Any]] | None = None
    """Layer -> PyTorch's notes on its format; None where the file has none."""
    extra_state: Mapping[str, Any] = field(default_factory=dict)
    """What layers saved in addition to tensors."""
    notes: tuple[str, ...] = ()
    """How these names and tensors were derived from the file's."""

    @property
    def shapes(self) -> dict[str, network_index.Shape]:
        return {key: tuple(tensor.shape) for key, tensor in self.tensors.items()}

    def noted(self, tensors: Mapping[str, torch.Tensor], *notes: str) -> Weights:
        """Return these weights with other tensors, and notes on the change."""
        return replace(self, tensors=tensors, notes=(*self.notes, *notes))

    def respelt(self, rename: Callable[[str], str], note: str) -> Weights:
        """Return these weights under other names."""
        return replace(
            self.noted({rename(key): tensor for key, tensor in self.tensors.items()}, note),
            extra_state={rename(key): value for key, value in self.extra_state.items()},
            layer_versions=None,
        )

    def state_dict(self) -> OrderedDict[str, Any]:
        """Return what `torch.load` would give for the file, under these names."""
        state: OrderedDict[str, Any] = OrderedDict({**self.tensors, **self.extra_state})
        if self.layer_versions is not None:
            state._metadata = OrderedDict(  # type: ignore[attr-defined]
                (layer, dict(noted)) for layer, noted in self.layer_versions.items()
            )
        return state


def weight_readings(checkpoint: Checkpoint, ignored: tuple[str, ...] = ()) -> tuple[Weights, ...]:
    """List the readings of a checkpoint: the stored names first, then those without prefixes.

    Args:
        checkpoint: A checkpoint that holds tensors.
        ignored: Patterns of names, such as `head.*`, whose tensors are left out. Stored and read names match.

    Raises:
        UsageError: A pattern matches no tensor.
    """
    assert checkpoint.tensors is not None, "a checkpoint without a module holds tensors"
    stored = Reading({name: name for name in checkpoint.tensors})
    every = [_make_weight_reading(checkpoint, reading) for reading in checkpoint.readings or (stored,)]
    names = [(key, key) for key in checkpoint.tensors]
    names += [pair for reading in checkpoint.readings for pair in reading.names.items()]
    for pattern in ignored:
        if not any(_matches_weight_reading(pattern, *pair) for pair in names):
            few = ", ".join(
                network_index.printable_network_index_key(key) for key in list(checkpoint.tensors)[:3]
            )
            raise UsageError(f"--ignore-key {pattern!r} matches none of the file's tensors ({few}, …).")
    if not ignored:
        return tuple(every)
    remaining = [
        _weight_reading_without(weights, reading, ignored)
        for weights, reading in zip(every, checkpoint.readings or (stored,), strict=True)
    ]
    return (*remaining, *_shorter_weight_readings(remaining[-1]))


def _shorter_weight_readings(weights: Weights) -> Iterator[Weights]:
    """Yield the weights without the prefix that their names share now that others are left out."""
    for reading in prefixes.prefix_readings(weights.tensors)[1:]:
        stored = {old: new for new, old in reading.names.items()}
        yield weights.respelt(stored.__getitem__, reading.notes[-1])


def _make_weight_reading(checkpoint: Checkpoint, reading: Reading) -> Weights:
    assert checkpoint.tensors is not None
    return Weights(
        {name: checkpoint.tensors[stored] for name, stored in reading.names.items()},
        _layer_versions_of_weight_reading(checkpoint.layer_versions, reading),
        _extra_state_of_weight_reading(checkpoint.extra_state, reading),
        reading.notes,
    )


def _weight_reading_without(weights: Weights, reading: Reading, patterns: tuple[str, ...]) -> Weights:
    remaining = {
        name: tensor
        for name, tensor in weights.tensors.items()
        if not any(_matches_weight_reading(pattern, name, reading.names[name]) for pattern in patterns)
    }
    count = len(weights.tensors) - len(remaining)
    return weights.noted(remaining, f"{count} tensors left out, as --ignore-key {' '.join(patterns)} asks")


def _matches_weight_reading(pattern: str, *names: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)


def _layers_of_weight_reading(reading: Reading) -> dict[str, str]:
    """Map each layer of the network to its name in the file, as far as tensors tell; "" is the network."""
    layers: dict[str, str] = {}
    for name, stored in reading.names.items():
        ours, theirs = name, stored
        while ours:
            ours, theirs = ours.rpartition(".")[0], theirs.rpartition(".")[0]
            layers.setdefault(ours, theirs)
            # Beyond the layer's own name, a wrapper's stands in the file only.
            while ours and theirs.rpartition(".")[2] != ours.rpartition(".")[2] and theirs:
                theirs = theirs.rpartition(".")[0]
    return layers


def _layer_versions_of_weight_reading(
    versions: Mapping[str, Mapping[str, Any]] | None, reading: Reading
) -> Mapping[str, Mapping[str, Any]] | None:
    if versions is None or all(name == stored for name, stored in reading.names.items()):
        return versions
    return {
        ours: versions[theirs]
        for ours, theirs in _layers_of_weight_reading(reading).items()
        if theirs in versions
    }


def _extra_state_of_weight_reading(extra: Mapping[str, Any], reading: Reading) -> Mapping[str, Any]:
    if not extra or all(name == stored for name, stored in reading.names.items()):
        return extra
    ours = {theirs: layer for layer, theirs in _layers_of_weight_reading(reading).items()}
    split = {key: key.rpartition(".") for key in extra}
    return {
        f"{ours[layer]}.{last}" if ours[layer] else last: extra[key]
        for key, (layer, _, last) in split.items()
        if layer in ours
    }
