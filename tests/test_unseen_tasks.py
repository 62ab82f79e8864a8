"""Tests of the benchmark of five trained networks: what it calibrates on, and its tasks' measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import unseen_networks, unseen_samples, unseen_tasks
from benchmarks.unseen_networks import HELD_OUT, NETWORKS
from benchmarks.unseen_scenes import Draw, Judged
from exporter.data import demo
from exporter.records import Array

SAMPLE = (np.zeros((1, 2), np.float32),)


@pytest.mark.parametrize(("samples", "count"), [(20, 5), (200, 16), (79, 78)])
def test_a_draw_shares_no_sample_with_what_is_judged(samples: int, count: int) -> None:
    """Calibration gets as many as were asked for, and others judge."""
    calibrating, judged = unseen_tasks.draw_samples([SAMPLE] * samples, 3, count)
    assert len(calibrating) == count
    assert len(judged) == min(samples - count, unseen_tasks.MOST_JUDGED)
    assert not set(calibrating) & set(judged)


def test_some_scenes_must_stay_unseen() -> None:
    """All samples cannot calibrate."""
    with pytest.raises(SystemExit, match="there are 5"):
        unseen_tasks.draw_samples([SAMPLE] * 5, 0, 5)


def test_outputs_of_different_size_count_alike() -> None:
    """An output of thousands and one of thousandths, each off by a tenth, are at 20 dB together."""
    expected = (1000 + np.arange(6.0).reshape(3, 2), 0.001 * np.ones((3, 4)), np.eye(3))
    errors = unseen_tasks.judge_outputs(
        NETWORKS["mtcnn"], expected, tuple(1.1 * e for e in expected), (4, 5, 6)
    )
    assert set(errors) == {4, 5, 6}
    db = 10 * np.log10(sum(e.signal for e in errors.values()) / sum(e.noise for e in errors.values()))
    assert db == pytest.approx(20.0)


def steps_of(text: str) -> Array:
    """Return scores that read as the text: a blank, 0, before each character, and each for two steps."""
    characters = [c for letter in text for c in (0, ord(letter) - 96, ord(letter) - 96)]
    steps: Array = np.eye(30)[np.array([*characters, *[0] * (40 - len(characters))])]
    return steps


@pytest.mark.parametrize(
    ("text", "other", "same"),
    [("ball", "ball", 4), ("ball", "bal", 3), ("ball", "bowl", 2), ("ab", "xyzxyz", 0)],
)
def test_characters_less_the_edits(text: str, other: str, same: int) -> None:
    """Repeated steps are one character, blanks part double ones, and edits are counted."""
    answers = unseen_networks.same_characters((steps_of(text)[None],), (steps_of(other)[None],))
    assert answers == [(same, len(text))]


def words_at(*places: int) -> Array:
    scores = np.zeros((20, 60, 2), np.float32)
    for place in places:
        scores[5:10, place : place + 8, 0] = 1
    return scores


@pytest.mark.parametrize(
    ("places", "answer"), [((2, 20, 40), (6, 6)), ((3, 20), (4, 5)), ((2, 28, 40), (4, 6)), ((), (0, 3))]
)
def test_words_are_the_same_where_they_overlap_by_half(
    places: tuple[int, ...], answer: tuple[float, float]
) -> None:
    """A word that is a little shifted is found; one elsewhere or missing is not."""
    answers = unseen_networks.same_words((words_at(2, 20, 40)[None],), (words_at(*places)[None],))
    assert answers == [answer]


def test_the_nearest_text_is_another() -> None:
    """A text is not its own neighbour; two files agree where the neighbour is the same."""
    expected = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]])
    actual = np.array([[1, 0], [0.9, 0.1], [0.9, 0.2], [0.1, 0.9]])
    assert [same for same, _ in unseen_networks.same_nearest((expected,), (actual,))] == [1, 0, 0, 1]


def test_faces_are_judged_by_the_score() -> None:
    """O-Net's last output says whether a picture is a face."""
    expected, actual = (
        np.array([[1 - p, p] for p in scores]) for scores in ((0.9, 0.1, 0.8), (0.8, 0.2, 0.6))
    )
    assert [same for same, _ in unseen_networks.same_faces((expected,), (actual,))] == [1, 1, 0]


def test_wins_ties_and_losses_are_counted_by_draws() -> None:
    """Equal answers are no loss."""
    ours, other = (
        [
            Draw(n, 1.0, 10, 1.0, {0: Judged(noise, 100.0, same, 4)}, {})
            for n, (noise, same) in enumerate(pairs)
        ]
        for pairs in ([(1.0, 4), (3.0, 3), (1.0, 2)], [(2.0, 4), (2.0, 2), (2.0, 3)])
    )
    rows = unseen_tasks.rows_of_network(
        NETWORKS["craft"], {unseen_tasks.OURS: ours, "other": other, "none": []}
    )
    columns = [unseen_tasks.HEADINGS.index(name) for name in ("ours, dB", "ours, task")]
    assert [[row[c] for c in columns] for row in rows] == [["", ""], ["2 : 0 : 1", "1 : 1 : 1"], ["-", "-"]]


def test_samples_are_of_different_scenes(tmp_path: Path) -> None:
    """Rendered words and signs have the networks' shapes, and no two are alike."""
    for number, photo in enumerate(demo.demo_photos()[:4]):
        (tmp_path / f"{number}.jpg").write_bytes(photo.read_bytes())
    for samples, shape in (
        (unseen_samples.sign_samples(tmp_path), (1, 3, 112, 224)),
        (unseen_samples.word_samples(tmp_path), (1, 1, 64, 256)),
        (unseen_samples.photo_samples(tmp_path), (1, 3, 224, 224)),
    ):
        assert [sample[0].shape for sample in samples] == [shape] * 4
        assert len({sample[0].tobytes() for sample in samples}) == 4
    faces = unseen_samples.face_samples()
    assert (len(faces), faces[0][0].shape) == (200, (1, 3, 48, 48))


def test_two_networks_are_held_out() -> None:
    """The networks that judge a change of the recipe last were drawn, not chosen."""
    assert len(HELD_OUT) == 2
    assert set(HELD_OUT) < set(NETWORKS)
