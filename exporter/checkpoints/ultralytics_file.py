"""A `.pt` of Ultralytics: a pickled module, whose tensors and settings are read without running its code.

The restricted unpickler leaves every layer as an inert object. Its tensors are in `_parameters` and
`_buffers`, and the description that the network was built from in `yaml`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from exporter.checkpoints import checkpoint_contents, checkpoint_tensors, pickled_module, prefixes
from exporter.checkpoints.checkpoint_source import CheckpointSource
from exporter.checkpoints.inert_values import (
    SCALARS,
    AnyTensor,
    Inert,
    is_module_inert_value,
    is_plain_inert_value,
    is_tensor_inert_value,
)
from exporter.errors import CheckpointError
from exporter.records import Checkpoint

KIND = "ultralytics"
TASKS = "ultralytics.nn.tasks."
PLACES = ("ema", "model")
"""The keys under which a network may be stored; averaged weights come first."""
MAX_LAYERS = 20_000
MAX_DEPTH = 32


def is_ultralytics_file(source: CheckpointSource) -> bool:
    """Tell whether there is a network of Ultralytics with its description."""
    return _network_of_ultralytics_file(source) is not None


def _network_of_ultralytics_file(source: CheckpointSource) -> tuple[str, Inert] | None:
    root = source.pickled.root if source.pickled is not None else None
    entries = root if isinstance(root, dict) else {}
    for key in PLACES:
        value = entries.get(key)
        if isinstance(value, Inert) and is_module_inert_value(value) and value.name.startswith(TASKS):
            return (key, value) if isinstance(value.state.get("yaml"), dict) else None
    return None


def read_ultralytics_file(source: CheckpointSource, trust: bool) -> Checkpoint:
    """Read the tensors of all layers, and what the file says of each; nothing in it runs unless `trust`.

    Raises:
        CheckpointError: The description holds more than numbers and text, or a tensor cannot be read.
    """
    if trust:
        return pickled_module.read_pickled_module(source, trust)
    assert source.pickled is not None
    located = _network_of_ultralytics_file(source)
    assert located is not None
    key, network = located
    described = network.state["yaml"]
    if not is_plain_inert_value(described):
        raise CheckpointError(f"{source.path}: the network's description holds more than numbers and text.")
    declared: dict[str, AnyTensor] = {}
    layers: dict[str, dict[str, Any]] = {}
    for path, layer in _ultralytics_file_layers(network):
        declared |= _ultralytics_file_tensors(path, layer)
        layers[path] = {"class": layer.name, **_ultralytics_file_numbers(layer)}
    loaded, converted = checkpoint_tensors.load_checkpoint_tensors(
        declared, source.pickled, source.size_bytes
    )
    arguments = source.pickled.root.get("train_args")
    names = network.state.get("names")
    return Checkpoint(
        path=source.path,
        sha256=source.sha256,
        kind=KIND,
        tensors=loaded,
        notes=(f"weights taken from {key!r} without running code of the file", *converted),
        contents=checkpoint_contents.describe_checkpoint_contents(source.pickled.root),
        readings=prefixes.prefix_readings(loaded),
        settings={
            "class": network.name.removeprefix(TASKS),
            "yaml": described,
            "names": names if is_plain_inert_value(names) else {},
            "args": arguments if isinstance(arguments, dict) and is_plain_inert_value(arguments) else {},
            "layers": layers,
        },
    )


def _ultralytics_file_layers(network: Inert) -> Iterator[tuple[str, Inert]]:
    """Yield each layer with its path in the network, the network itself first.

    Raises:
        CheckpointError: There are too many layers, or they are nested without end.
    """
    waiting: list[tuple[str, Inert, int]] = [("", network, 0)]
    count = 0
    while waiting:
        path, layer, depth = waiting.pop()
        count += 1
        if count > MAX_LAYERS or depth > MAX_DEPTH:
            raise CheckpointError(f"The network has more than {MAX_LAYERS} layers, or is nested without end.")
        yield path, layer
        children = layer.state.get("_modules")
        for name, child in children.items() if isinstance(children, dict) else ():
            if isinstance(child, Inert) and is_module_inert_value(child) and isinstance(name, str):
                waiting.append((f"{path}.{name}" if path else name, child, depth + 1))


def _ultralytics_file_tensors(path: str, layer: Inert) -> dict[str, AnyTensor]:
    """Return the tensors that the layer's state_dict would hold."""
    hidden = layer.state.get("_non_persistent_buffers_set") or ()
    declared = {}
    for place in ("_parameters", "_buffers"):
        listed = layer.state.get(place)
        for name, value in listed.items() if isinstance(listed, dict) else ():
            if isinstance(name, str) and name not in hidden and is_tensor_inert_value(value):
                declared[f"{path}.{name}" if path else name] = value
    return declared


def _ultralytics_file_numbers(layer: Inert) -> dict[str, Any]:
    """Return the layer's own settings that are numbers, text or tuples of them."""
    return {
        key: value
        for key, value in layer.state.items()
        if isinstance(key, str)
        and not key.startswith("_")
        and (
            type(value) in SCALARS or (type(value) is tuple and all(type(item) in SCALARS for item in value))
        )
    }
