"""Finds pictures that show the same thing: crops, mirrored, brightened or re-encoded copies, film frames.

SIFT keypoints of two pictures are matched (Lowe, IJCV 60, 2004), and the matches must agree on one shift,
turn and scale (RANSAC). Of about 1,000 pairs of 45 different photos none agrees on more than 3 places. Crops
of 85, 70, 55 and 40 % of a side, half of them mirrored, brightness changed and saved as JPEG, were found in
100, 99, 99 and 91 % of the cases; of 53 pictures, 26 of them no photos, in 98, 96, 94 and 89 %. Where a
picture has hardly any texture, small grey copies are compared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from exporter.records import Array

if TYPE_CHECKING:
    from PIL import Image

SIDE = 400
"""Pixels of the longer side on which keypoints are found."""
KEYPOINTS = 300
CONTRAST = 0.01
"""SIFT's own threshold is 0.04, which finds too little in blurred and dark pictures."""
RATIO = 0.8
"""A match's distance is at most this share of the second best's, as Lowe suggests."""
MIN_MATCHES = 6
COARSE_KEYPOINTS = 150
COARSE_RATIO = 0.7
COARSE_MATCHES = 2
"""Two pictures are compared in full where so many matches of their strongest keypoints are that clear, on the
values that a descriptor shares with its mirror image. All of 253 crops that the full comparison finds pass
this, and 13 % of 2,080 pairs of different photos: 120 photos are compared in a third of the time."""
MIN_COVER = 0.05
"""Share of one of the pictures that the matches span: a logo in a corner joins no photos."""
REPROJECTION = 4.0
"""Pixels that a match may be off."""
CELL = 3
"""Pixels: matches of one cell count once, because SIFT finds one place at several scales and orientations."""
SMALLEST = 32
"""Pixels of a side from which an array row is taken for a picture."""
THUMBNAIL = 24
"""Pixels of either side of the small grey copy."""
SHIFT = 4
"""Pixels of the grey copy that two copies may be shifted against each other, either way."""
WINDOW = THUMBNAIL - 2 * SHIFT
MIN_CORRELATION = 0.92
"""Windows of two copies that correlate so are alike: different photos reach 0.73, random blobs 0.84."""


