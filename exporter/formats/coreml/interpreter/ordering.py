"""Sorting. Of equal values the first comes first."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from exporter.formats.coreml.interpreter.mil_call import Call
from exporter.records import Array


def ordering_positions(call: Call) -> Tensor:
    """Compute `argsort`, in descending order unless the program says otherwise."""
    x, ascending = call.tensor("x"), call.flag("ascending")
    return x.sort(dim=call.integer("axis", -1), descending=not ascending, stable=True).indices


def ordering_top(call: Call) -> tuple[Tensor, ...]:
    """Compute `topk`: values and their positions; sorted, even where the program leaves the order open."""
    x, axis = call.tensor("x"), call.integer("axis", -1)
    count = call.integer("k", 1)
    count = x.shape[axis] if count == -1 else count
    ordered = x.sort(dim=axis, descending=not call.flag("ascending"), stable=True)
    values, positions = (part.narrow(axis, 0, count) for part in ordered)
    return (values, positions) if call.flag("return_indices", True) else (values,)


def ordering_classes(call: Call) -> tuple[str, dict[str, float]]:
    """Compute `classify`: the label of the first largest probability, and the probability of each label.

    Of labels that occur twice Core ML keeps one, and so does this.
    """
    values = call.array("probabilities").reshape(-1)
    classes = [str(label) for label in call.array("classes")]
    table = {label: float(value) for label, value in zip(classes, values, strict=True)}
    return classes[int(values.argmax())], table


def ordering_suppression(call: Call) -> tuple[Array, ...]:
    """Compute `non_maximum_suppression` of boxes given by centre and size.

    Returns:
        Boxes, scores and positions of the selected boxes, and how many there are in each sample. Behind the
        last one, boxes and scores are 0 and positions -1, as the specification leaves open.
    """
    boxes, scores = call.array("boxes").astype(np.float64), call.array("scores")
    count = call.integer("max_boxes")
    selected = [
        _ordering_select(call, box, score.astype(np.float64))[:count]
        for box, score in zip(boxes, scores, strict=True)
    ]
    positions = np.full((len(boxes), count), -1, np.int32)
    kept_boxes = np.zeros((len(boxes), count, 4), call.array("boxes").dtype)
    kept_scores = np.zeros((len(boxes), count, scores.shape[-1]), scores.dtype)
    for i, chosen in enumerate(selected):
        positions[i, : len(chosen)] = chosen
        kept_boxes[i, : len(chosen)] = call.array("boxes")[i][chosen]
        kept_scores[i, : len(chosen)] = scores[i][chosen]
    return kept_boxes, kept_scores, positions, np.array([len(chosen) for chosen in selected], np.int32)


def _ordering_select(call: Call, boxes: Array, scores: Array) -> list[int]:
    """Return the boxes of one sample that stay, the best first."""
    best, classes = scores.max(axis=-1), scores.argmax(axis=-1)
    order = [i for i in np.argsort(-best, kind="stable") if best[i] >= call.number("score_threshold")]
    chosen: list[Any] = []
    for i in order:
        rivals = [j for j in chosen if not call.flag("per_class_suppression") or classes[i] == classes[j]]
        if all(_ordering_overlap(boxes[i], boxes[j]) <= call.number("iou_threshold") for j in rivals):
            chosen.append(int(i))
    return chosen


def _ordering_overlap(first: Array, second: Array) -> float:
    low = np.maximum(first[:2] - first[2:] / 2, second[:2] - second[2:] / 2)
    high = np.minimum(first[:2] + first[2:] / 2, second[:2] + second[2:] / 2)
    shared = float(np.prod(np.maximum(high - low, 0)))
    union = float(np.prod(first[2:]) + np.prod(second[2:])) - shared
    return shared / union if union > 0 else 0.0
