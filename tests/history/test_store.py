"""`android_harness.history`: sessions are stored once and returned by filter, series or baseline."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from android_harness.errors import HistoryError
from android_harness.history.records import Filter, Gap
from android_harness.history.store import History
from tests.history.stored import FIRST_NIGHT, night, point, samples


def test_a_session_comes_out_as_it_went_in(memory: History) -> None:
    """Every field has its value and type, and raw samples are exact to the nanosecond."""
    memory.add(night(0), samples())
    assert memory.get("key-0") == night(0)
    assert memory.samples("key-0") == samples()


def test_adding_twice_changes_nothing(memory: History) -> None:
    """A killed process may add its sessions again."""
    assert memory.add(night(0), samples())
    assert not memory.add(night(0), samples())
    assert len(memory.sessions()) == 1


def test_samples_may_come_later(memory: History) -> None:
    """A session that was added without samples can be added again with them."""
    memory.add(night(0))
    assert memory.samples("key-0") is None
    memory.add(night(0), samples())
    assert memory.samples("key-0") == samples()


def test_two_sessions_with_one_key_are_refused(memory: History) -> None:
    """Otherwise the second session would be lost silently."""
    memory.add(night(0))
    with pytest.raises(HistoryError, match="Two different sessions"):
        memory.add(night(0, p50_ms=9.0))
    assert memory.get("key-0") == night(0)


FILTERS: dict[str, tuple[Filter, dict[str, Any]]] = {
    "model": (Filter(model="other"), {"model": "other"}),
    "target": (Filter(target="other"), {"target": "other"}),
    "artifact": (Filter(artifact="other"), {"artifact": "other"}),
    "device": (Filter(device="other"), {"serial": "other"}),
    "evidence": (Filter(evidence="simulated"), {"evidence": "simulated"}),
    "run": (Filter(run="other"), {"run": "other"}),
    "host": (Filter(host="other"), {"host": "other"}),
    "stable": (Filter(stable=False), {"flags": ("trend: up",)}),
    "since": (Filter(since=FIRST_NIGHT + timedelta(days=1)), {}),
    "until": (Filter(until=FIRST_NIGHT), {"started_at": FIRST_NIGHT - timedelta(seconds=1)}),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_selects_what_it_names(memory: History, name: str) -> None:
    """A filter selects nothing else."""
    wanted, changes = FILTERS[name]
    memory.add(night(0))
    memory.add(night(1, **changes))
    assert memory.sessions(wanted) == (night(1, **changes),)


def test_the_newest_come_first(memory: History) -> None:
    """There are no more sessions than requested."""
    for number in (1, 3, 2):
        memory.add(night(number))
    assert memory.sessions(Filter(newest=2)) == (night(3), night(2))


def test_a_series_is_ordered_by_time(memory: History) -> None:
    """Unstable sessions are part of it; another device, thread count, artifact or evidence starts another."""
    mine = [night(0), night(1, flags=("trend: up",)), night(2, fingerprint="new")]
    others = [
        night(3, serial="other"),
        night(4, threads=1),
        night(5, artifact="ort-fp32"),
        night(6, evidence="simulated"),
    ]
    for session in (*others, *reversed(mine)):
        memory.add(session)
    assert memory.series(night(9).series_key) == tuple(mine)
    assert memory.series(night(9).series_key, newest=1) == (mine[-1],)
    assert memory.trend(night(9).series_key) == tuple(map(point, mine))
    assert memory.trend(night(9).series_key, newest=1) == (point(mine[-1]),)
    assert len(memory.series_keys()) == 5


NO_BASELINE: dict[str, dict[str, Any]] = {
    "unstable": {"flags": ("trend: up",)},
    "wrong outputs": {"problem": "other outputs"},
    "another Android": {"fingerprint": "new"},
    "another runtime": {"runtime": "onnxruntime 1.33.0"},
    "another runner": {"runner": {"version": "2"}},
    "pinned clocks": {"clock_state": "locked-verified"},
    "simulated": {"evidence": "simulated"},
    "another device": {"serial": "other"},
    "another model": {"model": "other"},
    "a confirmed regression": {"regressed": True},
    "the same night": {"run": "night-9"},
    "later": {"started_at": FIRST_NIGHT + timedelta(days=10)},
}


@pytest.mark.parametrize("name", NO_BASELINE)
def test_different_sessions_are_no_baseline(memory: History, name: str) -> None:
    """A baseline has only stable, earlier sessions with the same comparability key."""
    memory.add(night(0))
    memory.add(night(1, **NO_BASELINE[name]))
    assert memory.baseline(night(9)) == (night(0),)


def test_a_new_checkpoint_keeps_its_baseline(memory: History) -> None:
    """The series stays the same when the weights change."""
    memory.add(night(0))
    assert memory.baseline(night(1, source_sha256="2" * 64)) == (night(0),)


def test_a_baseline_is_the_last_sessions(memory: History) -> None:
    """The baseline's sessions are ordered from the oldest to the newest."""
    for number in range(8):
        memory.add(night(number))
    assert memory.baseline(night(9), count=3) == (night(5), night(6), night(7))


