"""Taking off what wrappers put before the names of tensors: DDP, torch.compile, FSDP, Lightning."""

from __future__ import annotations

import re
from collections.abc import Collection

from exporter.errors import CheckpointError

PREFIXES = ("module.", "model.")
"""Taken off, again and again, when every name has it: both are also honest names of a submodule."""

WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""No module of one's own is called so: taken out wherever they stand (a compiled submodule)."""


def strip(
    names: Collection[str], prefixes: tuple[str, ...] = PREFIXES
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Find the names that the bare network has.

    Args:
        names: The tensors' names as stored.
        prefixes: What may be taken off the front when all names share it.

    Returns:
        Stored name -> bare name, in the same order; and a note on what was taken off.

    Raises:
        CheckpointError: Two tensors would get one name.
    """
    renamed = {name: WRAPPERS.sub("", name) for name in names}
    removed = sorted({match for name in names for match in WRAPPERS.findall(name)})
    while prefix := _shared(renamed.values(), prefixes):
        renamed = {name: bare[len(prefix) :] for name, bare in renamed.items()}
        removed.append(prefix)
    if len(set(renamed.values())) != len(renamed):
        raise CheckpointError(
            f"Two tensors have one name once {', '.join(map(repr, removed))} is taken off.",
            "Save the bare network: torch.save(model.state_dict(), …).",
        )
    note = (f"{', '.join(map(repr, removed))} taken off the names of the tensors",) if removed else ()
    return renamed, note


def _shared(names: Collection[str], prefixes: tuple[str, ...]) -> str | None:
    for prefix in prefixes:
        if names and all(name.startswith(prefix) and len(name) > len(prefix) for name in names):
            return prefix
    return None
