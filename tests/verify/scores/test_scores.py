"""Every task's measure against values computed by hand or by another library."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import jaccard_score, mean_absolute_error, r2_score

from exporter.records import Array, TaskName
from exporter.verify.scores import SCORES, scored_boxes, scored_keypoints, scored_masks
from exporter.verify.scores.scored_sample import Label, ScoredSample, Tables
from exporter.verify.tasks.box_task import overlap_of_boxes_in_task


def tables(task: TaskName, samples: Sequence[tuple[ScoredSample, Label]]) -> Tables:
    """Return the rows of all samples, as an export collects them."""
    collected: dict[str, list[list[float]]] = {}
    for number, (view, label) in enumerate(samples):
        for name, rows in SCORES[task].rows(view, label).items():
            collected.setdefault(name, []).extend([number, *row] for row in rows)
    return {name: np.array(rows, float) if rows else np.zeros((0, 16)) for name, rows in collected.items()}


def measured(
    task: TaskName, samples: Sequence[tuple[ScoredSample, Label]], weights: Array | None = None
) -> Mapping[str, float]:
    measures = SCORES[task].measures(tables(task, samples), len(samples))
    return measures(np.ones(len(samples)) if weights is None else weights)


def view(*outputs: Array, names: Sequence[str] = ("y",), size: tuple[int, int] = (64, 64)) -> ScoredSample:
    return ScoredSample(names, outputs, size)


# Boxes: pycocotools decides.


def scene(seed: int, images: int = 12) -> list[tuple[ScoredSample, Label]]:
    """Make detections near, far from and on top of each other, of three classes, and some crowds."""
    generator = np.random.default_rng(seed)
    samples: list[tuple[ScoredSample, Label]] = []
    for _ in range(images):
        count = int(generator.integers(0, 6))
        corners = generator.uniform(0, 40, (count, 2))
        boxes = np.concatenate([corners, corners + generator.uniform(4, 24, (count, 2))], axis=1)
        label: Label = {
            "boxes": boxes,
            "classes": generator.integers(0, 3, count),
            "ignored": generator.random(count) < 0.2,
        }
        near = boxes.repeat(2, axis=0) + generator.normal(0, 1.5, (2 * count, 4))
        stray = generator.uniform(0, 30, (3, 2))
        given = np.concatenate([near, np.concatenate([stray, stray + 20], axis=1)])
        classes = np.concatenate([label["classes"].repeat(2), generator.integers(0, 3, 3)])
        scores = generator.random(len(given))
        samples.append((view(given, scores, classes, names=("boxes", "scores", "labels")), label))
    return samples


def by_pycocotools(samples: Sequence[tuple[ScoredSample, Label]]) -> tuple[float, float]:
    """Return mAP@0.5:0.95 and mAP@0.5 as COCO's own program computes them."""
    annotations: list[dict[str, object]] = []
    results: list[dict[str, object]] = []
    for number, (seen, label) in enumerate(samples):
        for box, kind, crowd in zip(label["boxes"], label["classes"], label["ignored"], strict=True):
            x, y, right, bottom = map(float, box)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": int(kind),
                 "bbox": [x, y, right - x, bottom - y], "area": (right - x) * (bottom - y),
                 "iscrowd": int(crowd)}
            )  # fmt: skip
        for box, score, kind in zip(*seen.outputs, strict=True):
            x, y, right, bottom = map(float, box)
            results.append(
                {"image_id": number, "category_id": int(kind), "bbox": [x, y, right - x, bottom - y],
                 "score": float(score)}
            )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": number} for number in range(len(samples))],
            "annotations": annotations,
            "categories": [{"id": kind} for kind in range(3)],
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_is_that_of_pycocotools(seed: int) -> None:
    """Duplicates, strays, missed objects and crowds count as in COCO's own program."""
    samples = scene(seed)
    own = measured("boxes", samples)
    assert tuple(own.values()) == pytest.approx(by_pycocotools(samples), abs=1e-9)
    assert 0.05 < own["mAP@0.5:0.95"] < own["mAP@0.5"] < 1


def test_a_sample_that_is_drawn_twice_counts_twice() -> None:
    """Weights are the same as repeated images."""
    samples = scene(3)
    weights = np.arange(len(samples)) % 3
    repeated = [sample for sample, times in zip(samples, weights, strict=True) for _ in range(times)]
    drawn = measured("boxes", samples, weights.astype(float))
    assert drawn == pytest.approx(measured("boxes", repeated), abs=0.02)  # equal scores may change places


