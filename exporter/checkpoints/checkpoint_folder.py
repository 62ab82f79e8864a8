"""A folder as `save_pretrained` writes it: JSON settings beside the weights, in one file or several.

Any of its files stands for the folder. The settings say what the network is; nothing in the folder runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.checkpoints import (
    checkpoint_contents,
    prefixes,
    safetensors,
    state_dict,
    training_checkpoint,
    zero_shards,
)
from exporter.checkpoints.checkpoint_source import (
    UNCHANGED,
    check_regular_checkpoint_source,
    open_checkpoint_source,
)
from exporter.checkpoints.packed_archive import DAMAGED
from exporter.errors import CheckpointError, DamagedFileError
from exporter.files import digest_file_or_folder
from exporter.records import Checkpoint

if TYPE_CHECKING:
    import torch

CONFIG = "config.json"
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""The files that may hold the weights or list the files that do, the preferred ones first."""
SETTINGS = (
    CONFIG, "preprocessor_config.json", "processor_config.json", "tokenizer_config.json", "modules.json",
    "sentence_bert_config.json", "1_Pooling/config.json", "adapter_config.json",
)  # fmt: skip
"""The files whose content goes with the checkpoint."""
MEMBER = re.compile(
    r"config\.json|(model|pytorch_model)(-\d{5}-of-\d{5})?\.(safetensors|bin)(\.index\.json)?"
)
"""The names of files that stand for their folder."""
MAX_JSON_BYTES = 64 << 20
MAX_SHARDS = 10_000


def find_checkpoint_folder(path: Path) -> Path:
    """Return the folder that a path stands for; any other path is returned unchanged.

    Args:
        path: A folder with a config.json that names a network, or one of that folder's files; or the folder
            that Hugging Face's cache has for such a network (`models--timm--resnet18.a1_in1k`).
    """
    try:
        path = _snapshot_in_hub_cache(path) or path
        inside = not path.is_dir()
        folder = path.parent if inside else path
        if inside and not (MEMBER.fullmatch(path.name) and path.is_file()):
            return path
        if not checkpoint_folder_names_network(_checkpoint_folder_json(folder / CONFIG)):
            return path
        return folder if folder.name not in ("", "..") else folder.resolve()
    except (OSError, ValueError, CheckpointError):
        return path


def _snapshot_in_hub_cache(folder: Path) -> Path | None:
    """Return the snapshot that a cached network's `refs/main` names, or the only one."""
    if not (folder / "snapshots").is_dir():
        return None
    names = [entry.name for entry in (folder / "snapshots").iterdir() if entry.is_dir()]
    main = folder / "refs" / "main"
    if main.is_file():
        with main.open("rb") as file:
            wanted = file.read(100).decode(errors="replace").strip()
        names = [name for name in names if name == wanted] or names
    return folder / "snapshots" / names[0] if len(names) == 1 else None


def checkpoint_folder_names_network(config: object) -> bool:
    """Tell whether the content of a config.json names a network of transformers or of timm."""
    if not isinstance(config, dict):
        return False
    classes = config.get("architectures")
    return (
        isinstance(config.get("model_type"), str)
        or isinstance(config.get("architecture"), str)
        or (isinstance(classes, list) and bool(classes) and all(isinstance(name, str) for name in classes))
    )


def is_checkpoint_folder(folder: Path) -> bool:
    """Tell whether a path is such a folder."""
    try:
        return folder.is_dir() and (folder / CONFIG).is_file()
    except (OSError, ValueError):
        return False


def read_checkpoint_folder(folder: Path) -> Checkpoint:
    """Read the settings and the weights of all files.

    Raises:
        CheckpointError: There are no weights, a file is missing or damaged, or something changed meanwhile.
    """
    sha256 = digest_file_or_folder(folder)
    settings = {
        name: _checkpoint_folder_json(folder / name) for name in SETTINGS if (folder / name).is_file()
    }
    if not checkpoint_folder_names_network(settings.get(CONFIG)):
        raise CheckpointError(
            f"{folder / CONFIG} names no network: it has neither architectures, model_type nor architecture.",
            "Give the file with the weights, and --arch.",
        )
    tensors, notes = _checkpoint_folder_weights(folder)
    if digest_file_or_folder(folder) != sha256:
        raise CheckpointError(f"{folder} was changed while it was read.", UNCHANGED)
    return Checkpoint(
        path=folder,
        sha256=sha256,
        kind="pretrained",
        tensors=tensors,
        notes=notes,
        contents=tuple(_describe_checkpoint_folder_contents(settings, tensors)),
        readings=prefixes.prefix_readings(tensors),
        stated_networks=tuple(_networks_stated_in_checkpoint_folder(settings[CONFIG])),
        settings=settings,
    )


