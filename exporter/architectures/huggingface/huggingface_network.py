"""Build the network that a config.json names, through `transformers`, and load the weights into it.

The config chooses a class of `transformers` and the numbers it is made with. Code in the folder (`auto_map`)
runs with `--trust` only; nothing is fetched, whatever the config names.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from exporter.architectures import families, network_index
from exporter.architectures.weight_readings import Weights
from exporter.checkpoints.checkpoint_folder import CONFIG
from exporter.errors import ArchitectureError, CodeInFileError, UsageError
from exporter.records import Checkpoint

if TYPE_CHECKING:
    import torch

PREFIX = "transformers/"
ATTENTION = "eager"
"""The attention that is exported: plain matrix products, in every graph and every format the same."""
EXPERTS = "batched_mm"
"""Looks up the weights of each token's experts, without sizes that depend on the data."""
FETCHING = (
    "fusion_config", "distributed_config", "adapter_kwargs", "trust_remote_code", "use_kernels",
    "kernel_config", "attn_implementation", "experts_implementation", "auto_map",
)  # fmt: skip
"""Settings that say how a network is loaded or run, not what it computes: left out.

transformers asks on the terminal whether it may run the code that a part's `auto_map` names.
"""
OFF: Mapping[str, Any] = {
    "use_cache": False,
    "return_dict": True,
    "output_hidden_states": False,
    "output_attentions": False,
    "use_pretrained_backbone": False,
    "torchscript": False,
}
"""Settings that are set for every network: no cache, outputs by name, and nothing fetched."""


@dataclass(frozen=True, eq=False)
class LoadedNetwork:
    """A network of transformers with its weights."""

    network: Any
    """A `PreTrainedModel`."""
    title: str
    notes: tuple[str, ...]


def huggingface_network_library(subject: str) -> ModuleType:
    """Import transformers so that it never reaches for the network.

    Raises:
        MissingDependencyError: transformers is not installed.
    """
    os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    transformers = families.import_family_package("transformers", subject)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def load_huggingface_network(
    checkpoint: Checkpoint, weights: Weights, wanted: str = "", trust: bool = False
) -> LoadedNetwork:
    """Build the class that the config names, and load the weights as `from_pretrained` does.

    Args:
        checkpoint: The folder's settings.
        weights: The folder's tensors, by their stored names.
        wanted: The class that the user named; empty takes the config's.
        trust: Whether the folder's own code may run.

    Raises:
        ArchitectureError: The config names no class of transformers, or the weights are another network's.
        CodeInFileError: The class is defined in the folder, and it is not trusted.
        MissingDependencyError: transformers is not installed.
    """
    config = checkpoint.settings[CONFIG]
    if config.get("quantization_config"):
        raise ArchitectureError(
            "The weights are quantised (quantization_config in config.json).",
            "Give the float checkpoint from before quantisation: int8 and int4 are made here.",
        )
    transformers = huggingface_network_library(f"{checkpoint.path.name}")
    kind = _huggingface_network_class(transformers, checkpoint, wanted, trust)
    settings = _huggingface_network_settings(kind, config)
    network, info = _fill_huggingface_network_settings(kind, settings, dict(weights.tensors), {})
    missing = sorted(info["missing_keys"])
    notes = [f"the network is {kind.__name__} of transformers {transformers.__version__}, as {CONFIG} says"]
    if wanted:
        notes = [f"the network is {kind.__name__} of transformers {transformers.__version__}, as asked"]
    if missing and all(key.split(".")[0] == "pooler" for key in missing):
        network, info = _fill_huggingface_network_settings(
            kind, settings, dict(weights.tensors), {"add_pooling_layer": False}
        )
        missing = sorted(info["missing_keys"])
        notes.append("built without its pooler, which the weights lack")
    title = f"{PREFIX}{kind.__name__}"
    notes += _check_huggingface_network_weights(
        title, network, weights, missing, sorted(info["unexpected_keys"]), bool(wanted)
    )
    _switch_off_in_huggingface_network(network)
    notes.append(
        f"use_cache=False, return_dict=True, {ATTENTION} attention: outputs are plain tensors by name"
    )
    return LoadedNetwork(network, title, (*weights.notes, *notes))


def _huggingface_network_class(
    transformers: ModuleType, checkpoint: Checkpoint, wanted: str, trust: bool
) -> Any:
    config = checkpoint.settings[CONFIG]
    classes = config.get("architectures")
    first = classes[0] if isinstance(classes, list) and classes else ""
    name = wanted or (first if isinstance(first, str) else "")
    own = config.get("auto_map") if isinstance(config.get("auto_map"), dict) else {}
    if not name:
        return _base_huggingface_network_class(transformers, config)
    if kind := _huggingface_network_of_library(transformers, name):
        return kind
    place = next((text for text in own.values() if isinstance(text, str) and text.endswith(f".{name}")), None)
    if place is None:
        message = (
            f"transformers {transformers.__version__} has no network "
            f"{network_index.printable_network_index_key(name)!r}."
        )
        if wanted:
            raise UsageError(
                message, "Name one of its classes: --arch transformers/BertModel.", code="EM-ARCH"
            )
        raise ArchitectureError(
            message, "Install the version that the folder was saved with, or give --arch."
        )
    if not trust:
        raise CodeInFileError(
            f"{checkpoint.path}: the network "
            f"{network_index.printable_network_index_key(name)} is defined by code in the "
            f"folder ({network_index.printable_network_index_key(place)}), not by transformers.",
            "Pass --trust if you trust whoever made the folder.",
        )
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    return get_class_from_dynamic_module(place, str(checkpoint.path.resolve()), local_files_only=True)


