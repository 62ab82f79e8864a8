"""Settle the inputs of a network of `transformers` from its settings: names, shapes, types, legal values."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from exporter.errors import UsageError
from exporter.records import Codes, TensorSpec

if TYPE_CHECKING:
    import torch

LENGTH = 128
"""Tokens of a text where nothing says fewer."""
SECONDS = 1.0
"""Length of a recording where nothing says another."""
SHORT_TEXT = 16
"""Tokens of the text that a decoder has written so far."""
WHOLE_NUMBERS = (
    "input_ids",
    "attention_mask",
    "token_type_ids",
    "decoder_input_ids",
    "decoder_attention_mask",
)
FREE = 10**6
"""A tokenizer's model_max_length beyond this stands for no limit."""
CONFIGS_OF_PHOTO_PARTS = ("backbone_config", "vision_config", "encoder")
"""Where a network keeps the config of the part that takes its photos, as depth and pose networks do."""


@dataclass(frozen=True)
class InputSettings:
    """What the folder's files say about the inputs."""

    config: Any
    """The network's config object, of the part that is exported."""
    processor: Mapping[str, Any]
    """The content of preprocessor_config.json; empty without one."""
    tokenizer: Mapping[str, Any]
    """The content of tokenizer_config.json; empty without one."""
    sentence_length: int | None = None
    """The longest text of a sentence-transformers network."""

    def get(self, name: str, default: Any = None) -> Any:
        """Return a value of the config; networks of text within others have it one level below."""
        for config in (self.config, getattr(self.config, "get_text_config", lambda: None)()):
            value = getattr(config, name, None)
            if value is not None:
                return value
        return default


def config_inputs_or_asked(
    asked: tuple[TensorSpec, ...], forward: Any, default: tuple[TensorSpec, ...]
) -> tuple[TensorSpec, ...]:
    """Return the inputs: the user's where they are named, else the default ones in the user's sizes.

    Args:
        asked: The user's shapes. One without a name is the shape of every default input of its length.
        forward: The network's forward, whose arguments may be named.
        default: The inputs that the settings give.

    Raises:
        UsageError: forward has no argument of that name, or several shapes have no name.
    """
    if not asked:
        return default
    if len(asked) == len(default) and not any(spec.name for spec in asked):
        return tuple(
            _input_typed_by_config(replace(a, name=d.name), d) for a, d in zip(asked, default, strict=True)
        )
    if len(asked) == 1 and not asked[0].name:
        same = {len(spec.shape) for spec in default} == {len(asked[0].shape)}
        if same:
            return tuple(replace(spec, shape=asked[0].shape) for spec in default)
    names = list(inspect.signature(forward).parameters)
    strangers = [spec.name or "(none)" for spec in asked if spec.name not in names]
    if strangers:
        raise UsageError(
            f"--input-shape names {', '.join(strangers)}; the network's inputs are {', '.join(names)}.",
            "Name each input once.",
            code="EM-INPUT-SHAPE",
        )
    known = {spec.name: spec for spec in default}
    return tuple(
        _input_typed_by_config(spec, known.get(spec.name))
        for spec in sorted(asked, key=lambda s: names.index(s.name))
    )


def _input_typed_by_config(spec: TensorSpec, default: TensorSpec | None) -> TensorSpec:
    """Give an input its own type where the user states none; a shape without a type is read as float32."""
    whole = spec.name in WHOLE_NUMBERS or (default is not None and default.dtype == "int64")
    return replace(spec, dtype="int64") if whole and spec.dtype == "float32" else spec


def text_inputs_by_config(
    settings: InputSettings, forward: Any, positions: tuple[int, int] | None
) -> tuple[TensorSpec, ...]:
    """Return the inputs of a text network: tokens, their mask, and segments where it was trained with them.

    Args:
        settings: What the folder says.
        forward: The network's forward, whose arguments tell which inputs it takes.
        positions: (rows, padding row) of the table of positions.
    """
    taken = inspect.signature(forward).parameters
    shape = (1, text_length_by_config(settings, positions))
    names = ["input_ids"]
    if "attention_mask" in taken:
        names.append("attention_mask")
    if "token_type_ids" in taken and int(settings.get("type_vocab_size", 0)) > 1:
        names.append("token_type_ids")
    return tuple(TensorSpec(name, shape, "int64") for name in names)


def text_length_by_config(settings: InputSettings, positions: tuple[int, int] | None) -> int:
    """Return the number of tokens: what the settings allow, up to `LENGTH`."""
    limits = [LENGTH, settings.sentence_length, settings.tokenizer.get("model_max_length")]
    limits.append(settings.get("max_position_embeddings"))
    if positions is not None:
        rows, padding = positions
        limits.append(rows - padding - 1 if padding >= 0 else rows)
    return int(min(limit for limit in limits if isinstance(limit, int | float) and 0 < limit < FREE))


