"""What a package tells the people who build an app with it: author, licence, labels, what goes in and out.

Xcode shows these texts, and `MLModel.modelDescription` has them in the app.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from exporter.errors import LoweringError
from exporter.formats.metadata import LABELS_KEY
from exporter.records import About, Captured, TensorSpec


def package_description(spec: Any, captured: Captured) -> None:
    """Write the texts into a package's description."""
    metadata, about = spec.description.metadata, captured.about
    for field, value in _metadata_of_package_description(about).items():
        setattr(metadata, field, value)
    for output in _scores_for_package_description(captured.outputs, about.labels):
        metadata.userDefined[LABELS_KEY] = json.dumps(about.labels, ensure_ascii=False)
        feature = spec.description.output[captured.outputs.index(output)]
        feature.shortDescription = _package_description_of_scores(about.labels)
    if about.preparation and len(captured.inputs) == 1:
        spec.description.input[0].shortDescription = _package_description_of_preparation(captured)


def check_package_description(spec: Any, captured: Captured) -> None:
    """Compare the texts of a package that was read back with those of the model.

    Raises:
        LoweringError: A text differs.
    """
    metadata, about = spec.description.metadata, captured.about
    expected: dict[str, str] = dict(_metadata_of_package_description(about))
    actual = {field: str(getattr(metadata, field)) for field in expected}
    scores = _scores_for_package_description(captured.outputs, about.labels)
    if scores:
        expected[LABELS_KEY] = json.dumps(about.labels, ensure_ascii=False)
        actual[LABELS_KEY] = metadata.userDefined.get(LABELS_KEY, "")
    if about.preparation and len(captured.inputs) == 1:
        expected["input"] = _package_description_of_preparation(captured)
        actual["input"] = spec.description.input[0].shortDescription
    for field, value in expected.items():
        if actual[field] != value:
            raise LoweringError(f"The package says {actual[field]!a} as its {field}, the model {value!a}.")


def _metadata_of_package_description(about: About) -> Mapping[str, str]:
    """Return the fields of Core ML's metadata that have a text."""
    texts = {
        "shortDescription": about.description,
        "author": about.author,
        "license": about.licence,
        "versionString": about.version,
    }
    return {field: value for field, value in texts.items() if value}


def _scores_for_package_description(outputs: Sequence[TensorSpec], labels: Sequence[str]) -> list[TensorSpec]:
    """Return the outputs that have a score for each label."""
    return [spec for spec in outputs if labels and len(spec.shape) > 1 and spec.shape[1] == len(labels)]


def _package_description_of_scores(labels: Sequence[str]) -> str:
    return f"Scores of {len(labels)} classes; the metadata '{LABELS_KEY}' lists their labels in this order."


def _package_description_of_preparation(captured: Captured) -> str:
    prepared = captured.about.preparation
    if captured.image:
        return f"A photo, resized and cropped. The package prepares its pixels: {prepared}."
    return f"A photo, prepared: {prepared}."
