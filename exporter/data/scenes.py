"""Groups samples into scenes, and gives every scene one purpose.

A scene is all that shows the same thing: near-duplicates, crops and edits of one picture, frames of one
video, near copies of a row. Samples of one scene say the same about a quantised model. So a scene serves one
purpose only, and the bounds of verification count scenes, not samples.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.data import local_features, near_copies, scene_names
from exporter.records import Purpose, Sample, Scene

if TYPE_CHECKING:
    from exporter.data.photos import Photo

NAMES, PIXELS, VALUES = "file names", "the same picture content", "near copies"
CALIBRATION_SHARE = 0.4
CHOICE_SHARE = 0.2
"""Shares of the scenes when candidates are chosen among; else half of the scenes calibrate."""


@dataclass(frozen=True)
class SceneGrouping:
    """The scene of every sample."""

    scenes: tuple[int, ...]
    """Number of each sample's scene, in order of appearance from 0."""
    reasons: Mapping[int, str]
    """Scene -> what joined its samples. Scenes of a single sample are left out."""

    @property
    def count(self) -> int:
        return len(set(self.scenes))


def group_photos_into_scenes(photos: Sequence[Photo]) -> SceneGrouping:
    """Group photos by their files' names and by their content."""
    by_name: dict[str, int] = {}
    sources = scene_names.scene_name_sources([photo.path for photo in photos])
    names = [(by_name.setdefault(source, i), i) for i, source in enumerate(sources)]
    pixels = local_features.pairs_by_local_features(
        [local_features.describe_local_features(photo.reduced) for photo in photos]
    )
    return _group_scenes(len(photos), {NAMES: (pair for pair in names if pair[0] != pair[1]), PIXELS: pixels})


def group_rows_into_scenes(rows: Sequence[Sample]) -> SceneGrouping:
    """Group array rows by their distance and, where they are pictures, by their content."""
    return _group_scenes(
        len(rows),
        {
            VALUES: near_copies.pairs_of_near_copies(rows),
            PIXELS: local_features.pairs_by_local_features(pictures_for_scenes(rows)),
        },
    )


def scenes_apart(count: int) -> SceneGrouping:
    """Return a grouping in which every sample is a scene of its own."""
    return SceneGrouping(tuple(range(count)), {})


def pictures_for_scenes(rows: Sequence[Sample]) -> list[local_features.LocalFeatures]:
    """Return the features of rows that are one picture each; none of other rows."""
    shape = rows[0][0].shape if rows else ()
    if len(shape) != 4 or shape[:2] not in {(1, 1), (1, 3)} or min(shape[2:]) < local_features.SMALLEST:
        return []
    if rows[0][0].dtype.kind != "f":
        return []
    return [
        local_features.describe_local_features(local_features.picture_for_local_features(row[0][0]))
        for row in rows
    ]


def _group_scenes(count: int, joins: Mapping[str, Iterable[tuple[int, int]]]) -> SceneGrouping:
    """Join samples into scenes; a scene's reason is what joined them, in the order of `joins`."""
    first = list(range(count))
    causes: dict[int, list[str]] = defaultdict(list)

    def find(i: int) -> int:
        while first[i] != i:
            i = first[i]
        return i

    for reason, pairs in joins.items():
        for i, j in pairs:
            one, other = sorted((find(i), find(j)))
            first[other] = one
            causes[one] = list(dict.fromkeys([*causes[one], *causes.pop(other, []), reason]))
    numbers: dict[int, int] = {}
    scenes = tuple(numbers.setdefault(find(i), len(numbers)) for i in range(count))
    return SceneGrouping(scenes, {numbers[root]: " and ".join(why) for root, why in causes.items() if why})


def split_scenes(grouping: SceneGrouping, choosing: bool, most: int) -> dict[Purpose, tuple[int, ...]]:
    """Give every scene one purpose, in their order: calibration, choice, verification.

    Args:
        grouping: The scenes, at least two.
        choosing: Whether candidates will be chosen among, which needs scenes of its own. With two scenes
            only, those of calibration choose: verification still judges on its own.
        most: The most samples of a purpose.

    Returns:
        Purpose -> positions of its samples: each scene's first, then each one's second, and so on.
    """
    count = grouping.count
    if not choosing:
        calibrating, choosers = range((count + 1) // 2), range(0)
    elif count == 2:
        calibrating, choosers = range(1), range(1)
    else:
        calibrating = range(max(1, round(CALIBRATION_SHARE * count)))
        choosers = range(calibrating.stop, calibrating.stop + max(1, round(CHOICE_SHARE * count)))
    verifying = range(max(calibrating.stop, choosers.stop), count)
    return {
        "calibration": _of_scenes(grouping, calibrating)[:most],
        "verification": _of_scenes(grouping, verifying)[:most],
        "choice": _of_scenes(grouping, choosers)[:most],
    }


def _of_scenes(grouping: SceneGrouping, wanted: range) -> tuple[int, ...]:
    members: dict[int, list[int]] = defaultdict(list)
    for position, scene in enumerate(grouping.scenes):
        if scene in wanted:
            members[scene].append(position)
    rounds = itertools.zip_longest(*members.values())
    return tuple(position for positions in rounds for position in positions if position is not None)


def scenes_of_samples(shown: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return each sample's scene, of the scenes that it shows; samples that share one are of one scene."""
    first: dict[int, int] = {}
    pairs = [(first.setdefault(scene, i), i) for i, scenes in enumerate(shown) for scene in scenes]
    return _group_scenes(len(shown), {"": [pair for pair in pairs if pair[0] != pair[1]]}).scenes


def make_scenes(
    grouping: SceneGrouping, used: Mapping[int, Purpose], names: Sequence[str]
) -> tuple[Scene, ...]:
    """Return the scenes of several samples, with their samples' names and their purpose.

    Args:
        grouping: The scenes of the photos or rows.
        used: Position -> purpose, of those that have one.
        names: The names of all.
    """
    purposes = {grouping.scenes[i]: purpose for i, purpose in used.items()}
    return tuple(
        Scene(
            purposes[scene], tuple(n for n, s in zip(names, grouping.scenes, strict=True) if s == scene), why
        )
        for scene, why in sorted(grouping.reasons.items())
        if scene in purposes
    )