def test_a_regression_is_marked_and_accepted(memory: History) -> None:
    """A regressed session is no baseline; an accepted one is."""
    memory.add(night(0))
    memory.mark("key-0", regressed=True)
    assert memory.baseline(night(1)) == ()
    memory.mark("key-0", regressed=False)
    assert memory.baseline(night(1)) == (night(0),)


def test_an_accepted_level_begins_a_new_baseline(memory: History) -> None:
    """Earlier sessions no longer count, and regressions since then do, for times and for quality."""
    for number in range(6):
        memory.add(night(number, regressed=number >= 3))
    memory.accept("key-3")
    assert [session.key for session in memory.baseline(night(9))] == ["key-3", "key-4", "key-5"]
    assert [session.key for session in memory.earlier(night(9))] == ["key-3", "key-4", "key-5"]
    assert [session.key for session in memory.baseline(night(2))] == ["key-0", "key-1"]


def test_accepting_affects_one_series(memory: History) -> None:
    """Another artifact that regressed in the same night stays regressed."""
    memory.add(night(0))
    memory.add(night(1, regressed=True))
    memory.add(night(2, artifact="ort-fp32", regressed=True))
    memory.accept("key-1")
    assert memory.find("key-2").regressed
    assert memory.find("key-1") == night(1, accepted=True)


def test_a_marked_session_may_be_added_again(memory: History) -> None:
    """A nightly run that continues after a kill adds what it added before it marked it."""
    memory.add(night(0))
    memory.accept("key-0")
    memory.mark("key-0", regressed=True)
    assert not memory.add(night(0))


def test_quality_is_compared_with_all_sessions_of_the_series(memory: History) -> None:
    """Unstable sessions and other Android versions count; later, marked and other series' ones do not."""
    before = [night(0, flags=("trend: up",)), night(1, fingerprint="old"), night(2)]
    others = [night(3, run="night-9"), night(10), night(4, artifact="ort-fp32"), night(5, regressed=True)]
    for session in (*before, *others):
        memory.add(session)
    assert memory.earlier(night(9)) == tuple(before)


def test_a_key_may_be_shortened(memory: History) -> None:
    """A unique prefix is enough, and a percent sign is no wildcard."""
    memory.add(night(1))
    memory.add(night(12))
    memory.add(night(2))
    assert memory.find("key-2") == night(2)
    assert memory.find("key-1") == night(1)
    for wrong, words in (("key-", "Several sessions"), ("%", "No session"), ("key-3", "No session")):
        with pytest.raises(HistoryError, match=words):
            memory.find(wrong)


def test_sessions_are_looked_up_together(memory: History) -> None:
    """Sessions are returned by key; unknown keys are left out."""
    for number in range(3):
        memory.add(night(number))
    sessions = memory.get_all(["key-0", "key-2", "key-9"])
    assert sessions == {"key-0": night(0), "key-2": night(2)}


def test_marking_an_unknown_session_is_an_error(memory: History) -> None:
    """A mistyped key would otherwise leave a regression in the baseline."""
    with pytest.raises(HistoryError, match="No session has the key 'nothing'"):
        memory.mark("nothing", regressed=True)


def gap(key: str, **changes: Any) -> Gap:
    known: dict[str, Any] = {
        "key": key,
        "run": "night-0",
        "host": "farm-a",
        "at": FIRST_NIGHT,
        "reason": "No phone.",
    }
    return Gap(**known | changes)


def test_a_gap_is_stored_once(memory: History) -> None:
    """A night without a phone is stored."""
    assert memory.add_gap(gap("a"))
    assert not memory.add_gap(gap("a"))
    assert memory.gaps() == (gap("a"),)


def test_a_gap_of_a_whole_night_matches_every_model(memory: History) -> None:
    """A gap of another model does not match."""
    memory.add_gap(gap("a"))
    memory.add_gap(gap("b", model="other"))
    memory.add_gap(gap("c", model="mobilenet_v2"))
    assert {gap.key for gap in memory.gaps(Filter(model="mobilenet_v2"))} == {"a", "c"}