def _checkpoint_folder_json(path: Path) -> Any:
    check_regular_checkpoint_source(path)
    with path.open("rb") as file:
        data = file.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise DamagedFileError(f"{path} is larger than {MAX_JSON_BYTES} bytes.", DAMAGED)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is not JSON: {str(error)[:100]}.", DAMAGED) from error


def _checkpoint_folder_weights(folder: Path) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    name = next((name for name in WEIGHTS if (folder / name).is_file()), None)
    if name is None and zero_shards.find_zero_folder(folder):
        return zero_shards.zero_weights(folder)
    if name is None:
        raise CheckpointError(
            f"{folder} has a {CONFIG}, but none of {', '.join(WEIGHTS)}.",
            "Save the network with model.save_pretrained(FOLDER), in PyTorch.",
            code="EM-NO-WEIGHTS",
        )
    if not name.endswith(".json"):
        return _checkpoint_folder_file(folder / name)
    listed = _checkpoint_folder_json(folder / name)
    places = listed.get("weight_map") if isinstance(listed, dict) else None
    files = _checkpoint_folder_shards(folder / name, places)
    tensors: dict[str, torch.Tensor] = {}
    notes: list[str] = [f"put together from {len(files)} files, as {name} lists them"]
    for file in files:
        if not (folder / file).is_file():
            raise DamagedFileError(f"There is no {folder / file}, which {name} lists.", "Copy all files.")
        more, said = _checkpoint_folder_file(folder / file)
        if repeated := sorted(tensors.keys() & more.keys()):
            raise DamagedFileError(f"Two files hold the tensor {repeated[0]!r}.", DAMAGED)
        tensors |= more
        notes += [note for note in said if note not in notes]
    missing = sorted(set(listed["weight_map"]) - tensors.keys())
    if missing:
        raise DamagedFileError(f"The tensor {missing[0]!r} is in none of the files.", "Copy all files.")
    return tensors, tuple(notes)


def _checkpoint_folder_shards(index: Path, places: object) -> list[str]:
    """Return the names of the files with the weights, which must be in the index's own folder."""
    names = (
        sorted(set(places.values()))
        if isinstance(places, dict) and _checkpoint_folder_texts(places.values())
        else []
    )
    if not names or len(names) > MAX_SHARDS or not all(Path(name).name == name for name in names):
        raise DamagedFileError(f"{index} does not list the files of the weights.", DAMAGED)
    return names


def _checkpoint_folder_texts(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def _checkpoint_folder_file(path: Path) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    with open_checkpoint_source(path) as source:
        for is_kind, read_kind in (
            (safetensors.is_safetensors, safetensors.read_safetensors),
            (training_checkpoint.is_training_checkpoint, training_checkpoint.read_training_checkpoint),
            (state_dict.is_state_dict, state_dict.read_state_dict),
        ):
            if is_kind(source):
                checkpoint = read_kind(source, False)
                return dict(checkpoint.tensors or {}), checkpoint.notes
        raise CheckpointError(f"{path} {source.nature()}, expected the weights.", "Save the folder again.")


def _describe_checkpoint_folder_contents(
    settings: dict[str, Any], tensors: dict[str, torch.Tensor]
) -> Iterator[tuple[str, str]]:
    for name, content in settings.items():
        for key, value in content.items() if isinstance(content, dict) else ():
            yield (
                f"{name}: {checkpoint_contents.printable_checkpoint_content(str(key))}",
                checkpoint_contents.describe_checkpoint_content(value),
            )
    for key, tensor in tensors.items():
        kind = str(tensor.dtype).removeprefix("torch.")
        yield checkpoint_contents.printable_checkpoint_content(key), f"tensor {kind} {list(tensor.shape)}"


def _networks_stated_in_checkpoint_folder(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    classes = config.get("architectures")
    for key, value in (
        *(("architectures", name) for name in (classes if isinstance(classes, list) else ())),
        ("architecture", config.get("architecture")),
        ("model_type", config.get("model_type")),
    ):
        if isinstance(value, str):
            yield f"{CONFIG}: {key}", value
