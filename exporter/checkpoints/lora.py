"""Merges a LoRA adapter of peft into the weights of its base network: `--base`.

Only tensors and the adapter's settings are read. W becomes W + s B A, s being alpha / rank.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.checkpoints import prefixes
from exporter.checkpoints.checkpoint_source import check_regular_checkpoint_source
from exporter.errors import CheckpointError, DamagedFileError
from exporter.records import Checkpoint

if TYPE_CHECKING:
    import torch

SETTINGS = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
PREFIX = "base_model.model."
"""What peft puts before the names of the base network."""
PAIR = re.compile(r"(?P<layer>.+)\.lora_(?P<embedding>embedding_)?(?P<part>[AB])(\.default)?(\.weight)?")
MAX_SETTINGS_BYTES = 1 << 20
UNKNOWN = ("use_dora", "lora_bias", "trainable_token_indices", "layer_replication")
"""Settings with which an adapter is more than a sum of products."""


@dataclass(frozen=True)
class LoraSettings:
    """How an adapter's products are scaled."""

    rank: int
    alpha: float
    rank_stabilised: bool
    transposed: bool
    """Whether the base network stores weights as [inputs, outputs], as GPT-2 does."""
    alphas: Mapping[str, float]
    """Pattern of a layer's name -> its own alpha."""

    def scale(self, layer: str, rank: int) -> float:
        """Return the factor of a layer's product, whose rank the tensors show."""
        own = (a for pattern, a in self.alphas.items() if re.fullmatch(rf"(.*\.)?({pattern})", layer))
        alpha = next(own, self.alpha)
        return alpha / (math.sqrt(rank) if self.rank_stabilised else rank)


def is_lora_folder(path: Path) -> bool:
    """Tell whether a folder is an adapter as peft saves it."""
    try:
        return path.is_dir() and (path / SETTINGS).is_file()
    except OSError:  # a name that is too long
        return False


def find_lora_weights(path: Path) -> Path:
    """Return the file with an adapter's tensors, where a path is its folder; any other path unchanged.

    Raises:
        CheckpointError: The folder has no such file.
    """
    if not is_lora_folder(path):
        return path
    candidates = [path / name for name in WEIGHTS if (path / name).is_file()]
    if not candidates:
        raise CheckpointError(
            f"{path} has an {SETTINGS}, but neither {' nor '.join(WEIGHTS)}.",
            "Copy the adapter's weights into it.",
        )
    return candidates[0]


def merge_lora(adapter: Checkpoint, base: Checkpoint) -> Checkpoint:
    """Return the base's checkpoint with the adapter's changes.

    Args:
        adapter: The tensors of adapter_model.safetensors; adapter_config.json is beside that file.
        base: The network that the adapter was trained on.

    Raises:
        CheckpointError: The adapter is of another kind, or does not fit the base.
    """
    layers, whole = _lora_parts(adapter.tensors or {})
    if _lora_parts(base.tensors or {})[0]:
        raise CheckpointError(
            f"--base {base.path} is itself a LoRA adapter.",
            "Give the network that the adapters were trained on.",
        )
    beside = adapter.path.parent / SETTINGS
    settings = read_lora_settings(beside) if layers or beside.is_file() else None
    if not layers or settings is None:
        raise CheckpointError(
            f"{adapter.path} holds no LoRA adapter, so --base has no effect.", "Leave it out."
        )
    if base.tensors is None or adapter.tensors is None:
        raise CheckpointError(
            f"--base {base.path} holds a whole network, not its weights.",
            "Give the base network's state_dict or folder.",
        )
    tensors = dict(base.tensors)
    for layer, pair in layers.items():
        name = _lora_name(f"{layer}.weight", tensors, adapter.path)
        tensors[name] = tensors[name] + _lora_product(layer, pair, tensors[name], settings, adapter.path)
    for name, tensor in whole.items():
        tensors[_lora_name(name, tensors, adapter.path, missing=name)] = tensor
    notes = [f"merged a LoRA adapter into {base.path.name}: {len(layers)} layers"]
    if whole:
        notes.append(f"tensors of the adapter replace the base's: {', '.join(sorted(whole)[:4])}")
    return replace(
        base,
        path=adapter.path,
        sha256=adapter.sha256,
        tensors=tensors,
        notes=(*base.notes, *notes, f"the base's sha256 is {base.sha256}"),
        readings=prefixes.prefix_readings(tensors),
    )


