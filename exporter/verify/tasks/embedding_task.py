"""Vectors to compare with each other: their direction, and who is nearest to whom."""

from __future__ import annotations

import numpy as np

from exporter.records import Array, TaskMeasure
from exporter.verify.compare_outputs import compare_unit_vectors
from exporter.verify.tasks.measured_outputs import MeasuredOutputs, merged_measured_outputs

EXACT, LOSSY = 0.9999, 0.98


def detect_embedding_task(outputs: MeasuredOutputs) -> bool:
    """Take an output named after embeddings, or vectors that all have length one."""
    index = outputs.find("embed")
    if index is not None:
        return outputs.reference[index].ndim == 3 and outputs.reference[index].dtype.kind == "f"
    index = outputs.first_float(3)
    return index is not None and compare_unit_vectors(outputs.reference[index])


def measure_embedding_task(outputs: MeasuredOutputs) -> TaskMeasure | None:
    """Return the worst sample's cosine with the model's vector, and how many nearest neighbours stay."""
    index = outputs.find("embed")
    index = outputs.first_float(3) if index is None else index
    if index is None:
        return None
    y, a = (
        _unit_embeddings_of_task(merged_measured_outputs(stack[index]))
        for stack in (outputs.reference, outputs.actual)
    )
    value = float((y * a).sum(axis=1).min())
    ranks = (
        float((nearest_embeddings_of_task(y) == nearest_embeddings_of_task(a)).mean()) if len(y) > 2 else 1.0
    )
    limit = outputs.limit(EXACT, LOSSY)
    detail = f"of the worst sample; {ranks:.1%} keep their nearest neighbour"
    return TaskMeasure("embeddings", "cosine", value, "", limit, value >= limit, detail)


def _unit_embeddings_of_task(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors.reshape(len(vectors), -1), axis=1, keepdims=True)
    unit: Array = vectors.reshape(len(vectors), -1) / np.maximum(lengths, np.finfo(np.float64).tiny)
    return unit


def nearest_embeddings_of_task(vectors: Array) -> Array:
    """Return the index of the other vector, all of length one, that is nearest to each."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    nearest: Array = cosines.argmax(axis=1)
    return nearest
