"""`android_harness.history.making`: what of a session is remembered."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC
from typing import Any

import pytest

from android_harness import provenance, stats
from android_harness.history import making
from android_harness.history.records import StoredSession, as_json
from tests.harness import sessions
from tests.history.stored import ORIGIN, made


def test_the_figures_are_those_of_the_harness() -> None:
    """No second way to compute them."""
    measured = sessions.session()
    figures, kept = stats.figures(measured), made(measured)
    assert (kept.p50_ms, kept.p90_ms, kept.max_ms) == (figures.p50_ms, figures.p90_ms, figures.max_ms)
    assert (kept.p90_low_ms, kept.p90_high_ms) == figures.p90_ci_ms
    assert kept.started_at.isoformat() == "2026-01-01T00:00:00+00:00"
    assert kept.started_at.tzinfo is UTC


def test_the_kind_of_evidence_is_the_harness_word() -> None:
    """What did not prove to be a phone stays simulated for ever."""
    assert made().evidence == "measured"
    assert (
        made(sessions.session(identity=sessions.identity(doubts=("It is an emulator.",)))).evidence
        == "simulated"
    )


def test_a_session_has_one_key() -> None:
    """Made again from the same evidence it is the same session; another artifact is another."""
    assert made() == made()
    assert made().key != made(artifact="ort-fp32").key


def test_flags_make_it_unstable() -> None:
    """They are kept, and what they say."""
    hot = made(sessions.session(after=sessions.state(thermal_status=2)))
    assert not hot.stable
    assert hot.flags[0].startswith("thermal: status 2")
    assert made().stable


def test_wrong_outputs_make_no_baseline() -> None:
    """However steady the times of computing something else."""
    measured = sessions.session()
    latency = provenance.latency(
        measured, stats.figures(measured), provenance.Check(0.5, "NaN in logits"), 15.0
    )
    kept = making.stored(measured, latency, ORIGIN, run="n", host="h", budget_ms=15.0)
    assert not kept.stable
    assert (kept.problem, kept.verdict) == ("NaN in logits", "fail")


def test_clocks_and_heat_are_kept() -> None:
    """The worst of the launches: what may explain a slow night."""
    slow = sessions.launch(1, clocks=sessions.clocks(cap_khz=2457600, millidegrees=70000))
    kept = made(sessions.session(launches=(sessions.launch(0), slow)))
    assert kept.clocks["policy7 lowest limit khz"] == 2457600
    assert kept.clocks["hottest celsius"] == 70.0
    assert kept.clocks["policy7 mean khz"] == pytest.approx(2841600)


def test_what_is_not_finite_is_unknown() -> None:
    """JSON and people cannot compare NaN."""
    kept = made(sqnr_db=math.inf, accuracy=math.nan)
    assert (kept.sqnr_db, kept.accuracy) == (None, None)


def test_a_device_cannot_smuggle_nul() -> None:
    """PostgreSQL would refuse the whole session."""
    assert made(sessions.session(identity=sessions.identity(model="Mi\0 10"))).device_model == "Mi 10"


def test_a_session_is_json() -> None:
    """Every field, with what follows from it."""
    found = json.loads(json.dumps(as_json(made())))
    assert set(StoredSession.__dataclass_fields__) <= set(found)
    assert found["line"] == made().series_key.id
    assert found["started_at"] == "2026-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    "field", ["model", "target", "artifact", "serial", "evidence", "threads", "affinity", "context"]
)
def test_each_part_of_a_line_makes_another(field: str) -> None:
    """None of them may be mixed with another in one series."""
    other: Any = {"threads": 1, "evidence": "host"}.get(field, "other")
    assert replace(made(), **{field: other}).series_key.id != made().series_key.id