def photo_size_by_config(settings: InputSettings) -> tuple[int, int]:
    """Return (height, width) of the photo.

    Raises:
        UsageError: Neither the processor nor the config says it.
    """
    processor = settings.processor
    places = [
        processor.get("crop_size") if processor.get("do_center_crop", "crop_size" in processor) else None
    ]
    places += [settings.get("image_size"), processor.get("size"), settings.get("input_size")]
    places += [getattr(settings.get(name), "image_size", None) for name in CONFIGS_OF_PHOTO_PARTS]
    for place in places:
        if size := _input_size_by_config(place):
            return size
    raise UsageError(
        "The folder does not say how large the network's photos are.",
        "Give the size: `--input-shape pixel_values=1x3x224x224`.",
        code="EM-INPUT-SHAPE",
    )


def _input_size_by_config(value: Any) -> tuple[int, int] | None:
    if isinstance(value, Mapping):
        sides = (value.get("height"), value.get("width"))
        if sides == (None, None):
            sides = (value.get("shortest_edge"),) * 2
    elif isinstance(value, list | tuple):
        sides = tuple(value[-2:]) if len(value) > 1 else tuple(value) * 2
    else:
        sides = (value, value)
    whole = [side for side in sides if type(side) is int and 0 < side <= 65536]
    return (whole[0], whole[1]) if len(whole) == len(sides) == 2 else None


def sound_inputs_by_config(settings: InputSettings, network: Any, name: str) -> tuple[TensorSpec, ...]:
    """Return the inputs of an audio network: samples of a recording, or its spectrogram."""
    if name == "input_features":
        bins = int(settings.get("num_mel_bins", 80))
        frames = int(settings.get("max_source_positions", 1500)) * 2
        return (TensorSpec(name, (1, bins, frames)),)
    bins, frames = settings.get("num_mel_bins"), settings.get("max_length")
    if bins and frames and not settings.get("conv_dim"):
        return (TensorSpec(name, (1, int(frames), int(bins))),)
    samples = round(SECONDS * int(settings.processor.get("sampling_rate", 16000)))
    channels = settings.get("audio_channels") or _sound_channels_by_docs(network)
    if channels:
        return (TensorSpec(name, (1, int(channels), samples)),)
    specs = [TensorSpec(name, (1, samples))]
    takes_mask = "attention_mask" in inspect.signature(network.forward).parameters
    if settings.processor.get("return_attention_mask") and takes_mask:
        specs.append(TensorSpec("attention_mask", (1, samples), "int64"))
    return tuple(specs)


def _sound_channels_by_docs(network: Any) -> int | None:
    """Return 1 for a codec whose forward is documented to take channels, as DAC's is; else None."""
    words = " ".join((type(network).forward.__doc__ or "").split())
    return (
        1 if re.search(r"input_values \(`torch\.\w+` of shape `\(batch_size, (1|channels), ", words) else None
    )


def input_codes_by_config(specs: Sequence[TensorSpec], settings: InputSettings) -> dict[str, Codes]:
    """Return the legal values of the integer inputs."""
    count = int(settings.get("vocab_size", 2))
    first = next((settings.get(key) for key in ("bos_token_id", "cls_token_id") if settings.get(key)), None)
    last = settings.get("eos_token_id") or settings.get("sep_token_id")
    padding = settings.get("pad_token_id", 0)
    tokens = Codes(
        "tokens",
        count,
        padding if _is_input_code_in_config(padding, count) else 0,
        _input_code_by_config(first, count),
        _input_code_by_config(last, count),
    )
    known = {
        "input_ids": tokens,
        "decoder_input_ids": replace(
            tokens, first=_input_code_by_config(settings.get("decoder_start_token_id"), count), last=None
        ),
        "attention_mask": Codes("mask"),
        "token_type_ids": Codes("segments", max(2, int(settings.get("type_vocab_size", 2)))),
    }
    return {spec.name: known[spec.name] for spec in specs if spec.name in known and spec.dtype != "float32"}


def _is_input_code_in_config(value: Any, count: int) -> bool:
    return type(value) is int and 0 <= value < count


def _input_code_by_config(value: Any, count: int) -> int | None:
    return value if _is_input_code_in_config(value, count) else None


def hidden_input_by_config(shape: Sequence[int], name: str = "encoder_hidden_states") -> TensorSpec:
    """Return the decoder's first input: what the encoder returns."""
    return TensorSpec(name, tuple(shape))


def example_inputs_by_config(specs: Sequence[TensorSpec]) -> tuple[torch.Tensor, ...]:
    """Make tensors of these shapes that every network takes: ones for whole numbers, zeros for others."""
    import torch

    return tuple(
        torch.ones(spec.shape, dtype=torch.int64) if spec.dtype == "int64" else torch.zeros(spec.shape)
        for spec in specs
    )
