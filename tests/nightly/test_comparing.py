"""`exporter.nightly.comparing`: which figures of an artifact are told as changed since the night before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exporter.nightly import comparing
from exporter.records import Accuracy, Artifact
from tests.nightly.lab import ARTIFACT
from tests.report import sample


def artifact(db: float = 22.0, agreement: float = 0.97, size: int = 4_000_000, right: int = 900) -> Artifact:
    (base,) = (a for a in sample.artifacts() if a.variant.name == ARTIFACT)
    assert base.verdict
    assert base.verdict.comparison
    compared = replace(base.verdict.comparison, sqnr_db=db, agreement=agreement)
    return replace(
        base,
        size_bytes=size,
        verdict=replace(base.verdict, comparison=compared),
        accuracy=Accuracy(count=1000, right=right, right5=None),
    )


@pytest.mark.parametrize(
    ("figure", "little", "much", "better", "words"),
    [
        ("db", 21.1, 20.9, 23.1, "20.9 dB SQNR, 22.0 dB before"),
        ("agreement", 0.951, 0.949, 1.0, "94.9 % agreement, 97.0 % before"),
        ("size", 4_030_000, 4_050_000, 3_900_000, "4.05 MB, 4.00 MB before"),
        ("right", 891, 889, 911, "88.9 % accuracy, 90.0 % before"),
    ],
)
def test_more_than_a_session_may_lose_is_told(
    figure: str, little: float, much: float, better: float, words: str
) -> None:
    """Changes beyond a session's limits are reported with both figures, improvements too."""
    before = artifact()
    changed = [artifact(**{figure: value}) for value in (little, much, better)]  # type: ignore[arg-type]
    none, (worse,), (gain,) = (list(comparing._compare_night_artifacts(before, after)) for after in changed)
    assert none == []
    assert worse == (words, True)
    assert not gain[1]


def test_accuracy_on_other_samples_is_not_compared() -> None:
    """Accuracy on another number of photos is not compared."""
    before, after = artifact(), artifact(right=100)
    other = replace(after, accuracy=Accuracy(count=200, right=100, right5=None))
    assert list(comparing._compare_night_artifacts(before, other)) == []