TRUTH = {"boxes": np.array([[8.0, 8, 24, 24]]), "classes": np.array([1]), "ignored": np.zeros(1, bool)}
PAIR = ("boxes", "scores")
FORMS: dict[str, ScoredSample] = {
    "corners in pixels": view(np.array([[8.0, 8, 24, 24]]), np.array([[0.1, 0.9]]), names=PAIR),
    "centre and size, as shares": view(
        np.array([[16.0, 16, 16, 16], [60.0, 60, 3, 3]]) / 64,
        np.array([[0.1, 0.9], [0.2, 0.1]]),
        names=PAIR,
    ),
    "scores without softmax": view(np.array([[8.0, 8, 24, 24]]), np.array([[-3.0, 5.0]]), names=PAIR),
    "one raw tensor": view(
        np.array([[[16.0, 16.5, 50, 2, 2], [16, 16, 50, 2, 2], [16, 16, 4, 1, 1], [16, 16, 4, 1, 1],
                   [0, 0, 0, 0, 0], [0.9, 0.8, 0, 0, 0]]])
        .repeat(2, axis=2)
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_detectors_outputs_are_read_in_their_usual_forms(form: str) -> None:
    """The right box of the right class is found; a copy that overlaps it is suppressed in raw outputs."""
    assert measured("boxes", [(FORMS[form], TRUTH)])["mAP@0.5:0.95"] == pytest.approx(1.0)


def test_boxes_of_another_class_find_nothing() -> None:
    """A class counts as much as a place."""
    other = view(np.array([[8.0, 8, 24, 24]]), np.array([[0.9, 0.1]]), names=PAIR)
    assert measured("boxes", [(other, TRUTH)])["mAP@0.5"] == 0


# Masks.


def test_miou_is_the_mean_of_jaccard_scores() -> None:
    """scikit-learn counts the same over all pixels; pixels of 255 do not count."""
    generator = np.random.default_rng(0)
    scores = generator.random((5, 1, 3, 12, 12))
    masks = generator.integers(0, 3, (5, 12, 12))
    masks[:, :2] = 255
    own = measured("masks", [(view(s), {"mask": m}) for s, m in zip(scores, masks, strict=True)])
    predicted = scores[:, 0].argmax(axis=1)
    counts = masks != 255
    assert own["mIoU"] == pytest.approx(jaccard_score(masks[counts], predicted[counts], average="macro"))


def test_a_mask_of_another_resolution_is_compared_at_the_outputs() -> None:
    """Half the resolution, one score a pixel: half of the pixels are inside, as in the label."""
    mask = np.zeros((8, 8), np.int64)
    mask[:, 4:] = 1
    logits = np.where(np.arange(4) >= 2, 3.0, -3.0)[None, None, None].repeat(4, axis=2)
    assert measured("masks", [(view(logits), {"mask": mask})])["mIoU"] == 1.0


# Keypoints.


def test_pck_and_oks_follow_their_definitions() -> None:
    """One of two visible points is within 5 % of 100 pixels; the similarity is exp(-d² / 8 σ² area)."""
    label = {
        "points": np.array([[10.0, 10, 2], [50, 50, 1], [0, 0, 0]]),
        "area": np.array(10000.0),
        "extent": np.array(100.0),
    }
    given = np.array([[[14.0, 10], [50, 60], [99, 99]]])
    own = measured("keypoints", [(view(given, names=("keypoints",)), label)])
    assert own["PCK@0.05"] == 0.5
    similar = [np.exp(-(d**2) / (2 * 10000 * (2 * 0.05) ** 2)) for d in (4.0, 10.0)]
    assert own["OKS"] == pytest.approx(np.mean(similar))


def test_heatmaps_and_shares_of_the_input_are_points_too() -> None:
    """The peak of a 16x16 map of a 64x64 input is four pixels per cell; x comes first."""
    label = {"points": np.array([[40.0, 8, 2]]), "area": np.array(400.0), "extent": np.array(20.0)}
    heatmap = np.zeros((1, 1, 16, 16))
    heatmap[0, 0, 2, 10] = 1
    share = np.array([[[40 / 64, 8 / 64]]])
    for outputs in (heatmap, share):
        assert measured("keypoints", [(view(outputs), label)])["PCK@0.05"] == 1.0


# Sequences.


def test_cer_counts_edits_after_ctc_joined_the_steps() -> None:
    """Steps 1 1 0 2 2 give 1 2; the label is 1 3 2: one token of three is missing."""
    steps = np.eye(4)[[1, 1, 0, 2, 2]][None]
    label = {"tokens": np.array([1, 3, 2]), "aligned": np.array(False)}
    own = measured("sequences", [(view(steps), label), (view(steps), label | {"tokens": np.array([1, 2])})])
    assert own == pytest.approx({"CER": 1 / 5, "whole sequences": 0.5})


@pytest.mark.parametrize(
    ("given", "wanted", "edits"),
    [
        ("", "", 0),
        ("kitten", "sitting", 3),
        ("abc", "", 3),
        ("", "ab", 2),
        ("flaw", "lawn", 2),
        ("ab", "ba", 2),
    ],
)
def test_edits_are_levenshteins(given: str, wanted: str, edits: int) -> None:
    """Additions, removals and replacements count one each."""
    from exporter.verify.scores import scored_sequences

    assert scored_sequences.scored_sequence_edits([*map(ord, given)], [*map(ord, wanted)]) == edits


def test_labels_as_long_as_the_output_are_compared_in_place() -> None:
    """Tokens that CTC would join stay apart; the blank is a token like others."""
    steps = np.eye(3)[[1, 1, 0, 2]][None]
    label = {"tokens": np.array([1, 1, 0, 1]), "aligned": np.array(True)}
    assert measured("sequences", [(view(steps), label)]) == {"token accuracy": 0.75, "whole sequences": 0.0}


# Regression, images, embeddings.


def test_r2_and_mae_are_those_of_scikit_learn() -> None:
    """Both are averages over the numbers; weights repeat samples."""
    generator = np.random.default_rng(1)
    wanted = generator.normal(3, 2, (30, 2))
    given = wanted + generator.normal(0, 0.5, wanted.shape)
    samples = [(view(g[None]), {"numbers": w}) for g, w in zip(given, wanted, strict=True)]
    weights = generator.integers(0, 3, 30).astype(float)
    own = measured("regression", samples, weights)
    assert own["R2"] == pytest.approx(r2_score(wanted, given, sample_weight=weights))
    assert own["MAE"] == pytest.approx(mean_absolute_error(wanted, given, sample_weight=weights))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_psnr_is_that_of_the_output_brought_to_its_range(low: float, high: float) -> None:
    """An error of a tenth of the range everywhere is 20 dB, in whichever range the network writes pixels."""
    target = np.linspace(0.1, 0.8, 48).reshape(3, 4, 4)
    given = (target + 0.1) * (high - low) + low
    assert measured("images", [(view(given[None]), {"image": target})])["PSNR"] == pytest.approx(20.0)


def test_recall_asks_for_the_nearest_other_sample() -> None:
    """The direction counts, not the length; a class of a single sample asks nothing."""
    vectors = {0: [[1.0, 0], [0.9, 0.1]], 1: [[0.0, 5], [0.2, 3]], 2: [[-1.0, 0]]}
    samples = [(view(np.array([v])), {"class": np.array(k)}) for k, own in vectors.items() for v in own]
    assert measured("embeddings", samples)["recall@1"] == 1.0
    samples[1] = (view(np.array([[0.1, 4.0]])), {"class": np.array(0)})
    assert measured("embeddings", samples)["recall@1"] == 0.0


def test_pairs_are_ranked_as_spearman_does() -> None:
    """Scipy gives the same number, with equal similarities among them."""
    from scipy.stats import spearmanr

    generator = np.random.default_rng(2)
    vectors = generator.normal(size=(9, 8))
    wanted = np.round(generator.random(8), 1)
    samples = [
        (view(vectors[i][None]), {"class": np.array(-1), "pairs": np.array([[8, wanted[i]]] if i < 8 else [])
                                  .reshape(-1, 2)})
        for i in range(9)
    ]  # fmt: skip
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = spearmanr(unit[:8] @ unit[8], wanted).statistic
    assert measured("embeddings", samples)["rank agreement"] == pytest.approx(expected)


@pytest.mark.parametrize("task", ["regression", "images", "keypoints"])
def test_outputs_that_are_not_the_tasks_are_named(task: TaskName) -> None:
    """A label of another size is an error, and never a measure."""
    label: Label = {
        "numbers": np.zeros(3),
        "image": np.zeros((3, 4, 4)),
        "points": np.ones((5, 3)),
        "extent": np.array(1.0),
        "area": np.array(1.0),
    }
    with pytest.raises(ValueError, match=r"shape|gives"):
        SCORES[task].rows(view(np.zeros((1, 2, 2, 2))), label)


@pytest.mark.parametrize("seed", range(5))
def test_suppression_keeps_the_surest_of_each_class(seed: int) -> None:
    """What is kept equals a search over all pairs; of equal scores the first comes first."""
    generator = np.random.default_rng(seed)
    corners = generator.integers(0, 6, (40, 2)).astype(float)
    corners = np.concatenate([corners, corners + generator.integers(5, 9, (40, 2))], axis=1)
    scores, classes = generator.integers(1, 8, 40) / 8, generator.integers(0, 2, 40)
    expected: list[int] = []
    for i in sorted(range(40), key=lambda number: (-scores[number], number)):
        overlaps = [
            overlap_of_boxes_in_task(corners[[i]], corners[[j]])[0, 0]
            for j in expected
            if classes[i] == classes[j]
        ]
        if all(overlap <= scored_boxes.SUPPRESSED for overlap in overlaps):
            expected.append(i)
    assert scored_boxes._suppress_scored_boxes(corners, scores, classes).tolist() == expected


def test_a_box_that_overlaps_by_the_limit_itself_stays() -> None:
    """Seven tenths are shared; a little more is too much, but not with a box of another class."""
    corners = np.array([[0.0, 0, 10, 10], [0, 0, 7, 10], [0, 0, 7.1, 10], [0, 0, 10, 10]])
    scores, classes = np.array([3.0, 2, 1, 0]), np.array([0, 0, 0, 1])
    assert scored_boxes._suppress_scored_boxes(corners, scores, classes).tolist() == [0, 1, 3]


def test_empty_corners_are_no_centres() -> None:
    """Padding of zeros has no size; it does not turn corners into centres and sizes."""
    given = np.zeros((50, 4))
    given[0] = [8, 8, 24, 24]
    scores = np.zeros((50, 2))
    scores[0] = [0.1, 0.9]
    read, values, classes = scored_boxes.scored_boxes(view(given, scores, names=PAIR))
    assert read[0].tolist() == [8, 8, 24, 24]
    assert values[0] == 0.9
    assert classes[0] == 1


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (np.array([[2.0, 8, 32, 16]]), [[2, 8], [32, 16]]),
        (np.array([[[2.0, 8], [32, 16]]]), [[2, 8], [32, 16]]),
        (np.array([[[2.0, 8, 0.9], [32, 16, 0.8]]]), [[2, 8], [32, 16]]),
        (np.array([[0.5, 0.25, 1.0, 2.0]]), [[32, 16], [64, 128]]),
        (np.array([[0.5, 0.25, 1.0, 2.1]]), [[0.5, 0.25], [1.0, 2.1]]),
    ],
)
def test_points_are_read_in_their_usual_forms(output: Array, expected: list[list[float]]) -> None:
    """Lists of numbers, pairs and triples; up to two they are shares of the input's sides."""
    assert scored_keypoints.scored_keypoints(view(output)).tolist() == expected


