"""Settle how photos become a network's input, where that is known or given by the user."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from exporter.architectures.built_network import Photo
from exporter.errors import UsageError
from exporter.records import Preprocessing, TensorSpec

IMAGENET = Preprocessing()
PRESETS: Mapping[str, tuple[float, tuple[float, ...], tuple[float, ...]]] = MappingProxyType(
    {
        "imagenet": (1.0, IMAGENET.mean, IMAGENET.std),
        "unit": (1.0, (0.0,), (1.0,)),
        "symmetric": (1.0, (0.5,), (0.5,)),
        "bytes": (255.0, (0.0,), (1.0,)),
    }
)
"""`--preprocess` -> value of white before normalisation, mean, std; one value applies to every channel."""


@dataclass(frozen=True)
class PreprocessingWishes:
    """The user's options about preprocessing."""

    preset: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    whole: Preprocessing | None = None
    """The whole preprocessing, which leaves nothing to settle."""

    def __bool__(self) -> bool:
        return any(wish is not None for wish in (self.preset, self.mean, self.std, self.whole))


def resolve_preprocessing(
    photo: Photo | None, inputs: tuple[TensorSpec, ...], wishes: PreprocessingWishes
) -> tuple[Preprocessing | None, tuple[str, ...]]:
    """Settle how photos become the input, and say why.

    Args:
        photo: The photo that the architecture takes; None for a user's network.
        inputs: The settled inputs; only a single [N, 1 or 3, height, width] takes photos.
        wishes: The user's options; they override the architecture's preprocessing.

    Returns:
        The preprocessing, and notes. It is None where the input is no photo, or its preprocessing is unknown.

    Raises:
        UsageError: A preset is unknown, the number of values is wrong, or the input takes no photo.
    """
    size = preprocessing_photo_size(inputs)
    if size is None:
        if wishes:
            raise UsageError(
                "--preprocess, --mean and --std are for one photo input [N, 1 or 3, height, width]; "
                f"this network takes {', '.join(str(list(spec.shape)) for spec in inputs)}.",
                "Calibrate with arrays that are ready for the network instead.",
            )
        return None, ("photos have 1 or 3 channels: calibrate with arrays",) if photo else ()
    if photo is None and not wishes:
        return None, ("the preprocessing of this input is unknown: give --preprocess, --mean and --std",)
    channels = inputs[0].shape[1]
    if wishes.whole:
        return _fitting_preprocessing(wishes.whole, size, channels), (
            f"photos are prepared as the card says (resize {wishes.whole.resize}, crop {size[0]}x{size[1]})",
        )
    base = photo.preprocessing if photo else Preprocessing(resize=max(size), crop=size)
    settled = _preprocessing_normalisation(resize_preprocessing(base, size), channels, wishes)
    return settled, _preprocessing_notes(photo, settled, channels, wishes)


def _fitting_preprocessing(whole: Preprocessing, size: tuple[int, int], channels: int) -> Preprocessing:
    if whole.crop != size:
        raise UsageError(
            f"The card's preprocessing crops photos to {whole.crop[0]}x{whole.crop[1]}, but the input is "
            f"{size[0]}x{size[1]}.",
            "Give preprocessing.crop the input's height and width.",
        )
    mean, std = (
        _given_preprocessing("mean", whole.mean, channels),
        _given_preprocessing("std", whole.std, channels),
    )
    assert mean is not None
    assert std is not None
    return dataclasses.replace(whole, mean=mean, std=std)


def preprocessing_photo_size(inputs: tuple[TensorSpec, ...]) -> tuple[int, int] | None:
    """Return (height, width) of the inputs in pixels, where they take a photo."""
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[1] not in (1, 3):
        return None
    return inputs[0].shape[2], inputs[0].shape[3]


def resize_preprocessing(base: Preprocessing, size: tuple[int, int]) -> Preprocessing:
    """Keep the published ratio of resize to crop at another size."""
    if size == base.crop:
        return base
    resize = round(max(size) * base.resize / max(base.crop))
    return dataclasses.replace(base, resize=resize, crop=size)


def _preprocessing_normalisation(
    base: Preprocessing, channels: int, wishes: PreprocessingWishes
) -> Preprocessing:
    scale, mean, std = base.scale, base.mean, base.std
    if wishes.preset is not None:
        if wishes.preset not in PRESETS:
            raise UsageError(f"--preprocess {wishes.preset!r} is unknown.", f"Known: {', '.join(PRESETS)}.")
        scale, mean, std = PRESETS[wishes.preset]
    mean = _given_preprocessing("mean", wishes.mean, channels) or _preprocessing_per_channel(mean, channels)
    std = _given_preprocessing("std", wishes.std, channels) or _preprocessing_per_channel(std, channels)
    if min(std) <= 0:
        raise UsageError(f"--std {min(std)} cannot be divided by.", "Give positive values.")
    if scale == 1.0 and max(mean) > 1:
        raise UsageError(
            f"--mean {max(mean)} is outside 0..1, the range of the values it is subtracted from.",
            "Divide mean and std by 255, or add `--preprocess bytes` for networks trained on 0..255.",
        )
    return dataclasses.replace(base, scale=scale, mean=mean, std=std)


def _given_preprocessing(
    option: str, values: tuple[float, ...] | None, channels: int
) -> tuple[float, ...] | None:
    if values is None:
        return None
    if len(values) not in (1, channels) or not all(math.isfinite(value) for value in values):
        raise UsageError(
            f"--{option} {','.join(map(str, values))}: {len(values)} values for {channels} channels.",
            f"Give 1 number, or {channels}.",
        )
    return values * channels if len(values) == 1 else values


def _preprocessing_per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Spread known values over the channels; another number of channels gets their average."""
    if len(values) == channels:
        return values
    return (round(sum(values) / len(values), 6),) * channels


def _preprocessing_notes(
    photo: Photo | None, settled: Preprocessing, channels: int, wishes: PreprocessingWishes
) -> tuple[str, ...]:
    notes = []
    if photo:
        height, width = settled.crop
        notes.append(f"{photo.source} (resize {settled.resize}, crop {height}x{width})")
        if channels != len(photo.preprocessing.mean) and not wishes:
            notes.append("photos become grayscale, with mean and std averaged over the colours")
    if wishes:
        notes.append(
            f"normalisation as asked: mean {settled.mean}, std {settled.std}, white is {settled.scale:g}"
        )
    return tuple(notes)
