"""A whole module as `torch.save(model, …)` pickles it: its classes must be imported, so its code runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.checkpoints import checkpoint_contents, checkpoint_tensors, choose_weights
from exporter.checkpoints.checkpoint_source import CheckpointSource
from exporter.checkpoints.inert_values import Inert, is_module_inert_value
from exporter.errors import CheckpointError, CodeInFileError
from exporter.records import Checkpoint

if TYPE_CHECKING:
    import torch


def is_pickled_module(source: CheckpointSource) -> bool:
    """Tell whether there are modules in it and no plain weights."""
    return (
        source.pickled is not None
        and not choose_weights.weights_to_choose(source.pickled.root)
        and bool(_pickled_modules(source))
    )


def read_pickled_module(source: CheckpointSource, trust: bool) -> Checkpoint:
    """Unpickle for real, which runs whatever the file asks for.

    Raises:
        CheckpointError: It is not trusted, or its classes are not here.
    """
    modules = _pickled_modules(source)
    key = _choose_pickled_module(modules)
    where = f" under {key!r}" if key else ""
    if not trust:
        raise CodeInFileError(
            f"{source.path} is a whole pickled module "
            f"(an object of {checkpoint_contents.printable_checkpoint_content(modules[key].name)}{where}), "
            "expected its weights: to read it is to run its code.",
            "Save model.state_dict() instead, or pass --trust if you trust whoever made the file.",
        )
    module = _unpickle_module(source, key)
    assert source.pickled is not None
    _, converted = checkpoint_tensors.checkpoint_tensors_as_float32(dict(module.state_dict()))
    return Checkpoint(
        path=source.path,
        sha256=source.sha256,
        kind="pickled_module",
        tensors=None,
        module=module.float().eval(),
        notes=(
            f"trusted: the code of {type(module).__module__}.{type(module).__qualname__} was run",
            *converted,
        )
        + ((f"module taken from {key!r}",) if key else ()),
        contents=checkpoint_contents.describe_checkpoint_contents(source.pickled.root),
    )


def _pickled_modules(source: CheckpointSource) -> dict[str, Inert]:
    root = source.pickled.root if source.pickled is not None else None
    entries = root.items() if isinstance(root, dict) else [("", root)]
    return {
        str(key): value for key, value in entries if isinstance(value, Inert) and is_module_inert_value(value)
    }


def _choose_pickled_module(modules: dict[str, Inert]) -> str:
    """Averaged modules first (Ultralytics keeps one under "ema"), then the most telling key."""
    ranks = {key: index for index, key in enumerate(choose_weights.WEIGHTS)}
    return min(
        modules,
        key=lambda key: (not choose_weights.is_ema_of_chosen_weights(key), ranks.get(key, len(ranks))),
    )


def _unpickle_module(source: CheckpointSource, key: str) -> torch.nn.Module:
    import torch

    source.file.seek(0)
    try:
        loaded = torch.load(source.file, map_location="cpu", weights_only=False)
    except (ImportError, AttributeError) as error:
        raise CheckpointError(
            f"The classes of {source.path} are not installed here: {error}.",
            "Run where the module's own package can be imported, or save model.state_dict() there.",
        ) from error
    module = loaded[key] if key else loaded
    if not isinstance(module, torch.nn.Module):
        raise CheckpointError(f"{source.path} unpickles to a {type(module).__name__}, expected a module.")
    return module
