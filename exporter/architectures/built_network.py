"""The records that every way of building a network returns."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from exporter.records import Codes, EarlierPart, Preprocessing, SampleReader, TensorSpec

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Photo:
    """The photo that a known network takes."""

    preprocessing: Preprocessing
    """The preprocessing for three channels and the network's published size."""
    channels: int
    source: str
    """The source of the preprocessing, for the notes."""
    fixed_size: int | None = None
    """The only side that the weights allow: a position embedding has one row per patch."""


@dataclass(frozen=True, eq=False)
class Built:
    """A network with its weights; not yet its inputs."""

    module: torch.nn.Module
    architecture: str
    notes: tuple[str, ...] = ()
    photo: Photo | None = None
    labels: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """What the tensors cannot prove about the network."""
    inputs: tuple[TensorSpec, ...] = ()
    """The inputs, where the checkpoint's settings say them."""
    usual_inputs: tuple[TensorSpec, ...] = ()
    """The inputs that the network usually takes; the user's own shapes come first."""
    codes: Mapping[str, Codes] = field(default_factory=dict)
    """Legal values of inputs of whole numbers, as in `Model`."""
    reader: SampleReader | None = None
    """Reads calibration data, as in `Model`."""
    earlier: EarlierPart | None = None
    """The part that makes this part's inputs, as in `Model`; `photo` is then that part's."""


def literals_of_built_network(arguments: Mapping[str, str]) -> dict[str, Any]:
    """Parse `--arch-arg` values as Python literals; other values stay text.

    >>> literals({"width": "16", "norm": "layer", "bias": "true"})
    {'width': 16, 'norm': 'layer', 'bias': True}
    """
    return {key: _literal_of_built_network(value) for key, value in arguments.items()}


def _literal_of_built_network(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
