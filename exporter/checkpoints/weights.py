"""Chosen weights -> Checkpoint: the last step of every kind that holds a dictionary of tensors."""

from __future__ import annotations

from exporter.checkpoints import contents, prefixes, tensors
from exporter.checkpoints.choose import Candidate
from exporter.checkpoints.source import Source
from exporter.checkpoints.torchfile import Pickled
from exporter.records import Checkpoint


def checkpoint(
    source: Source,
    pickled: Pickled,
    kind: str,
    chosen: Candidate,
    notes: tuple[str, ...],
    bare: tuple[str, ...] = prefixes.PREFIXES,
) -> Checkpoint:
    """Strip the names, read the numbers.

    Args:
        source: The opened file.
        pickled: What it holds.
        kind: The checkpoint's kind, as reported.
        chosen: The weights to ship.
        notes: What was decided so far.
        bare: Prefixes that may be taken off when all tensors share them.

    Raises:
        CheckpointError: A tensor cannot be read, or is not finite.
    """
    names, stripped = prefixes.strip(chosen.tensors, bare)
    declared = {names[name]: ref for name, ref in chosen.tensors.items()}
    loaded, converted = tensors.load(declared, pickled, source.size_bytes)
    return Checkpoint(
        path=source.path,
        sha256=source.sha256,
        kind=kind,
        tensors=loaded,
        notes=(*notes, *stripped, *converted),
        contents=contents.describe_all(pickled.root),
    )
