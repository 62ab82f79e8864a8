"""Match a network that is a part of what was saved, or saved tensors that are a part of the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from exporter.architectures import network_index
from exporter.architectures.weight_readings import Weights
from exporter.errors import ArchitectureError


def partial_weights_of_network(
    readings: Sequence[Weights], own: Mapping[str, network_index.Shape], title: str
) -> Iterator[Weights]:
    """Yield the tensors that match the network's after a prefix is added or removed.

    Args:
        readings: The file's tensors by the names to try.
        own: The network's names and shapes.
        title: The network's name in messages.

    Raises:
        ArchitectureError: Several parts of the file are such a network, so the choice is ambiguous.
    """
    stored = readings[0]
    prefixes = list(_partial_weights_inside(stored, own))
    if len(prefixes) > 1:
        raise ArchitectureError(
            f"Several parts of the file fit {title}: the tensors under {', '.join(map(repr, prefixes))}.",
            f"Leave the others out: `--ignore-key '{prefixes[1]}*'`.",
        )
    for prefix in prefixes:
        yield _make_partial_weights(stored, prefix)
    for weights in readings:
        for prefix in _partial_weights_around(weights, own):
            yield _wrapped_partial_weights(weights, prefix)


def _partial_weights_inside(weights: Weights, own: Mapping[str, network_index.Shape]) -> Iterator[str]:
    """Yield each prefix under which the file has every tensor of the network."""
    needed = {key: shape for key, shape in own.items() if not key.endswith(network_index.OPTIONAL_SUFFIX)}
    if not needed:
        return
    shapes = weights.shapes
    longest = max(needed, key=len)
    for key in shapes:
        if key.endswith(f".{longest}"):
            prefix = key[: -len(longest)]
            if all(shapes.get(prefix + name) == shape for name, shape in needed.items()):
                yield prefix


def _partial_weights_around(weights: Weights, own: Mapping[str, network_index.Shape]) -> Iterator[str]:
    """Yield the prefix that the network puts before every name of the file."""
    if not weights.tensors:
        return
    shapes = weights.shapes
    longest = max(shapes, key=len)
    prefixes = [key[: -len(longest)] for key in own if key.endswith(f".{longest}")]
    fitting = [p for p in prefixes if all(own.get(p + name) == shape for name, shape in shapes.items())]
    if len(fitting) == 1:
        yield fitting[0]


def _make_partial_weights(weights: Weights, prefix: str) -> Weights:
    tensors = {
        key[len(prefix) :]: tensor for key, tensor in weights.tensors.items() if key.startswith(prefix)
    }
    others = [key for key in weights.tensors if not key.startswith(prefix)]
    note = f"the network is what the file has under {prefix!r}"
    if others:
        note += (
            f"; {len(others)} other tensors left out, first "
            f"{network_index.printable_network_index_key(others[0])}"
        )
    return Weights(tensors, notes=(*weights.notes, note))


def _wrapped_partial_weights(weights: Weights, prefix: str) -> Weights:
    note = f"{prefix!r} put before the names of the tensors: the network wraps what was saved"
    return weights.respelt(lambda key: prefix + key, note)
