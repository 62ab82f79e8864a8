"""`session_judging`: section 4.9 of the protocol, with numbers computed by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from android_harness.history.records import StoredSession
from android_harness.regressions.records import Limits
from android_harness.regressions.session_judging import confirm_session_judging, judge_session
from tests.history.stored import night

P90S = (8.1, 8.2, 8.3, 8.4, 8.6)
BASELINE = tuple(night(place, p50_ms=8.0, p90_ms=p90) for place, p90 in enumerate(P90S))
LIMIT = 8.57
"""The p90 of the p90s is 8.4 + 0.6 * 0.2 = 8.52, a tenth of their range 0.05; 1.05 * 8 is less."""


def at(p50_ms: float, **changes: Any) -> StoredSession:
    return night(9, p50_ms=p50_ms, **changes)


def test_the_limit_is_p90_of_p90s_and_a_tenth_of_their_range() -> None:
    """The limit is the one computed by hand."""
    judgement = judge_session(at(8.0), BASELINE)
    assert judgement.limit_ms == pytest.approx(LIMIT)
    assert judgement.usual_ms == 8.0


@pytest.mark.parametrize(("p50", "status"), [(8.5699, "steady"), (8.5701, "suspected"), (5.0, "steady")])
def test_slower_than_the_limit_is_suspected(p50: float, status: str) -> None:
    """A faster session is never suspected."""
    assert judge_session(at(p50), BASELINE).status == status


def test_a_calm_series_leaves_five_percent() -> None:
    """If all p90s are alike, their limit alone would flag an irrelevant change."""
    calm = tuple(replace(session, p90_ms=8.01) for session in BASELINE)
    assert judge_session(at(8.39), calm).status == "steady"
    assert judge_session(at(8.41), calm).status == "suspected"


def test_the_usual_is_the_median() -> None:
    """A night in which somebody used the phone is not usual."""
    one_slow = (*BASELINE[:4], replace(BASELINE[4], p50_ms=9.0))
    assert judge_session(at(8.0), one_slow).usual_ms == 8.0


def test_fewer_than_five_stable_sessions_judge_nothing() -> None:
    """However slow the session is, the usual p50 is unknown."""
    judgement = judge_session(at(80.0), BASELINE[1:])
    assert (judgement.status, judgement.usual_ms, judgement.slower) == ("no_baseline", None, None)
    assert judge_session(at(80.0), BASELINE[1:], Limits(min_baseline=4)).status == "suspected"


@pytest.mark.parametrize("changes", [{"flags": ("trend: up",)}, {"problem": "other outputs"}])
def test_an_unstable_session_is_no_regression(changes: dict[str, Any]) -> None:
    """A hot phone proves nothing about the model, and the reason is given."""
    judgement = judge_session(at(80.0, **changes), BASELINE)
    assert judgement.status == "unstable"
    assert (changes.get("flags") or (changes["problem"],))[0] in judgement.reason


@pytest.mark.parametrize(
    ("again", "status"),
    [
        (at(8.6, key="again"), "confirmed"),
        (at(8.0, key="again"), "refuted"),
        (at(8.6, key="again", flags=("trend: up",)), "suspected"),
    ],
)
def test_a_suspicion_is_confirmed_by_a_second_slow_run(again: StoredSession, status: str) -> None:
    """A normal re-run refutes it, and an unstable one leaves it open."""
    assert confirm_session_judging(judge_session(at(9.0), BASELINE), again, BASELINE).status == status


def test_a_second_run_is_held_to_the_same_limits() -> None:
    """The re-run uses the given limits, not the protocol's."""
    few = Limits(min_baseline=4)
    first = judge_session(at(9.0), BASELINE[1:], few)
    assert confirm_session_judging(first, at(9.0, key="again"), BASELINE[1:], few).status == "confirmed"


def test_what_is_not_suspected_needs_no_second_run() -> None:
    """A slow re-run of a steady session does not count."""
    steady = judge_session(at(8.0), BASELINE)
    assert confirm_session_judging(steady, at(9.0), BASELINE) is steady


FOREIGN: dict[str, dict[str, Any]] = {
    "simulated": {"evidence": "simulated"},
    "another device": {"serial": "other"},
    "another Android": {"fingerprint": "new"},
    "another runtime": {"runtime": "onnxruntime 1.33.0"},
    "unstable": {"flags": ("trend: up",)},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_baseline_is_refused(name: str) -> None:
    """A simulated session is no baseline for a measured one: they are from different machines."""
    wrong = (*BASELINE[:4], replace(BASELINE[4], **FOREIGN[name]))
    with pytest.raises(ValueError, match="is no baseline"):
        judge_session(at(8.0), wrong)


def test_the_share_is_of_the_usual() -> None:
    """The share is relative to the usual p50, also in the text."""
    judgement = judge_session(at(8.8), BASELINE)
    assert judgement.slower == pytest.approx(0.1)
    assert judgement.reason == "p50 is 8.8 ms, 10.0% above the usual 8; the limit is 8.57 ms."
    assert "20.0% below the usual" in judge_session(at(6.4), BASELINE).reason
