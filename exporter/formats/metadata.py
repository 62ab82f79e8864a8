"""What every file tells people about its model, in its format's own field.

ONNX and ORT files have it as metadata properties, TorchScript as the extra file `metadata.json`, ExecuTorch
as the method `metadata` that returns JSON. Core ML has fields of its own for most of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from exporter.records import About

METADATA = "metadata"
"""The method, and the name of the extra file."""
LABELS_KEY = "classes"
"""The key of the labels, a JSON list in the order of the scores."""


def model_metadata(about: About) -> Mapping[str, str]:
    """Return key -> text; a text that the user did not give is left out."""
    texts = {
        "description": about.description,
        "author": about.author,
        "licence": about.licence,
        "version": about.version,
        "preparation": about.preparation,
        LABELS_KEY: json.dumps(about.labels, ensure_ascii=False) if about.labels else "",
    }
    return {key: text for key, text in texts.items() if text}


def metadata_as_json(about: About) -> str:
    """Return the same as one JSON object; empty where there is nothing to tell."""
    texts: dict[str, object] = dict(model_metadata(about))
    if about.labels:
        texts[LABELS_KEY] = about.labels
    return json.dumps(texts, ensure_ascii=False) if texts else ""
