"""Mean average precision of detections, as COCO defines it (maximum 100 detections a class and image)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from exporter.records import Array
from exporter.verify.scores.scored_sample import Label, Measures, Rows, ScoredSample, Tables
from exporter.verify.tasks.box_task import overlap_of_boxes_in_task
from exporter.verify.tasks.read_boxes import (
    SCORES,
    are_box_corners,
    are_box_probabilities,
    box_corners_from_centres,
    box_probabilities_from_logits,
)

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST = 100
SUPPRESSED = 0.7
"""Raw predictions of a network without suppression of its own lose those that overlap a surer one by more."""
LEAST = 0.001
"""Raw predictions with a lower score are not detections."""
NORMALISED = 2.0
"""Coordinates that are all below this are shares of the input's sides."""
Detections = tuple[Array, Array, Array]
"""Corners in pixels [n, 4], scores [n], classes [n]."""


def score_boxes(view: ScoredSample, label: Label) -> Rows:
    """Return each detection (class, score, a flag per threshold) and each object (class) of one image."""
    corners, scores, classes = scored_boxes(view)
    found = []
    for number in np.unique(classes):
        order = np.flatnonzero(classes == number)
        order = order[np.argsort(-scores[order], kind="stable")][:MOST]
        own = label["classes"] == number
        flags = _match_scored_boxes(corners[order], label["boxes"][own], label["ignored"][own].astype(bool))
        found += [[float(number), float(scores[i]), *flags[row]] for row, i in enumerate(order)]
    objects = label["classes"][~label["ignored"].astype(bool)]
    return {"detections": found, "objects": [[float(number)] for number in objects]}


def scored_boxes(view: ScoredSample) -> Detections:
    """Read the outputs: boxes and scores apart, or one tensor of coordinates and a score per class.

    Raises:
        ValueError: The outputs are neither.
    """
    boxes, scores = view.find("box"), view.find(*SCORES)
    if boxes is not None and scores is not None and boxes != scores:
        return _scored_box_pair(view, boxes, scores)
    y = view.first_float(3)[0]
    y = y.T if y.shape[0] < y.shape[1] else y
    if y.shape[1] < 5:
        raise ValueError(f"an output of shape {list(y.shape)} holds no four coordinates and scores")
    corners = box_corners_from_centres(_scored_box_pixels(y[:, :4], view.size))
    best, classes = y[:, 4:].max(axis=1), y[:, 4:].argmax(axis=1)
    keep = np.flatnonzero(best >= LEAST)
    keep = keep[_suppress_scored_boxes(corners[keep], best[keep], classes[keep])]
    return corners[keep], best[keep], classes[keep]


def _scored_box_pair(view: ScoredSample, boxes: int, scores: int) -> Detections:
    corners = view.outputs[boxes].astype(np.float64).reshape(-1, 4)
    values = view.outputs[scores].astype(np.float64).reshape(len(corners), -1)
    corners = _scored_box_pixels(corners, view.size)
    if not are_box_corners(corners):
        corners = box_corners_from_centres(corners)
    labels = view.find("label", "categor")
    if values.shape[1] > 1:
        if not are_box_probabilities(values):
            values = box_probabilities_from_logits(values)
        return corners, values.max(axis=1), values.argmax(axis=1)
    classes = np.zeros(len(corners)) if labels is None else view.outputs[labels].reshape(-1)
    return corners, values[:, 0], classes.astype(int)


def _scored_box_pixels(corners: Array, size: tuple[int, int]) -> Array:
    if len(corners) and corners.max() <= NORMALISED:
        return corners * np.array([size[1], size[0], size[1], size[0]], np.float64)
    return corners


def _suppress_scored_boxes(corners: Array, scores: Array, classes: Array) -> Array:
    """Return the detections that no surer one of their class overlaps by more than `SUPPRESSED`."""
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order):
        first, order = order[0], order[1:]
        kept.append(int(first))
        overlaps = overlap_of_boxes_in_task(corners[first][None], corners[order])[0]
        order = order[(overlaps <= SUPPRESSED) | (classes[order] != classes[first])]
    return np.array(kept, int)


def _match_scored_boxes(corners: Array, objects: Array, ignored: Array) -> Array:
    """Give each detection, the surest first, a flag per threshold: 1 right, 0 wrong, -1 not counted."""
    flags = np.zeros((len(corners), len(THRESHOLDS)))
    overlaps = overlap_of_boxes_in_task(corners, objects[~ignored])
    crowds = overlap_of_boxes_in_task(corners, objects[ignored], crowd=True).max(axis=1, initial=0.0)
    for column, threshold in enumerate(THRESHOLDS):
        free = overlaps.copy()
        for row in range(len(corners)):
            best = int(free[row].argmax()) if free.shape[1] else -1
            if best >= 0 and free[row, best] >= threshold:
                flags[row, column] = 1
                free[:, best] = -1
            elif crowds[row] >= threshold:
                flags[row, column] = -1
    return flags


def measures_of_scored_boxes(tables: Tables, count: int) -> Measures:
    """Return mAP@0.5:0.95 and mAP@0.5, averaged over the classes that the labels hold."""
    found, objects = tables["detections"], tables["objects"]
    found = found[np.argsort(-found[:, 2], kind="stable")]
    classes = {
        int(number): (found[found[:, 1] == number], objects[objects[:, 1] == number][:, 0].astype(int))
        for number in np.unique(objects[:, 1])
    }

    def value(weights: Array) -> Mapping[str, float]:
        precisions = [
            _scored_box_precisions(own, weights, float(weights[samples].sum()))
            for own, samples in classes.values()
            if weights[samples].any()
        ]
        mean = np.mean(precisions, axis=0) if precisions else np.full(len(THRESHOLDS), np.nan)
        return {"mAP@0.5:0.95": float(mean.mean()), "mAP@0.5": float(mean[0])}

    return value


def _scored_box_precisions(found: Array, weights: Array, objects: float) -> Array:
    """Return one class's average precision per threshold: precision at 101 recalls, made to fall."""
    flags, weight = found[:, 3:], weights[found[:, 0].astype(int)][:, None]
    right, wrong = (np.cumsum(weight * (flags == flag), axis=0) for flag in (1, 0))
    precision = right / np.maximum(right + wrong, np.finfo(np.float64).tiny)
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    averages = np.zeros(len(THRESHOLDS))
    for column in range(len(THRESHOLDS)):
        places = np.searchsorted(right[:, column] / objects, RECALLS, side="left")
        reached = places[places < len(found)]
        averages[column] = precision[reached, column].sum() / len(RECALLS)
    return averages
