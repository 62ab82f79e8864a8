"""`android_harness.cpu_clocks`: what sysfs texts prove, recorded ones and those of the simulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from android_harness import cpu_clocks, identity, instability, parse
from android_harness.records import Clock, Session
from android_harness.simulator.faults import FaultPhysics
from android_harness.simulator.soc import soc_files
from tests.harness import sessions

PRIME = sessions.CLUSTERS[-1]


def locked(changes: Mapping[str, str], lowest_khz: int = 844800) -> Session:
    """Return a session on the prime core at its maximum, except for the changes in the last reading."""
    fixed = {
        "scaling_min_freq": "2841600\n",
        "scaling_cur_freq": "2841600\n",
        "scaling_max_freq": "2841600\n",
        "stats/time_in_state": f"{lowest_khz} 10\n2841600 900\n",
    }
    moments = tuple(
        Clock(at, {f"{PRIME.policy}/{name}": text for name, text in texts.items()})
        for at, texts in enumerate((fixed, fixed, fixed | dict(changes)))
    )
    launches = tuple(sessions.launch(i, clocks=moments) for i in range(5))
    return sessions.session(launches=launches, config=replace(sessions.session().config, affinity="80"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "locked-verified"),
        ({"scaling_cur_freq": "2419200"}, "unlocked"),
        ({"scaling_min_freq": "844800"}, "unlocked"),
        ({"scaling_max_freq": "2419200"}, "unlocked"),
        ({"scaling_cur_freq": "<unreadable>"}, "unknown"),
    ],
)
def test_clocks_are_locked_only_where_every_moment_shows_it(changes: dict[str, str], expected: str) -> None:
    """One different or unreadable reading is enough to disprove a lock."""
    assert cpu_clocks.cpu_clock_state(locked(changes)) == expected


def test_a_clock_held_at_its_minimum_is_not_locked() -> None:
    """A clock at its minimum means that the phone is throttled."""
    assert cpu_clocks.cpu_clock_state(locked({}, lowest_khz=2841600)) == "unlocked"


@pytest.mark.parametrize("session", [sessions.session(), sessions.session(launches=())])
def test_what_is_not_seen_is_unknown(session: Session) -> None:
    """The state is unknown if the current clock was not read, or if nothing ran."""
    assert cpu_clocks.cpu_clock_state(session) == "unknown"


def simulated(root: Path, throttling: bool) -> Session:
    """Return a session with 12 readings per launch of the simulator's clocks and temperatures."""
    for path, text in soc_files("x86_64").items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    contents = {f"/{path}": text for path, text in soc_files("x86_64").items()}
    phone = sessions.identity(
        clusters=parse.parse_clusters(contents), thermal_zones=parse.parse_thermal_zones(contents)
    )
    physics = FaultPhysics(root)
    physics.throttling = throttling
    physics.tick(busy=True)
    moments = []
    for at in range(12):
        texts = {path: (root / path[1:]).read_text() for path in identity.identity_watch_paths(phone)}
        moments.append(Clock(at, texts))
        physics.tick(busy=True)
    launches = tuple(sessions.launch(i, clocks=tuple(moments)) for i in range(5))
    return sessions.session(identity=phone, launches=launches)


def test_the_simulators_throttling_is_seen(tmp_path: Path) -> None:
    """The simulated limit, clock and heat each raise a flag."""
    names = {
        flag.partition(":")[0] for flag in instability.find_instability(simulated(tmp_path, throttling=True))
    }
    assert names == {"cap", "frequency", "heat"}


def test_the_simulator_at_rest_is_stable(tmp_path: Path) -> None:
    """The simulator raises no flag if nothing throttles."""
    assert instability.find_instability(simulated(tmp_path, throttling=False)) == ()
