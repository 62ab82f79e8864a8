"""A folder of DeepSpeed: float32 weights, put together from the optimiser shards of all ranks (ZeRO 1 to 3).

Each `*_optim_states.pt` holds its rank's part of the weights as flat rows; a `*_model_states.pt` says how the
parameters lie in them, and holds the buffers. The restricted unpickler reads all: nothing in them runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.checkpoints import checkpoint_contents, checkpoint_tensors, prefixes
from exporter.checkpoints.checkpoint_source import UNCHANGED, open_checkpoint_source
from exporter.checkpoints.inert_values import TensorRef
from exporter.checkpoints.packed_archive import DAMAGED
from exporter.checkpoints.torchfile import PickledTorchfile
from exporter.errors import CheckpointError, DamagedFileError
from exporter.files import digest_file_or_folder
from exporter.records import Checkpoint

if TYPE_CHECKING:
    import torch

OPTIMISER = re.compile(r"(?:[a-z0-9]+_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt")
MODEL = re.compile(r"(?:zero_pp_rank_(\d+)_)?mp_rank_\d+(?:_\d+)?_model_states\.pt")
LATEST = "latest"
"""The file with the name of the newest step's folder."""
COPY_ALL = "Copy the files of all ranks into the folder."
MAX_RANKS = 100_000
Tensors = dict[str, "torch.Tensor"]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class ZeroRank:
    """One rank's rows of float32 weights: one per parameter group."""

    stage: int
    count: int
    """The number of ranks that hold a part."""
    rows: tuple[torch.Tensor, ...]


def find_zero_folder(path: Path) -> Path | None:
    """Return the folder with the shards: the given one, or the step that its file `latest` names."""
    try:
        if not path.is_dir():
            return None
        if any(OPTIMISER.fullmatch(item.name) for item in path.iterdir()):
            return path
        named = (path / LATEST).read_text(encoding="utf-8", errors="replace")[:256].strip()
        step = path / named
        same = named and Path(named).name == named and step.is_dir()
        return step if same and any(OPTIMISER.fullmatch(item.name) for item in step.iterdir()) else None
    except (OSError, ValueError):
        return None


def is_zero_shard(path: Path) -> bool:
    """Tell whether a file holds one rank's part of a folder of DeepSpeed."""
    name = path.name
    is_part = OPTIMISER.fullmatch(name) or ((model := MODEL.fullmatch(name)) and model[1])
    return bool(is_part) and find_zero_folder(path.parent) == path.parent


def read_zero_folder(folder: Path) -> Checkpoint:
    """Read the float32 weights of all ranks.

    Args:
        folder: One that `find_zero_folder` takes.

    Raises:
        CheckpointError: A rank is missing, a file is damaged, or the network itself is split over ranks.
    """
    sha256 = digest_file_or_folder(folder)
    loaded, notes = zero_weights(folder)
    if digest_file_or_folder(folder) != sha256:
        raise CheckpointError(f"{folder} was changed while it was read.", UNCHANGED)
    described = ((name, f"tensor float32 {list(tensor.shape)}") for name, tensor in loaded.items())
    return Checkpoint(
        path=folder,
        sha256=sha256,
        kind="deepspeed",
        tensors=loaded,
        notes=notes,
        contents=tuple(
            (checkpoint_contents.printable_checkpoint_content(name), text) for name, text in described
        ),
        readings=prefixes.prefix_readings(loaded),
    )


def zero_weights(folder: Path) -> tuple[Tensors, tuple[str, ...]]:
    """Return the weights of a folder, all float32, and notes on where they are from."""
    step = find_zero_folder(folder)
    assert step is not None
    paths = _zero_rank_files(step)
    with ExitStack() as stack:
        ranks = [
            _zero_rank(stack.enter_context(open_checkpoint_source(path)).pickled, path) for path in paths
        ]
        if len(ranks) < max(rank.count for rank in ranks):
            raise DamagedFileError(f"{step} has no shard of rank {len(ranks)}.", COPY_ALL)
        stages = {rank.stage for rank in ranks}
        if len(stages) != 1:
            raise DamagedFileError(f"The shards in {step} are of different stages of ZeRO.", DAMAGED)
        (stage,) = stages
        models = [
            (path, stack.enter_context(open_checkpoint_source(path)).pickled)
            for path in _zero_model_files(step, stage, len(ranks))
        ]
        weights = _zero_parameters(ranks, stage, models[0])
        weights |= _zero_frozen(models, stage)
        weights |= _zero_buffers(weights, models[0])
    size_bytes = sum(path.stat().st_size for path in (*paths, *(path for path, _ in models)))
    checkpoint_tensors.check_total_of_checkpoint_tensors(
        sum(tensor.nbytes for tensor in weights.values()), size_bytes
    )
    converted, said = checkpoint_tensors.checkpoint_tensors_as_float32(weights)
    ranks_text = "1 rank" if len(ranks) == 1 else f"{len(ranks)} ranks"
    return converted, (
        f"put together from the float32 shards of {ranks_text} of DeepSpeed (ZeRO {stage})",
        *said,
    )


