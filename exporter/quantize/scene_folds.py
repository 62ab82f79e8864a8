"""Divide calibration samples into folds that share no scene, so that each judges what the others fit."""

from __future__ import annotations

from collections.abc import Sequence

FOLDS = 4
"""Parts that the scenes are divided into."""


def folds_of_scenes(scenes: Sequence[int]) -> list[list[int]]:
    """Return the places of samples fold by fold; fewer folds where there are fewer scenes."""
    names = sorted(set(scenes))
    count = min(FOLDS, len(names))
    fold_of = {scene: place % count for place, scene in enumerate(names)}
    return [[p for p, scene in enumerate(scenes) if fold_of[scene] == fold] for fold in range(count)]
