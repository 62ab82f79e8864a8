"""How many jobs run at once within the memory that is there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from exporter.errors import NotEnoughMemoryError
from exporter.pipeline import export, memory
from exporter.pipeline.context import Event
from exporter.pipeline.memory import GIB, plan_memory
from exporter.records import TensorSpec

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


class TestValues:
    """Activations and samples count beside weights, once the network is known."""

    def test_large_activations_mean_fewer_workers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        _four_cores(monkeypatch)
        planned = plan_memory(14 * MIB, memory_gib=8)
        counts = [
            memory.plan_memory_of_network(
                planned, memory.MemoryNeed(14 * MIB, activations * MIB), 0, given=True
            ).workers
            for activations in (0, 600, 1400, 4000)
        ]
        assert counts == [4, 4, 2, 1]

    def test_activations_that_do_not_fit_are_refused_with_their_figure(self) -> None:
        planned = plan_memory(14 * MIB, memory_gib=8)
        need = memory.MemoryNeed(14 * MIB, activation_bytes=6 * GIB)
        with pytest.raises(
            NotEnoughMemoryError, match=r"9\.00 GiB of values takes about 9\.8 GiB.* gives 8\.0.*smaller"
        ):
            memory.plan_memory_of_network(planned, need, 0, given=True)

    def test_the_users_number_of_workers_wins(self) -> None:
        planned = plan_memory(14 * MIB, jobs=3, memory_gib=8)
        need = memory.MemoryNeed(14 * MIB, activation_bytes=2 * GIB)
        assert memory.plan_memory_of_network(planned, need, 3, given=True).workers == 3

    def test_samples_count_with_their_outputs(self) -> None:
        inputs, outputs = (TensorSpec("x", (1, 3, 8, 8)),), (TensorSpec("y", (1, 10)),)
        edges = memory.EDGE_INPUTS
        assert memory.samples_memory_bytes(inputs, outputs, 5, 0) == 4 * (2 * 5 * 192 + edges * (576 + 110))
        assert memory.samples_memory_bytes(inputs, outputs, 0, 2) == 4 * (2 + edges) * (576 + 110)

    def test_a_network_of_large_values_is_refused_once_it_is_known(self, tmp_path: Path) -> None:
        """Its 4 kB of weights give no hint; the message has its values, and OUT is not written."""
        torch.save(torch.nn.Conv2d(3, 32, 3).state_dict(), tmp_path / "conv.pth")
        events: list[Event] = []
        with pytest.raises(NotEnoughMemoryError, match=r"GiB of values takes about \d\.\d GiB.*gives 1\.5"):
            export(
                tmp_path / "conv.pth",
                "snapdragon865",
                events.append,
                arch="torch.nn:Conv2d",
                arch_args=(("in_channels", "3"), ("out_channels", "32"), ("kernel_size", "3")),
                input_shapes=(TensorSpec("", (1, 3, 700, 700)),),
                out=tmp_path / "out",
                samples=1,
                memory_gib=1.5,
                cache=False,
            )
        assert not (tmp_path / "out").exists()
        assert "building" not in [event.stage for event in events]


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