@pytest.mark.parametrize(
    ("values", "inside"),
    [
        ([0.0, 0.5, 0.6, 1.0], [0, 0, 1, 1]),
        ([-1.0, 0.0, 0.1, 0.6], [0, 0, 1, 1]),
        ([0, 1, 2, 3], [0, 1, 2, 3]),
    ],
)
def test_a_single_score_a_pixel_is_a_mask(values: list[float], inside: list[int]) -> None:
    """Probabilities are inside above a half, others above zero; whole numbers are classes themselves."""
    mask = scored_masks.scored_mask_classes(view(np.array(values).reshape(1, 1, 2, 2)))
    assert mask.reshape(-1).tolist() == inside


def test_an_output_that_is_named_a_mask_is_the_mask() -> None:
    """An output before it that could be a map is passed over; one of too few dimensions is no mask."""
    first, mask = np.zeros((1, 2, 2), np.int64), np.array([[[1, 2], [3, 4]]])
    assert (
        scored_masks.scored_mask_classes(view(first, mask, names=("ids", "mask"))).tolist()
        == mask[0].tolist()
    )
    flat = np.arange(3)
    assert (
        scored_masks.scored_mask_classes(view(flat, mask, names=("mask", "ids"))).tolist() == mask[0].tolist()
    )


def test_logits_of_boxes_become_probabilities_box_by_box() -> None:
    """A box whose logits are all far below another's keeps its own most likely class."""
    corners = np.array([[0.0, 0, 8, 8], [8, 8, 16, 16]])
    logits = np.array([[900.0, 900, 0], [-900, -901, -1900]])
    _, scores, classes = scored_boxes._scored_box_pair(view(corners, logits, names=("boxes", "scores")), 0, 1)
    assert scores == pytest.approx([0.5, 1 / (1 + np.exp(-1))])
    assert classes.tolist() == [0, 0]
