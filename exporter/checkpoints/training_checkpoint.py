"""A training checkpoint: weights under a key, with optimizer, GradScaler, epoch, … beside them."""

from __future__ import annotations

from exporter.checkpoints import checkpoint_weights, choose_weights
from exporter.checkpoints.checkpoint_source import CheckpointSource
from exporter.records import Checkpoint


def is_training_checkpoint(source: CheckpointSource) -> bool:
    """Tell whether there is a dictionary of tensors below the top."""
    return source.pickled is not None and any(
        c.path for c in choose_weights.weights_to_choose(source.pickled.root)
    )


def read_training_checkpoint(source: CheckpointSource, trust: bool) -> Checkpoint:
    """Read the weights to ship; whatever else is in it stays inert."""
    assert source.pickled is not None
    chosen, notes = choose_weights.choose_weights(source.pickled.root)
    return checkpoint_weights.checkpoint_of_weights(source, source.pickled, "container", chosen, notes)
