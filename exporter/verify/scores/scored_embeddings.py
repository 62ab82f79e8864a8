"""Recall@1 of embeddings (is the nearest other sample of the same class), or the rank agreement of pairs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from exporter.records import Array
from exporter.verify.scores.scored_sample import Label, Measures, Rows, ScoredSample, Tables
from exporter.verify.tasks.embedding_task import nearest_embeddings_of_task

NONE = -1
"""The class of a sample that belongs to pairs."""


def score_embeddings(view: ScoredSample, label: Label) -> Rows:
    """Return the class and the vector, of length one; and the sample's pairs (other sample, similarity)."""
    index = view.find("embed")
    vector = (view.first_float() if index is None else view.outputs[index].astype(np.float64)).reshape(-1)
    vector = vector / max(float(np.linalg.norm(vector)), np.finfo(np.float64).tiny)
    pairs = [[float(other), float(score)] for other, score in label.get("pairs", np.zeros((0, 2)))]
    return {"vectors": [[float(label["class"]), *map(float, vector)]], "pairs": pairs}


def measures_of_scored_embeddings(tables: Tables, count: int) -> Measures:
    """Return the rank agreement (Spearman's) where there are pairs, else recall@1."""
    samples = tables["vectors"][:, 0].astype(int)
    vectors, classes = np.zeros((count, tables["vectors"].shape[1] - 2)), np.full(count, NONE)
    vectors[samples], classes[samples] = tables["vectors"][:, 2:], tables["vectors"][:, 1]
    pairs = tables.get("pairs", np.zeros((0, 3)))
    if len(pairs):
        left, right = pairs[:, 0].astype(int), pairs[:, 1].astype(int)
        cosines = (vectors[left] * vectors[right]).sum(axis=1)

        def agreement(weights: Array) -> Mapping[str, float]:
            times = weights[left].astype(int)
            return {
                "rank agreement": _scored_embedding_spearman(
                    np.repeat(cosines, times), np.repeat(pairs[:, 2], times)
                )
            }

        return agreement
    nearest = nearest_embeddings_of_task(vectors)
    there = np.array([(classes == own).sum() > 1 for own in classes], float)
    hits = (classes[nearest] == classes) * there

    def recall(weights: Array) -> Mapping[str, float]:
        total = float(weights @ there)
        return {"recall@1": float(weights @ hits) / total if total else float("nan")}

    return recall


def _scored_embedding_spearman(left: Array, right: Array) -> float:
    if len(left) < 2 or not np.ptp(left) or not np.ptp(right):
        return float("nan")
    from scipy.stats import rankdata

    return float(np.corrcoef(rankdata(left), rankdata(right))[0, 1])
