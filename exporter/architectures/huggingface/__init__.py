"""Networks of `transformers`, from the folder that `save_pretrained` writes.

The folder's config.json says which class is built and with which numbers, so nothing is guessed from tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from exporter.architectures.built_network import Built, Photo
from exporter.architectures.huggingface import (
    companion_inputs,
    config_inputs,
    huggingface_network,
    image_processor,
    settings_doubts,
    text_and_sound_samples,
    text_generation,
)
from exporter.architectures.huggingface.huggingface_network import PREFIX as PREFIX
from exporter.architectures.huggingface.huggingface_network import LoadedNetwork
from exporter.architectures.huggingface.network_parts import HuggingfacePart, choose_network_part
from exporter.architectures.weight_readings import Weights, weight_readings
from exporter.checkpoints.checkpoint_folder import CONFIG
from exporter.errors import UsageError
from exporter.records import Checkpoint, TensorSpec


def is_built_by_huggingface(checkpoint: Checkpoint, arch: str | None) -> bool:
    """Tell whether the network is built here: from such a folder, unless another network is named.

    Raises:
        UsageError: A class of transformers is named, and there are no settings to build it with.
    """
    named = arch is not None and arch.startswith(PREFIX)
    config = checkpoint.settings.get(CONFIG)
    is_folder = isinstance(config, dict) and not isinstance(config.get("architecture"), str)
    if named and not is_folder:
        raise UsageError(
            f"--arch {arch} needs the network's settings: {checkpoint.path.name} has no config.json.",
            "Give the folder that model.save_pretrained wrote.",
        )
    return is_folder and (arch is None or named)


def build_huggingface(
    checkpoint: Checkpoint,
    weights: Weights,
    *,
    wanted: str = "",
    part: str = "",
    asked: tuple[TensorSpec, ...] = (),
    arguments: Mapping[str, Any] = MappingProxyType({}),
    trust: bool = False,
) -> Built:
    """Build the network, or one part of it, with its weights, inputs and preprocessing.

    Args:
        checkpoint: The folder.
        weights: The folder's tensors, by their stored names.
        wanted: The class that the user named; empty takes the config's.
        part: "encoder", "decoder", "text", "vision", "prefill" or "decode"; empty is the whole network.
        asked: The user's shapes of the inputs.
        arguments: Values of further arguments of forward.
        trust: Whether the folder's own code may run.

    Raises:
        ArchitectureError: The weights are not those of the network that the config names.
        UsageError: The network has no such part, or it has several and the user named none.
    """
    loaded = huggingface_network.load_huggingface_network(checkpoint, weights, wanted, trust)
    make = choose_network_part(loaded, part)
    made = make(loaded, checkpoint, asked, arguments)
    photo, notes = _huggingface_photo(loaded, checkpoint, made)
    codes = config_inputs.input_codes_by_config(
        made.inputs, made.settings
    ) | text_generation.text_generation_codes(made.inputs)
    codes |= companion_inputs.companion_codes(made.inputs, made.settings)
    return Built(
        module=made.module.eval(),
        architecture=loaded.title + (f":{part}" if part else ""),
        notes=(*loaded.notes, *made.notes, *notes),
        photo=photo,
        labels=_huggingface_labels(loaded) if photo or not part else (),
        warnings=(settings_doubts.huggingface_settings_doubt(loaded.network, checkpoint.settings[CONFIG]),),
        inputs=made.inputs,
        codes=codes,
        reader=text_and_sound_samples.SampleReader(checkpoint.path, codes, trust),
    )


def whole_network_of_huggingface(
    checkpoint: Checkpoint, arch: str, ignore_keys: tuple[str, ...], trust: bool
) -> Any:
    """Return the network of a folder as transformers has it, to compare its parts with."""
    weights = weight_readings(checkpoint, ignore_keys)[0]
    loaded = huggingface_network.load_huggingface_network(
        checkpoint, weights, arch.removeprefix(huggingface_network.PREFIX), trust
    )
    return loaded.network.eval()


def _huggingface_photo(
    loaded: LoadedNetwork, checkpoint: Checkpoint, part: HuggingfacePart
) -> tuple[Photo | None, tuple[str, ...]]:
    """Return the photo that the part takes, where its only input is one."""
    if len(part.inputs) != 1 or part.inputs[0].name != "pixel_values" or len(part.inputs[0].shape) != 4:
        return None, ()
    _, channels, height, width = part.inputs[0].shape
    processor = image_processor.load_image_processor(
        huggingface_network.huggingface_network_library(checkpoint.path.name), checkpoint.path
    )
    record, note = image_processor.preprocessing_of_image_processor(processor, (height, width), channels)
    return (None, (note,)) if record is None else (Photo(record, channels, note), ())


def _huggingface_labels(loaded: LoadedNetwork) -> tuple[str, ...]:
    """Return the names of the classes; none where the config only numbers them."""
    names = getattr(loaded.network.config, "id2label", None) or {}
    if (
        not type(loaded.network).__name__.endswith("Classification")
        or "Token" in type(loaded.network).__name__
    ):
        return ()
    texts = (
        tuple(str(names[index]) for index in sorted(names)) if all(isinstance(i, int) for i in names) else ()
    )
    return () if all(text == f"LABEL_{i}" for i, text in enumerate(texts)) else texts
