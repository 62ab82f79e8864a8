"""Tests of the energy of a call, from the battery's counters as the runner reads them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from android_harness import energy
from android_harness.records import Clock, Session
from tests.harness import sessions


def session(status: str, current: str, voltage: str = "4000000", readings: int = 5) -> Session:
    """Return a session whose launches read these counters; calls take 8 ms."""
    texts = {energy.STATUS: status, energy.CURRENT: current, energy.VOLTAGE: voltage}
    clocks = tuple(Clock(i * 10**8, texts) for i in range(readings))
    launch = replace(sessions.launch(0, [8_000_000] * 100), clocks=clocks)
    return replace(sessions.session(), launches=(launch,) * 3)


@pytest.mark.parametrize("current", ["-500000\n", "500000\n"])
def test_power_times_the_time_of_a_call(current: str) -> None:
    """0.5 A at 4 V are 2 W, and 16 mJ for a call of 8 ms; makers disagree about the sign."""
    value, problem = energy.energy_per_call(session("Discharging\n", current))
    assert value == pytest.approx(16.0)
    assert not problem


@pytest.mark.parametrize(
    ("taken", "words"),
    [
        (session("Charging\n", "500000\n"), r"show the charger \(Charging\).*Wi-Fi"),
        (session("Full\n", "1000\n"), r"show the charger \(Full\)"),
        (session("Discharging\n", "500000000\n"), "2e\\+03 W, which no phone uses"),
        (session("Discharging\n", "500\n"), "0.002 W, which no phone uses"),
        (session("Discharging\n", "denied"), "cannot be read"),
        (session("Discharging\n", "0"), "cannot be read"),
        (session("Discharging\n", "500000", readings=3), "cannot be read"),
        (sessions.session(), "cannot be read"),
    ],
    ids=["charging", "full", "nanoampere", "milliampere", "denied", "zero", "too few", "no counters"],
)
def test_where_it_cannot_be_known_the_reason_is_said(taken: Session, words: str) -> None:
    """No figure comes from a charger's current, another unit, or a file that cannot be read."""
    value, problem = energy.energy_per_call(taken)
    assert value is None
    assert re.search(words, problem), problem
