"""A bare `torch.save(model.state_dict(), …)`."""

from __future__ import annotations

from exporter.checkpoints import checkpoint_weights, choose_weights
from exporter.checkpoints.checkpoint_source import CheckpointSource
from exporter.records import Checkpoint


def is_state_dict(source: CheckpointSource) -> bool:
    """Tell whether the tensors are at the top of what `torch.save` was given."""
    return source.pickled is not None and any(
        not c.path for c in choose_weights.weights_to_choose(source.pickled.root)
    )


def read_state_dict(source: CheckpointSource, trust: bool) -> Checkpoint:
    """Read the tensors; nothing needs trust here."""
    assert source.pickled is not None
    chosen, notes = choose_weights.choose_weights(source.pickled.root)
    return checkpoint_weights.checkpoint_of_weights(source, source.pickled, "state_dict", chosen, notes)