def _huggingface_network_of_library(transformers: ModuleType, name: str) -> Any | None:
    """Return transformers' own network of that name."""
    if not name.isidentifier() or name.startswith("_"):
        return None
    try:
        kind = getattr(transformers, name)
    except (AttributeError, ImportError):
        return None
    is_network = isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
    return kind if is_network and getattr(kind, "config_class", None) is not None else None


def _base_huggingface_network_class(transformers: ModuleType, config: Mapping[str, Any]) -> Any:
    """Return the network without a head of the config's model_type, where no class is named."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    name = MODEL_MAPPING_NAMES.get(str(config.get("model_type")))
    kind = _huggingface_network_of_library(transformers, name) if isinstance(name, str) else None
    if kind is None:
        raise ArchitectureError(
            f"{CONFIG} names no class (architectures), and transformers has none for the model_type "
            f"{network_index.printable_network_index_key(str(config.get('model_type')))!r}.",
            "Name the class: --arch transformers/CLASS.",
        )
    return kind


def _huggingface_network_settings(kind: Any, config: Mapping[str, Any]) -> Any:
    """Make the class's config from the file's settings."""
    plain = _plain_huggingface_network_settings(config)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            settings = kind.config_class.from_dict({**plain, **OFF})
    except Exception as error:
        raise ArchitectureError(
            f"transformers refuses {CONFIG}: {_huggingface_network_words(error)}."
        ) from error
    expected = getattr(kind.config_class, "model_type", "")
    stated = config.get("model_type", expected)
    if stated and expected and stated != expected:
        raise ArchitectureError(
            f"{CONFIG} contradicts itself: {kind.__name__} is of the type {expected!r}, and model_type is "
            f"{network_index.printable_network_index_key(str(stated))!r}.",
            "Name the class that was trained: --arch transformers/CLASS.",
        )
    return settings


def _plain_huggingface_network_settings(value: Any) -> Any:
    """Leave out, in the settings of all parts, what fetches something or names code."""
    if isinstance(value, list):
        return [_plain_huggingface_network_settings(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    own = {key: item for key, item in value.items() if not key.startswith("_") and key not in FETCHING}
    return {key: _plain_huggingface_network_settings(item) for key, item in own.items()}


def _fill_huggingface_network_settings(
    kind: Any, settings: Any, tensors: dict[str, torch.Tensor], arguments: Mapping[str, Any]
) -> tuple[Any, Mapping[str, Any]]:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network, info = kind.from_pretrained(
                None,
                config=settings,
                state_dict=tensors,
                dtype=torch.float32,
                attn_implementation=_huggingface_network_attention(kind),
                **_huggingface_network_experts(kind),
                output_loading_info=True,
                local_files_only=True,
                **arguments,
            )
    except Exception as error:
        raise ArchitectureError(
            f"{kind.__name__} cannot be built from {CONFIG} with these weights: "
            f"{_huggingface_network_words(error)}."
        ) from error
    return network, info


def _huggingface_network_attention(kind: Any) -> str | None:
    """Return the attention to ask for; None for a network that takes no such argument."""
    return (
        ATTENTION
        if getattr(kind, "_supports_sdpa", False) or getattr(kind, "_supports_attention_backend", 0)
        else None
    )


def _huggingface_network_experts(kind: Any) -> Mapping[str, str]:
    """Return how a mixture of experts is computed: the default calls an operator that no format has."""
    has_experts = getattr(kind, "_can_set_experts_implementation", lambda: False)()
    return {"experts_implementation": EXPERTS} if has_experts else {}


def _check_huggingface_network_weights(
    title: str, network: Any, weights: Weights, missing: list[str], extra: list[str], asked: bool
) -> list[str]:
    """Refuse weights that leave a tensor of the network random, or that are not all used.

    Raises:
        ArchitectureError: The weights are another network's.
    """
    if missing or (extra and not asked):
        own = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        comparison = network_index.compare_with_network_index(title, own, weights.shapes)
        lacking = (
            f"{len(missing)} tensors are missing, first "
            f"{network_index.printable_network_index_key(missing[0])}"
            if missing
            else ""
        )
        unused = (
            f"{len(extra)} are not the network's, first {network_index.printable_network_index_key(extra[0])}"
            if extra
            else ""
        )
        raise ArchitectureError(
            f"The weights do not fit {title}, which {CONFIG} names ({comparison.matched} of {len(own)} "
            f"tensors match): {'; '.join(filter(None, (lacking, unused)))}.",
            "Name the class that was trained (--arch transformers/CLASS), or leave some out: --ignore-key.",
        )
    notes = [f"{len(weights.tensors) - len(extra)} tensors of the folder are loaded"]
    if extra:
        notes.append(
            f"{len(extra)} tensors left out, which {title} does not use: "
            f"{network_index.printable_network_index_key(extra[0])}, …"
        )
    return notes


def _switch_off_in_huggingface_network(network: Any) -> None:
    """Set what `OFF` says in the configs of all parts: composite networks have one each."""
    for module in network.modules():
        settings = getattr(module, "config", None)
        for key in ("use_cache", "output_hidden_states", "output_attentions"):
            if hasattr(settings, key):
                setattr(settings, key, False)


def _huggingface_network_words(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return network_index.printable_network_index_key(lines[0]).rstrip(".") if lines else type(error).__name__