def _zero_rank_files(step: Path) -> list[Path]:
    """Return the files of all ranks in their order."""
    ranks: dict[int, Path] = {}
    for path in step.iterdir():
        if match := OPTIMISER.fullmatch(path.name):
            if int(match[2]):
                raise CheckpointError(
                    f"{step} holds a network that is itself split over ranks (model parallel).",
                    "Make a universal checkpoint of it where it was trained: "
                    "`python -m deepspeed.checkpoint.ds_to_universal`.",
                )
            ranks[int(match[1])] = path
    if sorted(ranks) != list(range(len(ranks))) or len(ranks) > MAX_RANKS:
        missing = next(number for number in range(len(ranks) + 1) if number not in ranks)
        raise DamagedFileError(f"{step} has no shard of rank {missing}.", COPY_ALL)
    return [ranks[number] for number in sorted(ranks)]


def _zero_model_files(step: Path, stage: int, count: int) -> list[Path]:
    """Return the files that describe the network; in stage 3 one of each rank."""
    names = (
        [f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt" for rank in range(count)]
        if stage == 3
        else ["mp_rank_00_model_states.pt"]
    )
    for name in names:
        if not (step / name).is_file():
            raise DamagedFileError(f"There is no {step / name}, which describes the network.", COPY_ALL)
    return [step / name for name in names]


def _zero_root(pickled: PickledTorchfile | None, path: Path) -> dict[Any, Any]:
    if pickled is None or not isinstance(pickled.root, dict):
        raise DamagedFileError(f"{path} is no file of DeepSpeed's.", DAMAGED)
    return pickled.root


def _zero_rank(pickled: PickledTorchfile | None, path: Path) -> ZeroRank:
    state = _zero_root(pickled, path).get("optimizer_state_dict")
    assert pickled is not None
    stage = state.get("zero_stage") if isinstance(state, dict) else None
    if not isinstance(state, dict) or stage not in (1, 2, 3):
        raise DamagedFileError(f"{path} holds no shard of ZeRO's stages 1 to 3.", DAMAGED)
    rows = state.get("fp32_flat_groups" if stage == 3 else "single_partition_of_fp32_groups")
    rows = list(rows) if isinstance(rows, list | tuple) else [rows]
    if not all(isinstance(row, TensorRef) and row.dtype == "float32" and len(row.shape) == 1 for row in rows):
        raise DamagedFileError(f"{path} holds no flat float32 weights.", DAMAGED)
    counts = state.get("partition_count")
    counts = counts if isinstance(counts, list) and counts else [counts]
    if not all(type(count) is int for count in counts):
        raise DamagedFileError(f"{path} does not say how many ranks there are.", DAMAGED)
    return ZeroRank(
        int(stage),
        max(counts),
        tuple(checkpoint_tensors.raw_checkpoint_tensor(path.name, row, pickled) for row in rows),
    )


def _zero_shapes(value: object, path: Path) -> Shapes:
    """Return name -> shape, in the order in which the parameters lie in a row."""
    named = value if isinstance(value, dict) else {}
    for name, shape in named.items():
        sizes = isinstance(shape, tuple | list) and all(
            type(size) is int and 0 <= size < 2**40 for size in shape
        )
        if not isinstance(name, str) or not sizes:
            raise DamagedFileError(f"{path} does not say how the parameters lie in the shards.", DAMAGED)
    return {name: tuple(shape) for name, shape in named.items()}


def _zero_parameters(
    ranks: Sequence[ZeroRank], stage: int, model: tuple[Path, PickledTorchfile | None]
) -> Tensors:
    import torch

    path, pickled = model
    listed = _zero_root(pickled, path).get("param_shapes")
    groups = [_zero_shapes(group, path) for group in (listed if isinstance(listed, list) else [listed])]
    if stage == 3:  # a group may be cut into several rows there
        merged = {name: shape for shapes in groups for name, shape in shapes.items()}
        return dict(_zero_slices([torch.cat(list(rank.rows)) for rank in ranks], merged))
    if {len(rank.rows) for rank in ranks} != {len(groups)}:
        raise DamagedFileError(
            f"{path} describes {len(groups)} groups of parameters, the shards others.", DAMAGED
        )
    weights: Tensors = {}
    for number, shapes in enumerate(groups):
        weights |= dict(_joined_slices([rank.rows[number] for rank in ranks], shapes))
    return weights


def _joined_slices(rows: Sequence[torch.Tensor], shapes: Shapes) -> Iterator[tuple[str, torch.Tensor]]:
    """Cut a group that lies in one row over all ranks, with padding only at its end (stages 1 and 2)."""
    import torch

    row = torch.cat(list(rows))
    start = 0
    for name, shape in shapes.items():
        yield name, _whole_slice(name, row[start : start + prod(shape)], shape)
        start += prod(shape)
    _refuse_long_zero_padding(len(row) - start, 2 * len(rows))


def _zero_slices(rows: Sequence[torch.Tensor], shapes: Shapes) -> Iterator[tuple[str, torch.Tensor]]:
    """Cut a group of which every rank has a part of every parameter, the last one padded (stage 3)."""
    import torch

    start = 0
    for name, shape in shapes.items():
        length = -(-prod(shape) // len(rows))
        parts = torch.cat([row[start : start + length] for row in rows])
        yield name, _whole_slice(name, parts[: prod(shape)], shape)
        start += length
    _refuse_long_zero_padding(max(map(len, rows)) - start, 2 * len(rows))


def _whole_slice(name: str, values: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    if len(values) != prod(shape):
        raise DamagedFileError(
            f"The shards hold {len(values)} of the {prod(shape)} values of {name!r}.", COPY_ALL
        )
    return values.reshape(shape).clone()


def _refuse_long_zero_padding(rest: int, most: int) -> None:
    """Refuse shards that hold more than the described parameters: their order would be a guess."""
    if rest > most:
        raise DamagedFileError(f"The shards hold {rest} values that no parameter explains.", DAMAGED)


def _zero_frozen(models: Sequence[tuple[Path, PickledTorchfile | None]], stage: int) -> Tensors:
    """Return parameters that were not trained, which no optimiser has."""
    import torch

    path, pickled = models[0]
    shapes = _zero_shapes(_zero_root(pickled, path).get("frozen_param_shapes"), path)
    weights: Tensors = {}
    for name, shape in shapes.items():
        parts = []
        for place, held in models if stage == 3 else models[:1]:
            fragments = _zero_root(held, place).get("frozen_param_fragments")
            ref = fragments.get(name) if isinstance(fragments, dict) else None
            if held is None or not isinstance(ref, TensorRef):
                raise DamagedFileError(f"{place} has no part of the frozen {name!r}.", COPY_ALL)
            parts.append(checkpoint_tensors.raw_checkpoint_tensor(name, ref, held).flatten())
        weights[name] = _whole_slice(name, torch.cat(parts)[: prod(shape)], shape)
    return weights


def _zero_buffers(weights: Tensors, model: tuple[Path, PickledTorchfile | None]) -> Tensors:
    """Return the buffers, and the other names of shared parameters."""
    path, pickled = model
    root = _zero_root(pickled, path)
    module = root.get("module")
    module = module if isinstance(module, dict) else {}
    names = root.get("buffer_names")
    more: Tensors = {}
    for name in names if isinstance(names, list | tuple | set) else ():
        ref = module.get(name)
        if isinstance(ref, TensorRef) and pickled is not None:
            more[str(name)] = checkpoint_tensors.raw_checkpoint_tensor(str(name), ref, pickled)
    for name, other in (*_shared_by_storage(module), *_shared_by_list(root.get("shared_params"))):
        if name not in weights and name not in more and other in weights:
            more[name] = weights[other]
    return more


def _shared_by_storage(module: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    """Pair names of the model's own file whose tensors are the same values in it."""
    first: dict[object, str] = {}
    for name, ref in module.items():
        if isinstance(ref, TensorRef) and 0 not in ref.shape:
            yield str(name), first.setdefault((ref.storage.key, ref.offset, ref.shape), str(name))
            yield first[(ref.storage.key, ref.offset, ref.shape)], str(name)


def _shared_by_list(listed: object) -> Iterator[tuple[str, str]]:
    pairs = list(listed.items()) if isinstance(listed, dict) else listed
    for pair in pairs if isinstance(pairs, list | tuple) else ():
        if isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(name, str) for name in pair):
            yield pair[0], pair[1]
