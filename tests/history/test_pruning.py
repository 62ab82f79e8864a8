"""`android_harness.history.pruning`: a policy never deletes sessions that others are still compared with."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from android_harness.history.pruning import PruningPolicy, plan_pruning, prune_history
from android_harness.history.records import BASELINE_SESSIONS, StoredSession
from android_harness.history.store import History
from tests.history.stored import FIRST_NIGHT, night, samples

LATER = FIRST_NIGHT + timedelta(days=1000)
EVERYTHING = PruningPolicy(newest=0)


def filled(memory: History, sessions: Sequence[StoredSession]) -> History:
    for session in sessions:
        memory.add(session, samples())
    return memory


def nights(count: int, first: int = 0, **changes: Any) -> list[StoredSession]:
    return [night(first + place, **changes) for place in range(count)]


def left(memory: History) -> set[str]:
    return {session.key for session in memory.iterate()}


def test_a_plan_changes_nothing(memory: History) -> None:
    """The plan only counts what would be deleted, of how many, and the bytes of their samples."""
    filled(memory, nights(15))
    pruned = plan_pruning(memory, EVERYTHING, LATER)
    assert (pruned.sessions, pruned.total, pruned.protected) == (5, 15, 10)
    assert (pruned.oldest, pruned.newest) == (night(0).started_at, night(4).started_at)
    assert pruned.packed_bytes > 0
    assert len(left(memory)) == 15


def test_what_is_kept_by_any_rule_stays(memory: History) -> None:
    """Age, number or both keep a session."""
    filled(memory, nights(40))
    at = night(40).started_at
    assert plan_pruning(memory, PruningPolicy(days=15), at).sessions == 25
    assert plan_pruning(memory, PruningPolicy(newest=20), at).sessions == 20
    assert plan_pruning(memory, PruningPolicy(days=15, newest=20), at).sessions == 20


def test_the_newest_are_of_every_line(memory: History) -> None:
    """A phone that was put away keeps its series."""
    filled(memory, [*nights(12), *nights(12, first=20, artifact="ort-fp32")])
    prune_history(memory, PruningPolicy(newest=11), LATER)
    assert left(memory) == {f"key-{n}" for n in (*range(1, 12), *range(21, 32))}


@pytest.mark.parametrize("changes", [{"fingerprint": "old"}, {"runtime": "onnxruntime 1.0"}])
def test_a_baseline_is_never_forgotten(memory: History, changes: dict[str, Any]) -> None:
    """Under any policy, the next session is compared with the same sessions as before."""
    filled(memory, [*nights(12, **changes), *nights(12, first=20), *nights(9, first=40, flags=("heat: 1",))])
    asked = (night(99), night(99, **changes))
    before = [memory.baseline(session) for session in asked], memory.earlier(night(99))
    assert prune_history(memory, EVERYTHING, LATER).sessions > 0
    assert ([memory.baseline(session) for session in asked], memory.earlier(night(99))) == before
    assert all(len(baseline) == BASELINE_SESSIONS for baseline in before[0])


def test_regressions_hold_no_baseline_back(memory: History) -> None:
    """Regressed nights do not push good ones out of the baseline."""
    filled(memory, [*nights(12), *nights(20, first=12, regressed=True)])
    prune_history(memory, EVERYTHING, LATER)
    assert [session.key for session in memory.baseline(night(99))] == [f"key-{n}" for n in range(2, 12)]


def test_an_accepted_session_stays(memory: History) -> None:
    """The earlier sessions would count again if it were deleted."""
    filled(memory, nights(30))
    memory.accept("key-5")
    prune_history(memory, EVERYTHING, LATER)
    assert "key-5" in left(memory)


def test_samples_go_with_their_session(memory: History) -> None:
    """No samples remain, and the next session gets its own."""
    filled(memory, nights(15))
    prune_history(memory, EVERYTHING, LATER)
    assert memory.samples("key-0") is None
    assert memory.samples("key-14") == samples()
    assert memory.add(night(0))
    assert memory.samples("key-0") is None


def test_samples_alone_may_be_forgotten(memory: History) -> None:
    """Baselines lose their samples, too; the figures stay, and a second run deletes nothing."""
    filled(memory, nights(12))
    pruned = prune_history(memory, PruningPolicy(newest=2, samples_only=True), LATER)
    assert (pruned.sessions, pruned.protected) == (10, 0)
    assert len(left(memory)) == 12
    assert memory.samples("key-9") is None
    assert memory.samples("key-10") == samples()
    assert plan_pruning(memory, PruningPolicy(newest=2, samples_only=True), LATER).sessions == 0


def test_many_are_forgotten(memory: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many sessions take more than one statement, the last of which is not full."""
    monkeypatch.setattr("android_harness.history.pruning.BATCH", 3)
    filled(memory, nights(20))
    prune_history(memory, EVERYTHING, LATER)
    assert left(memory) == {f"key-{number}" for number in range(10, 20)}


def test_a_policy_without_a_rule_is_refused() -> None:
    """A policy without a rule would delete everything."""
    with pytest.raises(ValueError, match="days or newest"):
        PruningPolicy()
