"""Checks photos whose class the user knows before anything is exported (`--expect`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import ArchitectureError, CalibrationError, UsageError
from exporter.records import Model

if TYPE_CHECKING:
    import torch


def check_expectations(model: Model, expected: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """Ask the network for each photo's class.

    Args:
        model: A classifier of photos.
        expected: (photo, its class's number or label).

    Returns:
        A note on each photo that was answered as expected.

    Raises:
        UsageError: The network is no classifier of photos, or has no such class.
        CalibrationError: A photo cannot be read.
        ArchitectureError: The network gives another class: it, its weights or its preprocessing is not what
            was trained.
    """
    return tuple(_compare_class_with_expectation(model, Path(photo), wanted) for photo, wanted in expected)


def _compare_class_with_expectation(model: Model, photo: Path, wanted: str) -> str:
    scores = _expectation_scores(model, photo)
    number = _class_number_of_expectation(model, wanted, scores.numel())
    best = int(scores.argmax())
    if best != number:
        rank = int((scores > scores[number]).sum()) + 1
        raise ArchitectureError(
            f"--expect: {photo.name} is {_describe_expected_class(model, best)} to the network, expected "
            f"{_describe_expected_class(model, number)} (in place {rank} of {scores.numel()}).",
            "The network is not the one that was trained, or its photos are prepared another way: see "
            "`export-mobile inspect`, `--arch` and `--preprocess`.",
        )
    return f"{photo.name} is {_describe_expected_class(model, number)} to the network, as expected"


def _expectation_scores(model: Model, photo: Path) -> torch.Tensor:
    import torch

    from exporter.data import photos

    if model.preprocessing is None or len(model.inputs) != 1:
        raise UsageError("--expect is for networks that take one photo.", "Say how it is made: --preprocess.")
    image = (
        photos.read_whole_photo(photo, model.preprocessing, model.inputs[0].shape[1])
        if photo.is_file()
        else None
    )
    if image is None:
        raise CalibrationError(f"--expect: {photo} is no photo that can be read.", "Check the path.")
    with torch.inference_mode():
        output = model.module(torch.from_numpy(image)[None].expand(model.inputs[0].shape))
    first = output[0] if isinstance(output, tuple | list) else output
    if not isinstance(first, torch.Tensor) or first.dim() != 2:
        raise UsageError("--expect is for classifiers: the network's output is no row of scores.")
    return first[0]


def _class_number_of_expectation(model: Model, wanted: str, count: int) -> int:
    labels = [label.casefold() for label in model.labels]
    if wanted.casefold() in labels:
        return labels.index(wanted.casefold())
    if wanted.isdecimal() and int(wanted) < count:
        return int(wanted)
    advice = f" or one of its labels ({', '.join(model.labels[:3])}, …)" if model.labels else ""
    raise UsageError(
        f"--expect: the network has no class {wanted!r}.", f"Give a number below {count}{advice}."
    )


def _describe_expected_class(model: Model, number: int) -> str:
    return f"{model.labels[number]!r} ({number})" if number < len(model.labels) else f"class {number}"
