"""How many jobs run at once within the memory that is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.errors import NotEnoughMemoryError
from exporter.pipeline import memory
from exporter.pipeline.memory import GIB, plan_memory

MIB = 1 << 20


def _four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "default_pool_size", lambda: 4)


class TestPlan:
    def test_a_small_model_uses_every_core(self, monkeypatch: pytest.MonkeyPatch) -> None:
        _four_cores(monkeypatch)
        assert plan_memory(14 * MIB, memory_gib=8).workers == 4

    def test_little_memory_means_fewer_workers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        _four_cores(monkeypatch)
        plans = [plan_memory(14 * MIB, memory_gib=gib) for gib in (1.0, 1.8, 2.6)]
        assert [plan.workers for plan in plans] == [1, 2, 3]
        assert all(plan.needed_bytes <= (plan.free_bytes or 0) for plan in plans)

    def test_a_large_model_runs_one_job_at_a_time_whatever_is_free(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _four_cores(monkeypatch)
        assert plan_memory(346 * MIB, memory_gib=64).workers == 1

    def test_the_users_number_of_workers_wins(self) -> None:
        assert plan_memory(346 * MIB, jobs=3, memory_gib=64).workers == 3

    def test_a_model_that_does_not_fit_is_refused_with_both_figures(self) -> None:
        with pytest.raises(
            NotEnoughMemoryError, match=r"2\.00 GiB of weights takes about \d+\.\d GiB .* gives 3\.0"
        ):
            plan_memory(2 * GIB, memory_gib=3)

    def test_the_plan_says_workers_need_and_what_is_free(self) -> None:
        assert "of 8.0 GiB" in str(plan_memory(346 * MIB, memory_gib=8))


class TestFree:
    def test_a_containers_limit_counts(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name, text in (("CGROUP_LIMIT", str(3 * MIB)), ("CGROUP_USED", str(MIB))):
            monkeypatch.setattr(memory, name, tmp_path / name)
            (tmp_path / name).write_text(f"{text}\n")
        assert memory.free_memory_bytes() == 2 * MIB

    def test_a_container_without_a_limit_has_the_machines_memory(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for name, text in (("CGROUP_LIMIT", "max"), ("CGROUP_USED", str(MIB))):
            monkeypatch.setattr(memory, name, tmp_path / name)
            (tmp_path / name).write_text(f"{text}\n")
        assert (memory.free_memory_bytes() or 0) > 100 * MIB


def _measured_peaks() -> list[tuple[str, int, int]]:
    """Return network, weights and measured peak in MiB of each row that the benchmarks' page shows."""
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text("utf-8")
    section = page.partition("## Growth with the weights")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if "|" in line]
    titles, numbers = rows[0], [row for row in rows[2:] if row[1].isdigit()]
    weights, peak = titles.index("weights, MB"), titles.index("ours, peak MB")
    return [(row[0], int(row[weights]), int(row[peak])) for row in numbers]


@pytest.mark.parametrize(("network", "weights", "peak"), _measured_peaks())
def test_the_estimate_is_near_what_was_measured(
    network: str, weights: int, peak: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is at least the peak that the growth benchmark measured on two cores, and less than twice that."""
    monkeypatch.setattr(memory, "default_pool_size", lambda: 2)
    needed = plan_memory(weights * MIB, memory_gib=64).needed_bytes / MIB
    assert peak <= needed < 2 * peak, network
