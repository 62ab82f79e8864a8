"""Choose what is exported of a network: all of it, a tower, encoder, decoder, or a step with a cache."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporter.architectures.asked_parts import parts_to_export
from exporter.architectures.huggingface import (
    companion_inputs,
    config_inputs,
    huggingface_network,
    image_processor,
    text_generation,
)
from exporter.architectures.huggingface.config_inputs import InputSettings
from exporter.architectures.huggingface.huggingface_network import PREFIX as PREFIX
from exporter.architectures.huggingface.huggingface_network import LoadedNetwork
from exporter.errors import SeveralPartsError, UsageError
from exporter.records import Checkpoint, TensorSpec

if TYPE_CHECKING:
    import torch

NOT_WRITING = ("Classification", "QuestionAnswering")
"""Ends of names of networks that have a decoder and write no text."""
SOUND = ("input_values", "input_features")


POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}


@dataclass(frozen=True, eq=False)
class HuggingfacePart:
    """What is exported of a network: the module to call, and its inputs."""

    module: torch.nn.Module
    inputs: tuple[TensorSpec, ...]
    settings: InputSettings
    notes: tuple[str, ...] = ()


Maker = Callable[[LoadedNetwork, Checkpoint, tuple[TensorSpec, ...], Mapping[str, Any]], HuggingfacePart]


def choose_network_part(loaded: LoadedNetwork, part: str) -> Maker:
    """Choose what is exported.

    Raises:
        SeveralPartsError: Several parts are named, or none and an app runs them separately.
        UsageError: The network has no such part, an app runs its parts separately and the user named none, or
            one of them takes patches.
    """
    parts, may_be_whole = _network_parts_of_family(loaded.network)
    if part in parts:
        return parts[part]
    if not part and (may_be_whole or not parts):
        return _whole_network_part
    if not parts:
        why = (
            text_generation.why_no_text_parts(loaded.network)
            if set(part.split(",")) & set(text_generation.PARTS)
            else ""
        )
        raise UsageError(
            f"--part {part}: {loaded.title} is one network, without parts{why}.", "Leave --part out."
        )
    exported = parts_to_export(part, parts)
    if exported and "vision" in parts:  # else the first part is exported before the second is refused
        companion_inputs.check_no_patches(loaded.network.get_image_features, "--part text")
    names = " and ".join(parts)
    raise SeveralPartsError(
        f"{loaded.title} has the parts {names}, which an app runs one at a time"
        + ("." if exported else f"; it has no {part}."),
        f"Choose one (--part {next(iter(parts))}), or several (--part {','.join(parts)}).",
        exported,
    )


def _network_parts_of_family(own: Any) -> tuple[dict[str, Maker], bool]:
    """Return the parts of a network by name, and whether it can be exported whole, too."""
    import inspect

    if hasattr(own, "get_text_features") and hasattr(own, "get_image_features"):
        return {"text": _text_tower_network_part, "vision": _vision_tower_network_part}, False
    taken = inspect.signature(own.forward).parameters
    writes = "decoder_input_ids" in taken and not type(own).__name__.endswith(NOT_WRITING)
    if writes and getattr(own.config, "is_encoder_decoder", False):
        return {"encoder": _encoder_network_part, "decoder": _decoder_network_part}, False
    if text_generation.is_text_generation(own):
        makers = {
            name: functools.partial(_network_part_with_cache, part=name) for name in text_generation.PARTS
        }
        return dict(makers), True
    return {}, False


def _network_part_with_cache(
    loaded: LoadedNetwork,
    checkpoint: Checkpoint,
    asked: tuple[TensorSpec, ...],
    arguments: Mapping[str, Any],
    part: str,
) -> HuggingfacePart:
    from exporter.architectures.huggingface.cached_network_check import check_cached_network
    from exporter.architectures.huggingface.key_value_cache import CachedModule

    settings = _network_part_settings(checkpoint, loaded.network.config)
    specs = text_generation.text_generation_inputs(loaded.network, settings, part)
    module = CachedModule(loaded.network)
    check_cached_network(module, specs, f"--part {part}: {loaded.title}")
    tokens, slots = specs[0].shape[1], specs[2].shape[2]
    specs = config_inputs.config_inputs_or_asked(asked, module.forward, specs)
    note = (
        f"{part}: {tokens} token{'s' if tokens > 1 else ''} a call, a cache of {slots}, which the app hands "
        "on from call to call; behind a short prompt any token will do"
    )
    return HuggingfacePart(module, specs, settings, (note,))


def _network_part_settings(checkpoint: Checkpoint, config: Any) -> InputSettings:
    def content(name: str) -> Mapping[str, Any]:
        value = checkpoint.settings.get(name)
        return value if isinstance(value, dict) else {}

    processor = content("preprocessor_config.json") or content("processor_config.json")
    longest = content("sentence_bert_config.json").get("max_seq_length")
    return InputSettings(
        config, processor, content("tokenizer_config.json"), longest if isinstance(longest, int) else None
    )


def _default_network_part_inputs(
    module: Any, settings: InputSettings, checkpoint: Checkpoint, name: str
) -> tuple[TensorSpec, ...]:
    """Return the inputs of a network by the name of its main one."""
    from exporter.architectures.huggingface.wrapper_modules import position_table_of_wrapper_module

    if name == "pixel_values":
        companion_inputs.check_no_patches(module.forward)
        return _photo_network_part_inputs(settings, checkpoint)
    if name in SOUND:
        return config_inputs.sound_inputs_by_config(settings, module, name)
    if name == "input_ids":
        return config_inputs.text_inputs_by_config(
            settings, module.forward, position_table_of_wrapper_module(module)
        )
    raise UsageError(
        f"The network's main input is {name}, whose shape nothing says.",
        f"Give it: `--input-shape {name}=1x16x64`.",
        code="EM-INPUT-SHAPE",
    )


def _photo_network_part_inputs(settings: InputSettings, checkpoint: Checkpoint) -> tuple[TensorSpec, ...]:
    processor = image_processor.load_image_processor(
        huggingface_network.huggingface_network_library(checkpoint.path.name), checkpoint.path
    )
    size = image_processor.size_by_image_processor(processor) if processor is not None else None
    height, width = size or config_inputs.photo_size_by_config(settings)
    frames = settings.get("num_frames")
    film = (int(frames),) if isinstance(frames, int) else ()
    return (TensorSpec("pixel_values", (1, *film, int(settings.get("num_channels", 3)), height, width)),)


def _whole_network_part(
    loaded: LoadedNetwork, checkpoint: Checkpoint, asked: tuple[TensorSpec, ...], arguments: Mapping[str, Any]
) -> HuggingfacePart:
    from exporter.architectures.huggingface.wrapper_modules import ModuleByName

    own = loaded.network
    settings = _network_part_settings(checkpoint, own.config)
    name = str(getattr(own, "main_input_name", "input_ids"))
    named = bool(asked) and all(spec.name for spec in asked)
    default = (
        ()
        if named and name not in {spec.name for spec in asked}
        else _default_network_part(own, settings, checkpoint, name, asked)
    )
    specs = config_inputs.config_inputs_or_asked(asked, own.forward, default)
    module = ModuleByName(
        own, tuple(spec.name for spec in specs), {**_network_part_call_settings(own.forward), **arguments}
    )
    notes = companion_inputs.note_on_left_out_inputs(own.forward, specs)
    return _network_part_with_pooling(module, checkpoint, HuggingfacePart(module, specs, settings, notes))


def _default_network_part(
    own: Any, settings: InputSettings, checkpoint: Checkpoint, name: str, asked: tuple[TensorSpec, ...]
) -> tuple[TensorSpec, ...]:
    try:
        return companion_inputs.companion_inputs(
            own.forward,
            _default_network_part_inputs(own, settings, checkpoint, name),
            settings,
            lambda: _default_network_part_inputs(own, settings, checkpoint, "pixel_values"),
            lambda: _default_network_part_inputs(own, settings, checkpoint, "input_ids"),
        )
    except UsageError:
        if not asked:
            raise
        return tuple(TensorSpec(spec.name or name, spec.shape, spec.dtype) for spec in asked)


def _network_part_call_settings(forward: Any) -> dict[str, Any]:
    """Return the settings of every call that forward takes by name."""
    import inspect

    taken = inspect.signature(forward).parameters
    return {key: value for key, value in (("use_cache", False), ("return_dict", True)) if key in taken}


def _network_part_with_pooling(module: Any, checkpoint: Checkpoint, part: HuggingfacePart) -> HuggingfacePart:
    """Add the pooling of a sentence-transformers folder, as its modules.json lists it."""
    from exporter.architectures.huggingface.wrapper_modules import SentenceModule

    listed = checkpoint.settings.get("modules.json")
    if not isinstance(listed, list):
        return part
    kinds = [str(item.get("type", "")).rpartition(".")[2] for item in listed if isinstance(item, dict)]
    pooling = _pooling_of_network_part(checkpoint.settings.get("1_Pooling/config.json"))
    plain = kinds[:2] == ["Transformer", "Pooling"] and set(kinds[2:]) <= {"Normalize"}
    if not plain or pooling is None or "attention_mask" not in module.input_names:
        note = (
            f"modules.json lists {', '.join(kinds)}: only the first is exported, and the app does the others"
        )
        return HuggingfacePart(module, part.inputs, part.settings, (*part.notes, note))
    normalize = "Normalize" in kinds
    note = f"the output is the sentence's embedding: {pooling} pooling" + (", length 1" if normalize else "")
    sentence = SentenceModule(module, pooling, normalize)
    return HuggingfacePart(sentence, part.inputs, part.settings, (*part.notes, note))


def _pooling_of_network_part(config: object) -> str | None:
    """Return the one way of pooling; None where there are several or another one."""
    if not isinstance(config, dict):
        return None
    if isinstance(config.get("pooling_mode"), str):
        return config["pooling_mode"] if config["pooling_mode"] in POOLINGS.values() else None
    chosen = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    return POOLINGS.get(chosen[0]) if len(chosen) == 1 else None


def _text_tower_network_part(
    loaded: LoadedNetwork, checkpoint: Checkpoint, asked: tuple[TensorSpec, ...], arguments: Mapping[str, Any]
) -> HuggingfacePart:
    from exporter.architectures.huggingface.wrapper_modules import (
        ProjectedModule,
        position_table_of_wrapper_module,
    )

    own = loaded.network
    settings = _network_part_settings(checkpoint, own.config.get_text_config())
    default = config_inputs.text_inputs_by_config(
        settings, own.get_text_features, position_table_of_wrapper_module(own.text_model)
    )
    specs = config_inputs.config_inputs_or_asked(asked, own.get_text_features, default)
    module = ProjectedModule(own, tuple(s.name for s in specs), arguments, "get_text_features", "text_embeds")
    return HuggingfacePart(module, specs, settings, ("the text tower is exported, with its projection",))


def _vision_tower_network_part(
    loaded: LoadedNetwork, checkpoint: Checkpoint, asked: tuple[TensorSpec, ...], arguments: Mapping[str, Any]
) -> HuggingfacePart:
    from exporter.architectures.huggingface.wrapper_modules import ProjectedModule

    own = loaded.network
    companion_inputs.check_no_patches(own.get_image_features, "--part text")
    settings = _network_part_settings(checkpoint, own.config.vision_config)
    specs = config_inputs.config_inputs_or_asked(
        asked, own.get_image_features, _photo_network_part_inputs(settings, checkpoint)
    )
    module = ProjectedModule(
        own, tuple(s.name for s in specs), arguments, "get_image_features", "image_embeds"
    )
    return HuggingfacePart(module, specs, settings, ("the image tower is exported, with its projection",))


def _encoder_network_part(
    loaded: LoadedNetwork, checkpoint: Checkpoint, asked: tuple[TensorSpec, ...], arguments: Mapping[str, Any]
) -> HuggingfacePart:
    from exporter.architectures.huggingface.wrapper_modules import ModuleByName

    own = loaded.network.get_encoder()
    settings = _network_part_settings(checkpoint, loaded.network.config)
    default = _default_network_part_inputs(own, settings, checkpoint, str(loaded.network.main_input_name))
    specs = config_inputs.config_inputs_or_asked(asked, own.forward, default)
    names = tuple(spec.name for spec in specs)
    module = ModuleByName(own, names, {**_network_part_call_settings(own.forward), **arguments})
    return HuggingfacePart(module, specs, settings, ("the encoder is exported",))


def _decoder_network_part(
    loaded: LoadedNetwork, checkpoint: Checkpoint, asked: tuple[TensorSpec, ...], arguments: Mapping[str, Any]
) -> HuggingfacePart:
    from exporter.architectures.huggingface.wrapper_modules import DecoderModule

    encoder = _encoder_network_part(loaded, checkpoint, (), {})
    encoded = _outputs_of_encoder_network_part(encoder)
    states = tuple(encoded.last_hidden_state.shape)
    specs = [config_inputs.hidden_input_by_config(states)]
    if any(spec.name == "attention_mask" for spec in encoder.inputs):
        specs.append(TensorSpec("attention_mask", tuple(states[:2]), "int64"))
    length = min(
        config_inputs.SHORT_TEXT, int(encoder.settings.get("max_target_positions", config_inputs.SHORT_TEXT))
    )
    specs.append(TensorSpec("decoder_input_ids", (1, length), "int64"))
    if asked:
        by_name = {spec.name: spec for spec in asked}
        if not set(by_name) <= {spec.name for spec in specs}:
            raise UsageError(
                f"The decoder's inputs are {', '.join(spec.name for spec in specs)}.", code="EM-INPUT-SHAPE"
            )
        specs = [TensorSpec(s.name, by_name.get(s.name, s).shape, s.dtype) for s in specs]
    names = tuple(spec.name for spec in specs)
    own = loaded.network
    call_settings = {**_network_part_call_settings(own.forward), **arguments}
    module = DecoderModule(own, names, call_settings, type(encoded))
    note = f"the decoder is exported: {specs[-1].shape[1]} tokens at once, without a cache"
    return HuggingfacePart(module, tuple(specs), encoder.settings, (note,))


def _outputs_of_encoder_network_part(encoder: HuggingfacePart) -> Any:
    """Return the encoder's own record of outputs for example inputs."""
    import torch

    module: Any = encoder.module.eval()
    with torch.no_grad():
        return module.call(*config_inputs.example_inputs_by_config(encoder.inputs))