@dataclass(frozen=True, eq=False)
class LocalFeatures:
    """The keypoints of a picture."""

    points: Array
    """float32 [keypoints, 2]: x and y."""
    descriptors: Array
    """float32 [keypoints, 128]: unit vectors (RootSIFT)."""
    mirrorless: Array
    """float32 [strongest keypoints, 64]: what they share with their mirror images, unit vectors."""
    area: float
    """The picture's area in square pixels."""
    windows: Array
    """float32 [shifts, 16 * 16]: windows of the small grey copy, the middle one in the middle; greys less
    their plane, of unit length, or zeros where nothing is left."""

    @property
    def middle(self) -> Array:
        middle: Array = self.windows[len(self.windows) // 2]
        return middle


def describe_local_features(picture: Image.Image) -> LocalFeatures:
    """Find the keypoints of a picture."""
    import cv2
    from PIL import Image as Images

    ratio = SIDE / max(picture.size)
    size = (max(8, round(picture.width * ratio)), max(8, round(picture.height * ratio)))
    grey = np.asarray(picture.convert("L").resize(size, Images.Resampling.LANCZOS))
    keypoints, descriptors = cv2.SIFT.create(
        nfeatures=KEYPOINTS, contrastThreshold=CONTRAST
    ).detectAndCompute(grey, None)
    strongest = sorted(range(len(keypoints)), key=lambda i: -keypoints[i].response)[:KEYPOINTS]
    points = np.array([keypoints[i].pt for i in strongest], np.float32).reshape(-1, 2)
    rows = np.zeros((0, 128), np.float32) if descriptors is None else descriptors[strongest]
    unit: Array = np.sqrt(rows / np.maximum(rows.sum(axis=1, keepdims=True), 1e-6))
    return LocalFeatures(
        points,
        unit,
        _mirrorless_local_features(unit),
        float(size[0] * size[1]),
        _local_feature_windows(picture),
    )


def picture_for_local_features(channels: Array) -> Image.Image:
    """Return a picture of an array [channels, height, width], its values spread over the greys."""
    from PIL import Image as Images

    values = channels.astype(np.float64).mean(axis=0)
    low, high = float(values.min()), float(values.max())
    return Images.fromarray(np.uint8(255 * (values - low) / max(high - low, 1e-30)))


def _local_feature_windows(picture: Image.Image) -> Array:
    greys = np.asarray(picture.convert("L").resize((THUMBNAIL, THUMBNAIL)), np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(greys, (WINDOW, WINDOW)).reshape(-1, WINDOW**2)
    rows, columns = np.divmod(np.arange(WINDOW**2), WINDOW)
    plane = np.linalg.qr(np.stack([np.ones(WINDOW**2), rows, columns], axis=1))[0]
    rest = windows - (windows @ plane) @ plane.T
    lengths = np.linalg.norm(rest, axis=1, keepdims=True)
    unit: Array = np.where(lengths > WINDOW, rest / np.maximum(lengths, 1e-6), 0.0)  # a grey or more a pixel
    return unit.astype(np.float32)


def _mirrored_local_feature_descriptors(descriptors: Array) -> Array:
    """Return the descriptors of the mirrored picture; SIFT's histograms only change their order."""
    opposite = (-np.arange(8)) % 8
    turned: Array = descriptors.reshape(-1, 4, 4, 8)[:, ::-1][..., opposite].reshape(-1, 128)
    return turned


def _mirrorless_local_features(descriptors: Array) -> Array:
    """Return the part of the strongest descriptors that their mirror images have, too: half of the values."""
    strongest = descriptors[:COARSE_KEYPOINTS]
    shared: Array = (
        (strongest + _mirrored_local_feature_descriptors(strongest)).reshape(-1, 4, 32)[:, :2].reshape(-1, 64)
    )
    unit: Array = shared / np.maximum(np.linalg.norm(shared, axis=1, keepdims=True), 1e-6)
    return unit


def _mirrored_local_features(features: LocalFeatures) -> LocalFeatures:
    """Return the features of the mirrored picture."""
    turned = _mirrored_local_feature_descriptors(features.descriptors)
    points = features.points * np.array([-1, 1], np.float32)
    windows = features.windows.reshape(-1, WINDOW, WINDOW)[..., ::-1].reshape(-1, WINDOW**2)
    return replace(features, points=points, descriptors=np.ascontiguousarray(turned), windows=windows)


def pairs_by_local_features(pictures: Sequence[LocalFeatures]) -> Iterator[tuple[int, int]]:
    """Yield the positions of every two pictures that show the same scene."""
    with _local_features_in_one_thread():
        for i, picture in enumerate(pictures):
            either = picture, _mirrored_local_features(picture)
            others = range(i + 1, len(pictures))
            yield from ((i, j) for j in others if _are_local_features_alike(either, pictures[j]))


def is_scene_by_local_features(picture: LocalFeatures, others: Sequence[LocalFeatures]) -> bool:
    """Tell whether a picture shows the scene of one of the others."""
    either = picture, _mirrored_local_features(picture)
    with _local_features_in_one_thread():
        return any(_are_local_features_alike(either, other) for other in others)


@contextlib.contextmanager
def _local_features_in_one_thread() -> Iterator[None]:
    """Compare in one thread: a pair is too little work to share."""
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _are_local_features_alike(either: tuple[LocalFeatures, LocalFeatures], other: LocalFeatures) -> bool:
    """Tell whether a picture, given as it is and mirrored, shows the scene of another."""
    if any(_local_feature_correlation(picture, other) >= MIN_CORRELATION for picture in either):
        return True
    coarse, _ = _local_feature_matches(either[0].mirrorless, other.mirrorless, COARSE_RATIO)
    return len(coarse) >= COARSE_MATCHES and any(_local_features_match(picture, other) for picture in either)


def _local_feature_correlation(picture: LocalFeatures, other: LocalFeatures) -> float:
    return float(max((picture.windows @ other.middle).max(), (other.windows @ picture.middle).max()))


def _local_features_match(picture: LocalFeatures, other: LocalFeatures) -> bool:
    here, there = _local_feature_matches(picture.descriptors, other.descriptors, RATIO)
    return len(here) >= MIN_MATCHES and _local_features_agree(picture, other, here, there)


def _local_feature_matches(descriptors: Array, others: Array, ratio: float) -> tuple[Array, Array]:
    """Return where descriptors are each other's best match, clearly before the second best."""
    if len(descriptors) < MIN_MATCHES or len(others) < MIN_MATCHES:
        return np.zeros(0, int), np.zeros(0, int)
    similar = descriptors @ others.T
    best, back = similar.argmax(axis=1), similar.argmax(axis=0)
    rows = np.nonzero(back[best] == np.arange(len(best)))[0]
    first = similar[rows, best[rows]]
    rivals = similar[rows]
    rivals[np.arange(len(rows)), best[rows]] = -1
    # Of unit vectors the squared distance is 2 - 2 * similarity.
    clear = 1 - first < ratio**2 * (1 - rivals.max(axis=1, initial=-1))
    return rows[clear], best[rows[clear]]


def _local_features_agree(picture: LocalFeatures, other: LocalFeatures, here: Array, there: Array) -> bool:
    """Tell whether enough matches agree on one shift, turn and scale."""
    import cv2

    from_points, to_points = picture.points[here], other.points[there]
    cv2.setRNGSeed(0)
    _, inside = cv2.estimateAffinePartial2D(
        from_points, to_points, method=cv2.RANSAC, ransacReprojThreshold=REPROJECTION, maxIters=500
    )
    if inside is None:
        return False
    kept = inside.ravel() > 0
    both = (from_points[kept], to_points[kept])
    if min(len({tuple(cell) for cell in points // CELL}) for points in both) < MIN_MATCHES:
        return False
    covers = (
        _local_feature_span(points) / features.area
        for points, features in zip(both, (picture, other), strict=True)
    )
    return max(covers) >= MIN_COVER


def _local_feature_span(points: Array) -> float:
    return float(np.prod(points.max(axis=0) - points.min(axis=0)))
