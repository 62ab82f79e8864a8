"""A bare `torch.save(model.state_dict(), …)`."""

from __future__ import annotations

from exporter.checkpoints import choose, weights
from exporter.checkpoints.source import Source
from exporter.records import Checkpoint


def matches(source: Source) -> bool:
    """Tell whether the tensors lie at the top of what `torch.save` was given."""
    return source.pickled is not None and any(not c.path for c in choose.candidates(source.pickled.root))


def read(source: Source, trust: bool) -> Checkpoint:
    """Read the tensors; nothing needs trust here."""
    assert source.pickled is not None
    chosen, notes = choose.choose(source.pickled.root)
    return weights.checkpoint(source, source.pickled, "state_dict", chosen, notes)
