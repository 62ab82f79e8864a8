"""What an artifact lost against float32 on labelled samples, and when that is too much."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from exporter.errors import CalibrationError
from exporter.records import Array, Score, TaskAccuracy, TaskName
from exporter.verify import labelled_loss
from exporter.verify.scores import compare_scores
from exporter.verify.scores.compare_scores import Scored


def numbers(given: Array, wanted: Array) -> Scored:
    rows = np.stack([np.arange(len(given)), given, wanted], axis=1)
    return Scored(len(given), {"numbers": rows})


def compared(noise: float, count: int = 200) -> TaskAccuracy:
    generator = np.random.default_rng(0)
    wanted = generator.normal(size=count)
    floats = wanted + generator.normal(0, 0.1, count)
    own = floats + generator.normal(0, noise, count)
    return compare_scores.compare_scores("regression", numbers(floats, wanted), {"a": numbers(own, wanted)})[
        "a"
    ]


def test_the_same_answers_lose_nothing() -> None:
    """The interval of no difference is empty: both are scored on the same draws."""
    for score in compared(0.0).scores:
        assert (score.lost, score.interval) == (0.0, (0.0, 0.0))


def test_the_loss_is_in_points_and_lies_in_its_interval() -> None:
    """R² falls by about 25 points when noise of half the spread is added; MAE is in its own numbers."""
    first, second = compared(0.5).scores
    assert first.name == "R2"
    assert first.interval[0] < first.lost < first.interval[1]
    assert 15 < first.lost < 35
    assert first.interval[1] - first.interval[0] < 25
    assert 0.2 < second.lost < 0.5


def test_the_interval_covers_the_true_loss_as_often_as_it_says() -> None:
    """At least 33 of 40 evaluations of one pair of models hold the loss over all samples."""
    generator = np.random.default_rng(1)
    wanted = generator.normal(size=40 * 80)
    floats, own = (wanted + generator.normal(0, s, len(wanted)) for s in (0.3, 0.4))
    whole = compare_scores.compare_scores("regression", numbers(floats, wanted), {"a": numbers(own, wanted)})[
        "a"
    ].scores[0]
    held = 0
    for part in np.split(np.arange(len(wanted)), 40):
        pair = numbers(floats[part], wanted[part]), numbers(own[part], wanted[part])
        low, high = (
            compare_scores.compare_scores("regression", pair[0], {"a": pair[1]})["a"].scores[0].interval
        )
        held += low <= whole.lost <= high
    assert held >= 33


def hits(shares: Mapping[str, float]) -> dict[str, Scored]:
    """Make rows of sequences whose error rates are the given ones."""
    return {
        name: Scored(20, {"joined": np.array([[i, share * 10, 10, 0, 0] for i in range(20)])})
        for name, share in shares.items()
    }


def test_a_larger_error_rate_is_a_loss() -> None:
    """A measure whose smaller values are better loses by growing."""
    scored = hits({"float32": 0.1, "worse": 0.4})
    lost = compare_scores.compare_scores("sequences", scored["float32"], scored)["worse"].scores[0]
    assert lost.name == "CER"
    assert lost.lost == pytest.approx(30.0)


@pytest.mark.parametrize(("lost", "fails"), [(-3.0, False), (1.0, False), (1.01, True), (float("nan"), True)])
def test_the_measured_loss_decides(lost: float, fails: bool) -> None:
    """A figure that is not a number fails as well."""
    score = Score("mIoU", 0.7 if lost == lost else lost, lost, (0.0, 2.0))
    reason = labelled_loss.labelled_loss_reason(TaskAccuracy(50, (score,)), 1.0)
    assert bool(reason) is fails
    if lost == 1.01:
        assert reason == (
            "Its mIoU is 0.7, 1.01 points worse than float32's on 50 labelled samples (95 % interval 0 to 2)"
            "; 1 may be lost."
        )


def test_a_limit_within_the_interval_is_said() -> None:
    """More samples might decide otherwise; a limit outside is certain."""
    accuracy = TaskAccuracy(50, (Score("PSNR", 30.0, 0.9, (0.5, 1.5)),))
    assert "50 labelled samples cannot tell" in labelled_loss.labelled_loss_doubt({"a": accuracy}, 1.0)
    assert "dB of PSNR" in labelled_loss.labelled_loss_doubt({"a": accuracy}, 1.0)
    assert (
        labelled_loss.labelled_loss_doubt({"a": accuracy}, 2.0)
        == labelled_loss.labelled_loss_doubt({"a": accuracy}, 0.4)
        == ""
    )


def test_a_loss_within_the_limit_must_be_proven() -> None:
    """The upper bound decides; what is over the limit has failed and needs no doubt."""
    accuracy = TaskAccuracy(50, (Score("PSNR", 30.0, 0.9, (0.5, 1.5)),))
    assert labelled_loss.unproven_labelled_loss(accuracy, 1.0) == (
        "50 labelled samples cannot decide: it loses 0.9 dB of PSNR (95 % interval 0.5 to 1.5); "
        "1 may be lost. About 1201 more labelled samples like these would decide."
    )
    assert (
        labelled_loss.unproven_labelled_loss(accuracy, 1.5)
        == labelled_loss.unproven_labelled_loss(accuracy, 0.5)
        == ""
    )


CHANCE: dict[TaskName, Score] = {
    "boxes": Score("mAP@0.5:0.95", 0.001),
    "masks": Score("mIoU", float("nan")),
    "sequences": Score("CER", 1.0),
    "regression": Score("R2", -0.2),
    "images": Score("PSNR", 4.0),
}


@pytest.mark.parametrize("task", CHANCE)
def test_labels_that_float32_itself_does_not_meet_are_refused(task: TaskName) -> None:
    """Every artifact would pass with nothing to lose."""
    with pytest.raises(CalibrationError, match="no better than chance") as caught:
        compare_scores.check_reference_scores(task, TaskAccuracy(50, (CHANCE[task],)))
    assert caught.value.code == "EM-LABELS"
    compare_scores.check_reference_scores("sequences", TaskAccuracy(50, (Score("CER", 0.9),)))
    compare_scores.check_reference_scores("regression", TaskAccuracy(50, (Score("R2", 0.1),)))


def test_a_few_samples_are_refused() -> None:
    """Ten is the least."""
    compare_scores.check_enough_scores(10)
    with pytest.raises(CalibrationError, match="9 labelled") as caught:
        compare_scores.check_enough_scores(9)
    assert caught.value.code == "EM-FEW-SAMPLES"


def test_every_measure_of_every_task_is_explained() -> None:
    """The gate and the manifest know the unit of each."""
    from tests.verify.scores import test_scores as scores

    boxes = scores.measured("boxes", [(scores.FORMS["corners in pixels"], scores.TRUTH)])
    assert set(boxes) <= set(compare_scores.MEASURES)
    assert {s.name for s in compared(0.1).scores} <= set(compare_scores.MEASURES)
