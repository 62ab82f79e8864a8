"""Settle what a network takes beside its main input: a text's photo, a photo's text, boxes, points.

transformers makes most of these optional, so that a network runs without them and computes something that
nobody uses. What is left out all the same is said.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.architectures.huggingface.config_inputs import SHORT_TEXT, InputSettings
from exporter.errors import UsageError
from exporter.records import Codes, TensorSpec

Specs = tuple[TensorSpec, ...]

BOXES, POINTS, PHOTO, TEXT = "bbox", "input_points", "pixel_values", "input_ids"
SPECTROGRAM, SPEAKER = "decoder_input_values", "speaker_embeddings"
PATCHES = "spatial_shapes"
"""The input of networks that take photos cut into patches, in any shape (NaFlex): rows and columns."""
PLACEHOLDERS = ("image_token_id", "image_token_index")
"""Settings of networks whose text has a token for each patch of a photo: no random text has as many."""
ROUTINE = frozenset({
    "labels", "inputs_embeds", "decoder_inputs_embeds", "position_ids", "head_mask", "attention_mask",
    "token_type_ids", "pixel_mask", "past_key_values", "cache", "encoder_outputs",
    "encoder_hidden_states", "encoder_attention_mask", "decoder_attention_mask", "decoder_input_ids",
    "bool_masked_pos", "logits_to_keep", "padding_mask", "image_embeds", "image_embeddings",
    "stop_labels", "mask_labels", "class_labels", "mems", "global_attention_mask", "next_sentence_label",
    "start_positions", "end_positions", "noise", "past_observed_mask", "future_values",
    "mask_time_indices", "sampled_negative_indices",
})  # fmt: skip
"""Inputs that a network computes itself, that a mask of ones or a training step stands for."""


@dataclass(frozen=True)
class Companion:
    """An input that goes with another one, where the network takes it and the folder says its sizes."""

    name: str
    main: str
    """The input that it goes with; empty where it goes with any."""
    setting: str
    """The setting without which the network is not one that takes it; empty where none says so."""
    spec: Callable[[Mapping[str, TensorSpec], int], TensorSpec]
    """Makes it of the main inputs, by their names, and the setting's number."""


COMPANIONS = (
    Companion(
        BOXES,
        TEXT,
        "max_2d_position_embeddings",
        lambda main, _: TensorSpec(BOXES, (*main[TEXT].shape, 4), "int64"),
    ),
    Companion(POINTS, PHOTO, "", lambda _, __: TensorSpec(POINTS, (1, 1, 1, 2))),
    Companion(
        SPECTROGRAM, "", "num_mel_bins", lambda _, bins: TensorSpec(SPECTROGRAM, (1, SHORT_TEXT, bins))
    ),
    Companion(SPEAKER, "", "speaker_embedding_dim", lambda _, size: TensorSpec(SPEAKER, (1, size))),
)
"""Photos and texts, which come with masks of their own, are made by who knows the folder's processor."""


def companion_inputs(
    forward: Any, main: Specs, settings: InputSettings, photo: Callable[[], Specs], text: Callable[[], Specs]
) -> Specs:
    """Return the main inputs and those that come with them.

    Args:
        forward: The network's forward.
        main: The inputs that go with its main one.
        settings: What the folder says.
        photo: Makes the inputs of a photo.
        text: Makes the inputs of a text.
    """
    taken = inspect.signature(forward).parameters
    named = {spec.name: spec for spec in main}
    more: list[TensorSpec] = []
    if not any(settings.get(name) is not None for name in PLACEHOLDERS):
        more += photo() if PHOTO in taken and TEXT in named else ()
        more += text() if TEXT in taken and PHOTO in named else ()
    more += [
        companion.spec(named, int(settings.get(companion.setting) or 0))
        for companion in COMPANIONS
        if companion.name in taken
        and (not companion.main or companion.main in named)
        and (not companion.setting or settings.get(companion.setting))
    ]
    return (*main, *(spec for spec in more if spec.name not in named))


def companion_codes(specs: Sequence[TensorSpec], settings: InputSettings) -> Mapping[str, Codes]:
    """Return the legal values of boxes: from 0 to 1,000, or to what the table of places holds."""
    places = min(1001, int(settings.get("max_2d_position_embeddings", 2)))
    return {spec.name: Codes("boxes", places) for spec in specs if spec.name == BOXES}


def note_on_left_out_inputs(forward: Any, specs: Sequence[TensorSpec]) -> tuple[str, ...]:
    """Say which tensors the network may be given and is not."""
    names = {spec.name for spec in specs} | ROUTINE
    left = [
        name
        for name, parameter in inspect.signature(forward).parameters.items()
        if "Tensor" in str(parameter.annotation) and name not in names
    ]
    if not left:
        return ()
    return (
        f"left out, as the network runs without: {', '.join(left)}; to have some, name every input: "
        f"--input-shape {specs[0].name}=… --input-shape {left[0]}=…",
    )


def check_no_patches(forward: Any, other: str = "") -> None:
    """Refuse a network of photos that are cut into patches: one photo's shape does not make its inputs.

    Args:
        forward: What is called with the photos.
        other: The option that exports a part without photos; empty where there is none.

    Raises:
        UsageError: forward takes the rows and columns of the patches.
    """
    if PATCHES not in inspect.signature(forward).parameters:
        return
    raise UsageError(
        f"The network takes photos of any shape, cut into patches (pixel_values, pixel_attention_mask, "
        f"{PATCHES}), whose legal values are not known here.",
        f"{f'Give {other} to export the text tower. ' if other else ''}For photos, take a checkpoint of one "
        "size: siglip2-base-patch16-224 rather than siglip2-base-patch16-naflex.",
        code="EM-INPUT-SHAPE",
    )
