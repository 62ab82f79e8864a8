"""Tests of latencies that are to be compared: taken in turn, and from the cache only as a whole set."""

from __future__ import annotations

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


def test_files_of_a_runtime_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks alternate between the files, in either order; a file that does not load has no latency."""
    calls: list[str] = []

    def load(path: Path, *_: Any) -> Any:
        if path.name == "broken":
            raise RuntimeError
        return (lambda _: calls.append(path.name)), "runtime 1.0"

    monkeypatch.setattr(formats, "FORMATS", {"onnx": SimpleNamespace(load=load)})
    monkeypatch.setattr(
        reference_io, "load_reference_io", lambda _: SimpleNamespace(samples=lambda: [("sample",)])
    )
    files = [(tmp_path / name, MIXED) for name in ("a", "broken", "b")]
    latencies = host_latency.measure_host_latencies(files, tmp_path / "evidence", 1)
    assert [latency and latency.samples for latency in latencies] == [200, None, 200]
    blocks = [calls[-400:][index] for index in range(0, 400, 5)]
    assert blocks == ["a", "b", "b", "a"] * 20
