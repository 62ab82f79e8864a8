"""Tests of the benchmark on unseen scenes: what it calibrates on, and how it counts."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import unseen_scenes
from benchmarks.unseen_scenes import VIEWS, Judged, Views


def views(scenes: int, photos: int = 1) -> Views:
    """Return views whose only pixel is the number of their scene."""
    owner = tuple(scene for scene in range(scenes) for _ in range(photos * VIEWS))
    return Views(np.array(owner, dtype=np.float32).reshape(-1, 1, 1, 1), owner)


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("photos", [1, 3])
def test_a_draw_shares_no_scene_with_what_is_judged(number: int, photos: int) -> None:
    """All views of the drawn scenes calibrate; every other scene is judged on, and none is both."""
    calibration, unseen = unseen_scenes.draw(views(12, photos), number, 5)
    assert len(calibration.images) == 5 * photos * VIEWS
    assert set(calibration.scene) | set(unseen.scene) == set(range(12))
    assert not set(calibration.scene) & set(unseen.scene)
    assert not set(calibration.images.ravel()) & set(unseen.images.ravel())


def test_draws_differ() -> None:
    """Another draw takes other scenes, and the same draw the same."""
    first, again, second = (unseen_scenes.draw(views(20), number, 8)[0].scene for number in (0, 0, 1))
    assert first == again
    assert first != second


def test_all_scenes_cannot_be_drawn() -> None:
    """A folder must have scenes to judge on."""
    with pytest.raises(SystemExit, match="8 scenes"):
        unseen_scenes.draw(views(8), 0, 8)


def test_errors_are_of_scenes() -> None:
    """Energies and equal classes are summed over the views of a scene."""
    expected = np.array([[3.0, 0.0], [0.0, 4.0], [1.0, 0.0]])
    actual = np.array([[3.0, 1.0], [5.0, 4.0], [1.0, 0.0]])
    errors = unseen_scenes.judge(expected, actual, (7, 7, 9))
    assert errors == {7: errors[7], 9: errors[9]}
    assert [errors[7].noise, errors[7].signal, errors[7].same, errors[7].views] == [26.0, 25.0, 1, 2]
    assert unseen_scenes.figures([errors[7]]) == pytest.approx((10 * np.log10(25 / 26), 50.0))


def test_views_of_one_scene_are_one_witness() -> None:
    """The interval is as wide with fifty views of a scene as with one, and narrows with scenes."""
    widths = []
    for scenes, each in ((8, 1), (8, 50), (32, 1)):
        errors = {n: Judged(float(1 + n % 2), 100.0, (n % 2) * each, each) for n in range(scenes)}
        _, (low, high) = unseen_scenes.interval([errors])
        widths.append(high - low)
    assert widths[0] == widths[1] > 1.5 * widths[2]


def test_wins_are_counted_by_draws() -> None:
    """Our first file wins a draw by more dB."""
    ours = [{0: Judged(noise, 100.0, 1, 1)} for noise in (1.0, 3.0, 1.0)]
    other = [{0: Judged(2.0, 100.0, 1, 1)}] * 3
    column = unseen_scenes.HEADINGS.index("ours wins : loses")
    assert unseen_scenes.row("other", other, ours)[column] == "2 : 1"
    assert set(unseen_scenes.row("ours", ours, ours)[column:]) == {""}


def test_a_lead_is_judged_in_pairs() -> None:
    """What a scene costs both files does not widen the interval of their difference."""
    hardness = np.random.default_rng(1).uniform(0.1, 10.0, 40)
    ours, theirs = (
        [{n: Judged(factor * hard, 100.0, 1, 2) for n, hard in enumerate(hardness)}] for factor in (1.0, 2.0)
    )
    (lead, low, high), points = unseen_scenes.leads(ours, theirs)
    (least, most), _ = unseen_scenes.interval(ours)
    assert [lead, low, high] == pytest.approx([10 * np.log10(2)] * 3)
    assert most - least > 1.0
    assert points == (0.0, 0.0, 0.0)


def test_a_lead_by_chance_has_an_interval_around_none() -> None:
    """A file that answers other scenes rightly leads by nothing that is certain."""
    ours, theirs = ([{n: Judged(1.0, 100.0, (n + odd) % 2, 1) for n in range(21)}] for odd in (0, 1))
    _, (lead, low, high) = unseen_scenes.leads(ours, theirs)
    assert low < 0 < high
    assert lead == pytest.approx(100 * (10 - 11) / 21)
