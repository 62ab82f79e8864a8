"""Reads any checkpoint without running anything in it: one module per kind, listed in `KINDS`.

To add one, write a module with the two functions of `Kind` and add a line to the table.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from exporter.checkpoints import (
    checkpoint_folder,
    distributed,
    exported_program,
    foreign_files,
    lightning,
    lora,
    pickled_module,
    safetensors,
    state_dict,
    torchscript_checkpoint,
    training_checkpoint,
    ultralytics_file,
    zero_shards,
)
from exporter.checkpoints.checkpoint_contents import printable_checkpoint_content
from exporter.checkpoints.checkpoint_source import EXPECTED, CheckpointSource, open_checkpoint_source
from exporter.checkpoints.packed_archive import DAMAGED
from exporter.errors import CheckpointError, DamagedFileError
from exporter.records import Checkpoint


def is_folder(path: Path) -> bool:
    """Tell whether a path is a folder that is read as one checkpoint."""
    return (
        distributed.is_distributed(path)
        or checkpoint_folder.is_checkpoint_folder(path)
        or lora.is_lora_folder(path)
        or zero_shards.find_zero_folder(path) is not None
    )


@dataclass(frozen=True)
class Kind:
    """How one kind of file is recognised by its content, and read. torch is imported inside functions."""

    matches: Callable[[CheckpointSource], bool]
    """Tells whether the file is of this kind; called in the table's order."""
    read: Callable[[CheckpointSource, bool], Checkpoint]
    """Reads it; nothing in the file may run unless the second argument, `trust`, is true."""


KINDS: dict[str, Kind] = {
    "exported_program": Kind(exported_program.is_exported_program, exported_program.read_exported_program),
    "torchscript": Kind(
        torchscript_checkpoint.is_torchscript_checkpoint, torchscript_checkpoint.read_torchscript_checkpoint
    ),
    "safetensors": Kind(safetensors.is_safetensors, safetensors.read_safetensors),
    "lightning": Kind(lightning.is_lightning, lightning.read_lightning),
    "ultralytics": Kind(ultralytics_file.is_ultralytics_file, ultralytics_file.read_ultralytics_file),
    "pickled_module": Kind(pickled_module.is_pickled_module, pickled_module.read_pickled_module),
    "container": Kind(
        training_checkpoint.is_training_checkpoint, training_checkpoint.read_training_checkpoint
    ),
    "state_dict": Kind(state_dict.is_state_dict, state_dict.read_state_dict),
}
"""First match wins. The kind is recognised by the content, never from the file's name."""


def read_checkpoint(path: Path, trust: bool = False) -> Checkpoint:
    """Read a checkpoint: its weights, and for self-contained kinds the network too.

    Args:
        path: Any file, or a folder of `torch.distributed.checkpoint`, `save_pretrained` or DeepSpeed.
        trust: Whether code in the file may run: needed for whole pickled modules, and for archives that
            ask for more than a plain model does.

    Returns:
        The tensors to ship (contiguous, on the CPU, floats as float32, all finite) or a module.

    Raises:
        CheckpointError: The file cannot be read, or not safely. Never anything else.
    """
    if distributed.is_distributed(path):
        with _explain_checkpoint_errors(path):
            return distributed.read_distributed(path)
    if checkpoint_folder.is_checkpoint_folder(path):
        with _explain_checkpoint_errors(path):
            return checkpoint_folder.read_checkpoint_folder(path)
    if lora.is_lora_folder(path):
        raise CheckpointError(f"{path} is a LoRA adapter.", foreign_files.LORA_ADVICE)
    if zero_shards.find_zero_folder(path) is not None:
        with _explain_checkpoint_errors(path):
            return zero_shards.read_zero_folder(path)
    if zero_shards.is_zero_shard(path):
        raise CheckpointError(
            f"{path} is one rank's shard of DeepSpeed's weights.", f"Give the folder: {path.parent}."
        )
    if distributed.is_part_of_distributed(path):
        raise CheckpointError(
            f"{path} is one file of a distributed checkpoint.", f"Give the folder: {path.parent}."
        )
    with open_checkpoint_source(path) as source, _explain_checkpoint_errors(path):
        return _read_checkpoint(source, trust)


@contextmanager
def _explain_checkpoint_errors(path: Path) -> Iterator[None]:
    """Make every failure a CheckpointError that names the file."""
    try:
        yield
    except CheckpointError as error:
        raise _checkpoint_error_with_path(error, path) from error
    # Unpicklers, zip readers and torch raise whatever they like on a damaged file.
    except (Exception, pickle.PickleError) as error:
        reason = printable_checkpoint_content(
            str(error).strip().splitlines()[0] if str(error).strip() else ""
        )
        raise DamagedFileError(
            f"{path} is damaged or no checkpoint: {reason or type(error).__name__}. {EXPECTED}", DAMAGED
        ) from error


def _read_checkpoint(source: CheckpointSource, trust: bool) -> Checkpoint:
    for kind in KINDS.values():
        if kind.matches(source):
            return kind.read(source, trust)
    if source.pickled is not None:
        if problem := foreign_files.foreign_file_of_deepspeed(source.pickled.root, ()):
            raise CheckpointError(f"{source.path} is {problem}.", foreign_files.ZERO_ADVICE)
        entries = "; ".join(f"{key}: {description}" for key, description in _top_of_checkpoint(source)[:5])
        raise CheckpointError(
            f"{source.path} holds no weights ({entries or 'it is empty'}).",
            "Save them with torch.save(model.state_dict(), …).",
            code="EM-NO-WEIGHTS",
        )
    raise CheckpointError(
        f"{source.path} {source.nature()}. {EXPECTED}", "Give the trained checkpoint itself."
    )


def _top_of_checkpoint(source: CheckpointSource) -> tuple[tuple[str, str], ...]:
    from exporter.checkpoints.checkpoint_contents import describe_checkpoint_contents

    return describe_checkpoint_contents(source.pickled.root) if source.pickled is not None else ()


def _checkpoint_error_with_path(error: CheckpointError, path: Path) -> CheckpointError:
    """Return the error with the file's name in it."""
    if str(path) in error.message:
        return error
    return type(error)(f"{path}: {error.message}", error.hint, error.code)