def read_lora_settings(path: Path) -> LoraSettings:
    """Read adapter_config.json.

    Raises:
        CheckpointError: It is missing or damaged, or the adapter is more than a sum of products.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no {path}, which scales the adapter.", "Give the adapter's folder.")
    check_regular_checkpoint_source(path)
    with path.open("rb") as file:
        data = file.read(MAX_SETTINGS_BYTES + 1)
    try:
        settings = json.loads(data) if len(data) <= MAX_SETTINGS_BYTES else None
        assert isinstance(settings, dict)
        rank, alpha = int(settings["r"]), float(settings["lora_alpha"])
        alphas = {str(k): float(v) for k, v in (settings.get("alpha_pattern") or {}).items()}
        for pattern in alphas:
            re.compile(pattern)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        AssertionError,
        RecursionError,
        re.error,
    ) as error:
        raise DamagedFileError(f"{path} is no adapter's settings: {error!r}.", "Save it again.") from None
    kind = settings.get("peft_type", "LORA")
    used = [name for name in UNKNOWN if settings.get(name)]
    if kind != "LORA" or used or rank < 1:
        raise CheckpointError(
            f"{path.parent} is an adapter of kind {kind}{f' with {used[0]}' if used else ''}; plain LoRA is "
            "merged here.",
            "Merge it by peft: PeftModel.from_pretrained(base, FOLDER).merge_and_unload().",
        )
    return LoraSettings(
        rank, alpha, bool(settings.get("use_rslora")), bool(settings.get("fan_in_fan_out")), alphas
    )


def _lora_parts(
    tensors: Mapping[str, torch.Tensor],
) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """Return each layer's A and B (of an embedding "embedding_A"), and the tensors that replace others."""
    layers: dict[str, dict[str, torch.Tensor]] = {}
    whole: dict[str, torch.Tensor] = {}
    for stored, tensor in tensors.items():
        name = stored.removeprefix(PREFIX)
        if match := PAIR.fullmatch(name):
            part = f"{match['embedding'] or ''}{match['part']}"
            layers.setdefault(match["layer"].replace(".base_layer", ""), {})[part] = tensor
        else:
            whole[re.sub(r"\.(modules_to_save(\.default)?|base_layer|original_module)(?=\.)", "", name)] = (
                tensor
            )
    return layers, whole


def _lora_name(name: str, tensors: Mapping[str, Any], path: Path, missing: str = "") -> str:
    """Find the base's tensor: by its name, or by the only name of which one is the other's ending.

    Raises:
        CheckpointError: There is none and `missing` is empty, or there are several.
    """
    if name in tensors:
        return name
    ends = [own for own in tensors if own.endswith(f".{name}") or name.endswith(f".{own}")]
    if len(ends) == 1 or (missing and not ends):
        return ends[0] if ends else missing
    raise CheckpointError(
        f"{path.name} changes {name}, and {f'{len(ends)} tensors' if ends else 'no tensor'} of --base fit.",
        "Give the network that the adapter was trained on: adapter_config.json names it.",
    )


def _lora_product(
    layer: str, pair: Mapping[str, torch.Tensor], weight: torch.Tensor, settings: LoraSettings, path: Path
) -> torch.Tensor:
    """Return s B A, shaped as the weight.

    Raises:
        CheckpointError: A part is missing, or the shapes do not fit.
    """
    import torch

    kind = "embedding_" if "embedding_A" in pair else ""
    first, second = pair.get(f"{kind}A"), pair.get(f"{kind}B")
    if first is None or second is None:
        raise DamagedFileError(f"{path.name} holds one half of the change of {layer}.", "Save it again.")
    scale = settings.scale(layer, len(first))
    try:
        if first.dim() == 4:  # a convolution after one of 1x1
            product = torch.einsum("or,rikl->oikl", second.flatten(1).double(), first.double())
        else:
            product = second.double() @ first.double()
            product = product.T if kind or settings.transposed else product
    except RuntimeError:
        product = torch.zeros(0)
    if product.shape != weight.shape:
        shapes = f"{list(second.shape)} by {list(first.shape)}, the base's weight is {list(weight.shape)}"
        raise CheckpointError(
            f"{path.name}: the change of {layer} is {shapes}.",
            "Give the network that the adapter was trained on: adapter_config.json names it.",
        )
    return (scale * product).to(weight.dtype)
