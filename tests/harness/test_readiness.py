from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from android_harness import identity, parse
from android_harness.errors import NotReadyError
from android_harness.readiness import readiness_gates, unmet_readiness, wait_for_readiness
from android_harness.records import Gate, State

from .test_identity import STATE, who

PHONE = who()
COOL = identity.identity_state_from_text(parse.parse_sections(STATE), PHONE)
NEED = 100_000_000
SILENT = identity.identity_state_from_text({}, PHONE)


def names(state: State, **options: Any) -> list[str]:
    options = {"soc": "SM8250", "need_bytes": NEED, **options}
    return [gate.name for gate in unmet_readiness(readiness_gates(PHONE, state, **options))]


def test_a_cool_idle_865_is_ready() -> None:
    """A cool and idle phone meets all gates."""
    assert names(COOL) == []


@pytest.mark.parametrize(
    ("change", "gate", "passing"),
    [
        ({"battery_percent": 24}, "battery", False),
        ({"battery_celsius": 35.1}, "battery temperature", True),
        ({"thermal_status": 1}, "thermal status", True),
        ({"thermal_overridden": True}, "thermal override", False),
        ({"celsius": {"cpu-1-0-usr": 45.1}}, "cpu temperature", True),
        ({"load1": 8.1}, "load", True),
        ({"power_saver": True}, "power saver", False),
        ({"free_bytes": NEED - 1}, "free space", False),
        ({"available_memory_bytes": 400_000_000}, "free memory", False),
    ],
)
def test_each_condition_has_its_gate(change: dict[str, Any], gate: str, passing: bool) -> None:
    """One bad value fails one gate, which says what to do and whether waiting helps."""
    failed = unmet_readiness(readiness_gates(PHONE, replace(COOL, **change), soc="SM8250", need_bytes=NEED))
    assert [(g.name, g.passing) for g in failed] == [(gate, passing)]
    assert failed[0].fix


@pytest.mark.parametrize(
    "change",
    [
        {"battery_percent": 25},
        {"battery_celsius": 35.0},
        {"celsius": {"cpu-1-0-usr": 45.0}},
        {"celsius": {"cpu-1-0-usr": 30.0, "gpuss-0-usr": 80.0}},
        {"load1": 8.0},
        {"free_bytes": NEED},
    ],
)
def test_limits_are_inclusive(change: dict[str, Any]) -> None:
    """The limit itself is allowed, and only CPU zones count."""
    assert names(replace(COOL, **change)) == []


@pytest.mark.parametrize(("hottest", "ok"), [(36.0, True), (36.1, False)])
def test_a_known_idle_temperature_is_the_stricter_measure(hottest: float, ok: bool) -> None:
    """The CPU must be within 5 °C of the baseline, whatever the general limit is."""
    state = replace(COOL, celsius={"cpu-1-0-usr": hottest})
    assert (names(state, baseline_celsius=31.0) == []) is ok


@pytest.mark.parametrize(
    ("text", "ok"),
    [
        (("", ""), True),
        (("2841600", "3187200"), False),
        (("2841600", "3091200"), False),
        (("/cpufreq/", "/denied/"), False),
        (("[kona]", "[lahaina]"), False),
    ],
)
def test_only_a_proven_865_is_accepted_if_required(text: tuple[str, str], ok: bool) -> None:
    """An 870, an 865+, an unreadable clock and contradicting sources are refused."""
    from .test_identity import IDENTITY

    phone = who(IDENTITY.replace(*text) if text[0] else IDENTITY)
    assert readiness_gates(phone, COOL, soc="SM8250", need_bytes=0)[0].ok is ok
    assert "soc" not in [gate.name for gate in readiness_gates(phone, COOL, soc=None, need_bytes=0)]


def test_unreadable_values_do_not_block() -> None:
    """An unreadable value is reported as unreadable."""
    checked = readiness_gates(PHONE, SILENT, soc=None, need_bytes=NEED)
    assert all(gate.ok and gate.seen == "unreadable" for gate in checked)
    assert len(checked) == 11


class Clock:
    def __init__(self, *states: State) -> None:
        self.states = list(states)
        self.slept: list[float] = []
        self.reported: list[tuple[list[str], float]] = []

    def read(self) -> State:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def tell(self, failed: tuple[Gate, ...], left: float) -> None:
        self.reported.append(([gate.name for gate in failed], left))

    def wait(self, seconds: float) -> tuple[Gate, ...]:
        return wait_for_readiness(
            self.read,
            lambda state: readiness_gates(PHONE, state, soc=None, need_bytes=NEED),
            seconds,
            self.tell,
            self.slept.append,
        )


HOT = replace(COOL, thermal_status=2)


def test_waiting_ends_once_the_phone_is_cool() -> None:
    """The observer gets the gates that are waited for."""
    clock = Clock(HOT, HOT, COOL)
    assert unmet_readiness(clock.wait(60.0)) == ()
    assert clock.slept == [5.0, 5.0]
    assert clock.reported == [(["thermal status"], 60.0), (["thermal status"], 55.0)]


def test_waiting_ends_with_the_time() -> None:
    """Waiting takes no longer than allowed, and the gates are checked once more at the end."""
    clock = Clock(HOT)
    with pytest.raises(NotReadyError, match=r"after 12 s.*thermal status: 2 \(moderate\).*cool"):
        clock.wait(12.0)
    assert clock.slept == [5.0, 5.0, 2.0]


def test_gates_that_only_the_user_can_fix_are_not_waited_for() -> None:
    """The error names all unmet gates, including those that may pass by themselves."""
    clock = Clock(replace(HOT, battery_percent=3))
    with pytest.raises(NotReadyError, match=r"battery: 3 %.*Charge.*thermal status") as raised:
        clock.wait(60.0)
    assert clock.slept == []
    assert "after" not in str(raised.value)
