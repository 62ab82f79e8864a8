"""Tests of `exporter.nightly.night_judging`: the verdicts on tonight's sessions, by a real history."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from android_harness import history
from android_harness.history.store import History
from exporter.nightly import night_judging
from exporter.nightly.night_judging import JudgedCell
from exporter.nightly.night_measuring import Measurements
from exporter.nightly.records import Cell
from tests.history.stored import ONE, night

CELL: Cell = ("mobilenet_v2", "snapdragon865", "onnx-int8", "R5CR30ABCDE")
OTHER: Cell = ("mobilenet_v2", "snapdragon865", "ort-int8", "R5CR30ABCDE")
USUAL: dict[str, Any] = {"artifact": "onnx-int8", "precision": "int8", "p50_ms": 8.0, "p90_ms": 8.1}
TONIGHT = "night-7"


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """Open a history of seven nights at 8 ms."""
    with history.open_history(tmp_path_factory.mktemp("history") / "history.sqlite") as opened:
        for number in range(7):
            opened.add(night(number, **USUAL))
        yield opened


def tonight(*sessions: dict[str, Any], cell: Cell = CELL) -> Measurements:
    """Return tonight's measurements: one session, or two where it was measured again."""
    measurements = Measurements()
    for number, changes in enumerate(sessions):
        measurements.add(cell, night(7 + number, run=TONIGHT, **USUAL | changes))
    return measurements


def judged(memory: History, *sessions: dict[str, Any]) -> JudgedCell:
    (verdict,) = night_judging.judge_night(memory, tonight(*sessions)).values()
    return verdict


SLOW = {"p50_ms": 12.0}
FLAGGED = {"flags": ("thermal: status 1 after the run",)}


@pytest.mark.parametrize(
    ("sessions", "status", "count"),
    [
        (({},), "steady", 0),
        ((SLOW,), "suspected", 0),
        ((SLOW, SLOW), "confirmed", 1),
        ((SLOW, {}), "refuted", 0),
    ],
)
def test_only_what_was_slower_twice_is_a_regression(
    memory: History, sessions: tuple[dict[str, Any], ...], status: str, count: int
) -> None:
    """A suspicion alone is no regression."""
    verdict = judged(memory, *sessions)
    assert (verdict.judgement.status, len(verdict.regressions)) == (status, count)
    assert verdict.suspected == (status == "suspected")


@pytest.mark.parametrize(
    ("again", "status"),
    [(None, "suspected"), ({}, "refuted"), ({"p50_ms": 12.0}, "confirmed"), (FLAGGED | SLOW, "suspected")],
)
def test_what_was_slower_and_unstable_is_measured_again(
    memory: History, again: dict[str, Any] | None, status: str
) -> None:
    """A flag does not hide a slowdown: a second session decides."""
    measurements = tonight(SLOW | FLAGGED, *([again] if again is not None else []))
    verdicts = night_judging.judge_night(memory, measurements)
    assert verdicts[CELL].judgement.status == status
    wanted = {CELL} if again is None else set()
    assert night_judging.suspects_for_night_judging_again(verdicts, measurements) == wanted


def test_what_was_unstable_and_not_slower_stays_so(memory: History) -> None:
    """An unstable session at the usual speed is no suspicion."""
    assert judged(memory, FLAGGED).judgement.status == "unstable"


def test_what_else_changed_is_told_of_a_regression_only(memory: History) -> None:
    """A new runner is no cause where there is no regression."""
    new = {"source_sha256": "2" * 64}
    regressed = judged(memory, SLOW | new, SLOW | new)
    assert [cause.kind for cause in regressed.causes] == ["model"]
    assert "The checkpoint went from" in regressed.words
    assert judged(memory, new).causes == ()


@pytest.mark.parametrize(
    ("changes", "regressions", "sentence"),
    [
        ({"sqnr_db": 90.0}, 1, "SQNR fell"),
        ({"sqnr_db": 90.0, "precision": "fp32"}, 0, ""),
        ({"accuracy": 0.5}, 1, "Accuracy fell"),
        ({"size_bytes": 2 * (ONE.size_bytes or 0)}, 0, "The file grew"),
        ({"max_error": 1.0}, 0, "The largest error grew"),
    ],
)
def test_worse_quality_is_a_regression_where_it_is_not_meant(
    memory: History, changes: dict[str, Any], regressions: int, sentence: str
) -> None:
    """A larger file and a larger maximum are reported; fp32's rounding noise is not."""
    verdict = judged(memory, changes)
    assert len(verdict.regressions) == regressions
    assert sentence in verdict.words
    assert len(verdict.worse) == bool(sentence)


