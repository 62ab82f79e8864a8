"""Tests of latencies that are to be compared: taken in turn, and from the cache only as a whole set."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from exporter import formats
from exporter.formats import VARIANTS
from exporter.pipeline import host_latency
from exporter.pipeline.context import Context
from exporter.pipeline.host_latency import File
from exporter.records import Latency
from exporter.verify import reference_io
from tests import inline

INT8, MIXED = VARIANTS["onnx-int8"], VARIANTS["onnx-mixed"]


class Machine:
    """A machine on which everything takes `ms` milliseconds, as much as its load at the moment."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        patch.setenv("EXPORT_MOBILE_CACHE", str(folder / "cache"))
        patch.setattr(host_latency, "measure_host_latencies", self._times)
        self.context: Context = inline.context(folder, ("onnx-int8",), cache=True)
        self.context.evidence.write_bytes(b"inputs")
        self.ms = 1.0
        self.timed: list[list[str]] = []

    def _times(self, files: Sequence[File], *_: Any) -> host_latency.Latencies:
        self.timed.append([path.name for path, _ in files])
        return tuple(Latency(self.ms * 2**place, self.ms * 3, 20, 1) for place in range(len(files)))

    def file(self, name: str, variant: Any = MIXED) -> File:
        path = self.context.folders.out / name
        path.write_text(name)
        return path, variant


def p50s(latencies: Sequence[Latency | None]) -> list[float | None]:
    return [latency.p50_ms if latency else None for latency in latencies]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_a_set_of_files_is_in_the_cache_as_a_whole(machine: Machine) -> None:
    """The same files are not timed again."""
    files = [machine.file("a"), machine.file("b")]
    first = host_latency.measure_host_latencies_together(machine.context, files)
    machine.ms = 40.0
    assert host_latency.measure_host_latencies_together(machine.context, files) == first
    assert machine.timed == [["a", "b"]]


@pytest.mark.parametrize("other", ["onnx-mixed", "executorch-xnnpack-int8"])
def test_a_latency_of_another_set_is_not_used(machine: Machine, other: str) -> None:
    """All files are timed anew when there is one more, of whatever runtime."""
    machine.ms = 38.3
    host_latency.measure_host_latencies_together(machine.context, [machine.file("int8", INT8)])
    machine.ms = 10.0
    files = [machine.file("int8", INT8), machine.file("mixed", VARIANTS[other])]
    assert p50s(host_latency.measure_host_latencies_together(machine.context, files))[0] == 10.0


def test_what_is_timed_beside_a_file_is_scaled_to_its_latency(machine: Machine) -> None:
    """What takes twice as long as int8 now gets twice int8's earlier latency, whatever the load was then."""
    machine.ms = 10.0
    base = machine.file("int8", INT8)
    (latency,) = host_latency.measure_host_latencies_beside(
        machine.context, base, Latency(38.0, 40.0, 20, 1), [machine.file("mixed")]
    )
    assert latency is not None
    assert latency.p50_ms == 76.0


class Runtime:
    """A runtime that counts the files that are loaded at once; its calls take `call_s` of a false clock."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, call_s: float = 0.0) -> None:
        self.calls: list[str] = []
        self.loaded: list[str] = []
        self.most = 0
        self.now = 0.0
        self.call_s = call_s
        patch.setattr(formats, "FORMATS", {"onnx": SimpleNamespace(load=self.load)})
        patch.setattr(
            reference_io, "load_reference_io", lambda _: SimpleNamespace(samples=lambda: [("sample",)])
        )
        if call_s:
            clock = SimpleNamespace(monotonic=lambda: self.now, perf_counter_ns=lambda: int(self.now * 1e9))
            patch.setattr(host_latency, "time", clock)
        self.files = [(folder / name, MIXED) for name in ("a", "broken", "b")]
        for path, _ in self.files:
            path.write_bytes(bytes(1000))

    def load(self, path: Path, *_: Any) -> Any:
        if path.name == "broken":
            raise RuntimeError
        self.loaded.append(path.name)
        self.most = max(self.most, len(self.loaded))

        def call(_: Any) -> None:
            self.calls.append(path.name)
            self.now += self.call_s

        weakref.finalize(call, self.loaded.remove, path.name)
        return call, "runtime 1.0"


def test_files_of_a_runtime_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks alternate between the files, in either order; a file that does not load has no latency."""
    runtime = Runtime(tmp_path, monkeypatch)
    latencies = host_latency.measure_host_latencies(runtime.files, tmp_path / "evidence", 1)
    assert [latency and latency.samples for latency in latencies] == [200, None, 200]
    blocks = [runtime.calls[-400:][index] for index in range(0, 400, 5)]
    assert blocks == ["a", "b", "b", "a"] * 20
    assert runtime.most == 2


def test_large_files_are_loaded_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is timed in two rounds, so that they take turns nevertheless; memory holds one of them."""
    monkeypatch.setattr(host_latency, "TOGETHER_BYTES", 2999)
    runtime = Runtime(tmp_path, monkeypatch)
    latencies = host_latency.measure_host_latencies(runtime.files, tmp_path / "evidence", 1)
    assert [latency and latency.samples for latency in latencies] == [200, None, 200]
    assert [name for name, _ in itertools.groupby(runtime.calls)] == ["a", "b", "a"]
    assert (runtime.most, runtime.loaded) == (1, [])


@pytest.mark.parametrize(("together", "calls"), [(3000, 2 * (10 + 2)), (0, 2 * (10 + 2 * 2))])
def test_slow_files_are_called_less_often(
    together: int, calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a call takes three seconds, two warm up and ten are timed."""
    monkeypatch.setattr(host_latency, "TOGETHER_BYTES", together)
    runtime = Runtime(tmp_path, monkeypatch, call_s=3.0)
    latencies = host_latency.measure_host_latencies(runtime.files, tmp_path / "evidence", 1)
    assert [latency and (latency.samples, latency.p50_ms) for latency in latencies] == [
        (10, 3000.0),
        None,
        (10, 3000.0),
    ]
    assert len(runtime.calls) == calls
