"""Tests of the limits of memory, load time and first call, and of the evidence that a PASS needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from android_harness import latency_stats, provenance, session_limits
from android_harness.latencies import Latency
from android_harness.records import BenchConfig, Clock, Session
from tests.harness import sessions


def latency_of(session: Session) -> Latency:
    check = provenance.ProvenanceCheck(1e-6, "")
    return provenance.latency_with_provenance(session, latency_stats.latency_stats(session), check, 15.0)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"memory_budget_bytes": 10**8 - 1},
            "It took 100.0 MB of memory at its peak; the limit is 100.0 MB.",
        ),
        ({"load_budget_ms": 49.0}, "Loading it took 50 ms; the limit is 49 ms."),
        ({"first_budget_ms": 11.0}, "Its first call took 12 ms; the limit is 11 ms."),
    ],
)
def test_an_exceeded_limit_fails(config: dict[str, Any], words: str) -> None:
    """A fast artifact that takes too much fails, with the figure and the limit."""
    session = sessions.session(config=BenchConfig(affinity="f0", **config))
    latency = latency_of(session)
    assert latency.exceeded == (words,)
    entry = provenance.provenance_to_manifest(latency)
    assert (entry["verdict"], entry["exceeded"]) == ("fail", [words])


def test_limits_that_are_kept_pass() -> None:
    """A limit that is met to the byte is met."""
    config = BenchConfig(affinity="f0", memory_budget_bytes=10**8, load_budget_ms=50.0, first_budget_ms=12.0)
    assert provenance.verdict_by_provenance(latency_of(sessions.session(config=config))) == "pass"


def test_memory_that_nobody_could_read_does_not_meet_a_limit() -> None:
    """An unknown peak fails a limit that was asked for, and no other session."""
    launches = tuple(sessions.launch(index, peak_bytes=None) for index in range(5))
    limited = sessions.session(launches=launches, config=BenchConfig(affinity="f0", memory_budget_bytes=1))
    assert "is unknown" in latency_of(limited).exceeded[0]
    assert latency_of(sessions.session(launches=launches)).exceeded == ()


def test_the_highest_pss_is_recorded() -> None:
    """The runner reads it between chunks of calls; a kernel without it gives none."""
    text = "00400000-7ff r--p [rollup]\nRss:  900 kB\nPss:   {} kB\nPss_Anon: 9999 kB\n"
    clocks = tuple(Clock(at, {session_limits.SMAPS: text.format(at)}) for at in (100, 300, 200))
    assert (
        session_limits.peak_pss_bytes_for_session_limit(
            sessions.session(launches=(sessions.launch(0, clocks=clocks),))
        )
        == 300 * 1024
    )
    assert session_limits.peak_pss_bytes_for_session_limit(sessions.session()) is None


@pytest.mark.parametrize(
    ("launches", "calls", "between", "verdict"),
    [
        (5, 300, 0.0, "pass"),
        (4, 300, 0.0, "pass"),
        (3, 300, 0.0, "inconclusive"),
        (4, 50, 0.0, "pass"),
        (4, 49, 0.0, "inconclusive"),
        (4, 300, 0.16, "inconclusive"),
        (8, 300, 0.16, "pass"),
    ],
)
def test_a_pass_needs_enough_evidence(launches: int, calls: int, between: float, verdict: str) -> None:
    """Few launches or calls decide nothing, nor do few launches whose differences widen the interval."""
    made = tuple(
        sessions.launch(index, sessions.durations(index, count=calls, ms=8.0 * (1 + between * (-1) ** index)))
        for index in range(launches)
    )
    config = BenchConfig(launches=launches, min_iterations=calls, min_seconds=0.0, affinity="f0")
    canary = ((1_000_000,) * 30,) * (launches + 1)
    latency = latency_of(sessions.session(launches=made, config=config, canary_ns=canary))
    assert latency.figures.flags == ()
    assert provenance.verdict_by_provenance(latency) == verdict
    assert latency.device["launch_spread"] == pytest.approx(between, abs=0.03)


def test_more_evidence_never_makes_a_fail_a_pass() -> None:
    """Too little evidence for a PASS is enough for a FAIL: the interval says so."""
    few = sessions.session(launches=sessions.session().launches[:3], config=BenchConfig(launches=3))
    slow = replace(few, launches=tuple(sessions.launch(i, sessions.durations(i, ms=30.0)) for i in range(3)))
    assert provenance.verdict_by_provenance(latency_of(slow)) == "fail"