def test_the_first_night_has_nothing_to_be_held_against(memory: History) -> None:
    """The first night has no baseline and no causes."""
    measurements = tonight({"artifact": "new", "problem": "other outputs"})
    (verdict,) = night_judging.judge_night(memory, measurements).values()
    assert (verdict.judgement.status, verdict.worse, verdict.causes) == ("no_baseline", (), ())


def test_a_suspect_is_measured_again_once(memory: History) -> None:
    """A suspect is not measured a third time."""
    once, twice = tonight(SLOW), tonight(SLOW, SLOW | {"flags": ("trend: up",)})
    assert night_judging.suspects_for_night_judging_again(night_judging.judge_night(memory, once), once) == {
        CELL
    }
    assert (
        night_judging.suspects_for_night_judging_again(night_judging.judge_night(memory, twice), twice)
        == set()
    )


def test_only_the_cells_asked_for_are_judged(memory: History) -> None:
    """The second round judges only what was measured again."""
    measurements = tonight({})
    measurements.sessions |= tonight({"artifact": "ort-int8"}, cell=OTHER).sessions
    assert night_judging.judge_night(memory, measurements).keys() == {CELL, OTHER}
    assert night_judging.judge_night(memory, measurements, [OTHER]).keys() == {OTHER}


UNSTABLE = SLOW | {"flags": ("trend: up",)}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[History]:
    """Open a writable history of usual nights."""
    with history.open_history(tmp_path / "history.sqlite") as memory:
        for number in range(7):
            memory.add(night(number, **USUAL))
        yield memory


@pytest.mark.parametrize(
    ("sessions", "marked"),
    [
        ((SLOW, SLOW), True),
        ((SLOW, UNSTABLE), True),
        ((SLOW,), True),
        (({"sqnr_db": 90.0},), True),
        ((SLOW, {}), False),
        (({},), False),
    ],
)
def test_what_is_doubted_is_kept_out_of_the_baselines(
    own: History, sessions: tuple[dict[str, Any], ...], marked: bool
) -> None:
    """All sessions of a suspected slowdown leave the baselines; refuted ones stay."""
    measurements = tonight(*sessions)
    for session in measurements.sessions[CELL]:
        own.add(session)
    night_judging.mark_night_judged(own, night_judging.judge_night(own, measurements), measurements)
    assert {own.find(session.key).regressed for session in measurements.sessions[CELL]} == {marked}


@pytest.mark.parametrize("again", [UNSTABLE, None])
def test_a_slowdown_that_is_never_confirmed_is_never_usual(
    own: History, again: dict[str, Any] | None
) -> None:
    """A slowdown with unstable or missing re-runs does not become the baseline."""
    for number in range(7, 20):
        changes = [SLOW, again] if again else [SLOW]
        rows = [
            night(number, **USUAL | change, key=f"{number}-{place}", run=f"{number}")
            for place, change in enumerate(changes)
        ]
        measurements = Measurements(sessions={CELL: tuple(rows)})
        for session in rows:
            own.add(session)
        verdicts = night_judging.judge_night(own, measurements)
        night_judging.mark_night_judged(own, verdicts, measurements)
        assert (verdicts[CELL].judgement.status, verdicts[CELL].judgement.usual_ms) == (
            "suspected",
            USUAL["p50_ms"],
        )


def test_a_night_that_was_cut_off_before_it_judged_is_marked_later(own: History) -> None:
    """Slow sessions of that run alone are marked."""
    for number, changes in ((8, SLOW), (9, {}), (10, SLOW)):
        own.add(night(number, **USUAL | changes, run="other" if number == 10 else "cut off"))
    night_judging.mark_night_unjudged(own, "cut off")
    assert [own.find(f"key-{number}").regressed for number in (8, 9, 10)] == [True, False, False]
