"""A training checkpoint: weights under a key, with optimizer, GradScaler, epoch, … beside them."""

from __future__ import annotations

from exporter.checkpoints import choose, weights
from exporter.checkpoints.source import Source
from exporter.records import Checkpoint


def matches(source: Source) -> bool:
    """Tell whether there is a dictionary of tensors below the top."""
    return source.pickled is not None and any(c.path for c in choose.candidates(source.pickled.root))


def read(source: Source, trust: bool) -> Checkpoint:
    """Read the weights to ship; whatever else is in it stays inert."""
    assert source.pickled is not None
    chosen, notes = choose.choose(source.pickled.root)
    return weights.checkpoint(source, source.pickled, "container", chosen, notes)
