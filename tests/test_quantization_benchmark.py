"""Tests that the quantisation benchmark compares equal samples, real files and alternating blocks."""

from __future__ import annotations

import functools
import importlib.util
import io
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from benchmarks import alternatives, kept, measure, nets, pairing, quantization, subjects, tables
from benchmarks.measure import Evidence, Row
from benchmarks.pairing import Paired
from benchmarks.subjects import Subject
from exporter.capture.float64_reference import run_float64_reference
from exporter.errors import MissingDependencyError
from exporter.records import TensorSpec
from exporter.verify import reference_io
from tests.nets import captured, samples, trained

SPEC = (TensorSpec("image", (1, 1, 8, 8)),)


class Clock:
    """A clock that advances only by calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0
        self.order: list[str] = []
        monkeypatch.setattr(time, "perf_counter_ns", lambda: self.now)

    def call(self, name: str, ns: Callable[[], int]) -> Callable[[], None]:
        def run() -> None:
            self.order.append(name)
            self.now += ns()

        return run


def test_the_ratio_is_of_neighbouring_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that slows down does not change the ratio."""
    clock = Clock(monkeypatch)
    slow = clock.call("slow", lambda: int(3e6 * (1 + clock.now / 1e10)))
    fast = clock.call("fast", lambda: int(2e6 * (1 + clock.now / 1e10)))
    paired = pairing.compare(slow, fast, pairs=20, threads=1)
    assert paired.ratio == pytest.approx(1.5, rel=0.01)
    assert paired.quartiles[0] <= paired.ratio <= paired.quartiles[1]
    assert paired.pairs == 20


def test_the_blocks_take_turns_in_going_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither call always finds the caches that the other left."""
    clock = Clock(monkeypatch)
    first, second = (clock.call(name, lambda: pairing.BLOCK_NS) for name in "ab")
    pairing.compare(first, second, pairs=2, threads=1)
    blocks = clock.order[2 * pairing.BLOCK_CALLS :: pairing.BLOCK_CALLS]
    assert "".join(blocks) == "abba"


@pytest.mark.parametrize("name", nets.NETS)
def test_every_net_takes_the_digits(name: str) -> None:
    """Each network takes digits in the shape and type that the export is given."""
    net = nets.NETS[name]
    rows = nets.arrays(net, each=2)["arr_0"]
    assert rows.shape == (4, *net.input_shape[1:])
    assert rows.dtype == net.dtype
    assert net.make().eval()(torch.from_numpy(rows)).shape == (4, 10)
    assert getattr(nets, net.arch.partition(":")[2]) is net.make


def test_held_out_digits_are_no_training_digits() -> None:
    """The second half of the arrays is unseen in training."""
    net = nets.NETS["depthwise"]
    rows = nets.arrays(net, each=3)["arr_0"]
    known = net.arrange(nets.digits().images[: nets.TRAINING]).numpy()
    assert all((known == row).all(axis=(1, 2, 3)).any() for row in rows[:3])
    assert not any((known == row).all(axis=(1, 2, 3)).any() for row in rows[3:])


def test_absent_nncf_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing package is reported before the run, unless left out by name."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "nncf" else find(n))
    with pytest.raises(MissingDependencyError, match=r"export-mobile\[benchmarks\]"):
        alternatives.methods("convolutions")
    left = alternatives.methods("convolutions", without=("nncf",))
    assert [m.name for m in left] == [
        m.name for m in alternatives.METHODS if not m.needs and len(m.kinds) > 1
    ]


def test_an_unknown_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The refusal lists the models."""
    with pytest.raises(SystemExit) as stopped:
        quantization.main(["--models", "resnet"])
    assert stopped.value.code == 2
    assert "mobilenet_v2" in capsys.readouterr().err


def rows() -> np.ndarray[Any, Any]:
    """Return digits to calibrate on, then as many unseen ones."""
    return np.concatenate([np.stack([s[0] for s in samples("cnn", first, 16)]) for first in (0, 1400)])


@functools.cache
def reference() -> reference_io.ReferenceIO:
    """Return the float64 network's outputs on the second half."""
    known, _ = run_float64_reference(captured("cnn"), tuple((row,) for row in rows()[16:]), {})
    return known


@pytest.fixture
def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """Return the tests' small CNN as a model of the benchmark, with digits for both halves."""
    np.savez(tmp_path / "cnn.npz", image=rows())
    monkeypatch.setattr(Subject, "load", lambda self: trained("cnn"))
    return Subject("cnn", "convolutions", tmp_path / "cnn.pt", tmp_path / "cnn.npz", "a test", inputs=SPEC)


@pytest.fixture
def references(tmp_path: Path) -> Evidence:
    """Write what an export of it would leave."""
    reference_io.save_reference_io(reference(), tmp_path / "verification.npz")
    return Evidence(tmp_path, SPEC, None, 16)


def test_a_benchmark_of_other_samples_is_refused(
    subject: Subject, references: Evidence, tmp_path: Path
) -> None:
    """Figures of different samples cannot be compared."""
    assert len(measure.calibration(subject, references)) == 16
    known = reference_io.load_reference_io(tmp_path / "verification.npz")
    changed = replace(known, inputs=tuple(a * 0.5 for a in known.inputs))
    reference_io.save_reference_io(changed, tmp_path / "verification.npz")
    with pytest.raises(RuntimeError, match="other samples"):
        measure.calibration(subject, references)


@pytest.mark.slow
def test_a_plain_library_call_is_measured_and_printed(
    subject: Subject, references: Evidence, tmp_path: Path
) -> None:
    """A method writes a real file, which is run, timed against itself, and printed."""
    path = tmp_path / "plain.onnx"
    row = measure.quantise(subject, "quantize_static MinMax", references, path)
    assert (row.status, row.reason) == ("ran", "")
    assert row.quantized == 1.0
    assert row.size_bytes == path.stat().st_size
    assert row.sqnr_db is not None
    assert 10 < row.sqnr_db < 60
    row = replace(row, latency=measure.latency(path, path, "onnx-int8", references, 3, 1))
    assert row.latency is not None
    assert 0.5 < row.latency.ratio < 2
    printed = shown(subject, [row])
    assert f"{row.sqnr_db:.1f}" in printed
    assert f"{row.latency.ratio:.2f}" in printed


def shown(subject: Subject, rows: list[Row]) -> str:
    stream = io.StringIO()
    tables.print_model(subject, rows, Console(file=stream, width=200))
    return stream.getvalue()


def test_a_method_that_fails_is_a_row_with_its_words(
    subject: Subject, references: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing method is a result with its message."""

    def write(*arguments: Any) -> None:
        raise ValueError("no such operator")

    method = replace(alternatives.METHODS[0], name="broken", write=write)
    monkeypatch.setattr(alternatives, "METHODS", (method,))
    row = measure.quantise(subject, "broken", references, tmp_path / "x.pte")
    assert (row.status, row.file, row.sqnr_db) == ("error", "", None)
    assert "ValueError: no such operator" in shown(subject, [row])


def test_the_readmes_table_has_a_line_per_row() -> None:
    """Each row has its figures, or dashes."""
    timing = Paired(1.2, 1.0, 1.2, (1.1, 1.3), 40, 1)
    ran = Row(
        "m", "a", "xnnpack", "int8", sqnr_db=20.04, agreement=0.906, size_bytes=3_760_000, latency=timing
    )
    *_, first, second = tables.markdown([ran, Row("m", "b", "xnnpack", "int8")]).splitlines()
    assert first == "| m | xnnpack | a | 20.0 | 90.6 | 3.76 | - | 1.20 (1.10 to 1.30) |"
    assert second == "| m | xnnpack | b | - | - | - | - |  |"


def test_only_files_of_one_runtime_are_timed_against_each_other(
    references: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are timed against our int8 file of the same runtime."""
    asked = []

    def apart(plan: Any, function: Any, path: Path, other: Path, variant: str, *rest: Any) -> Paired:
        asked.append((path.name, other.name, variant))
        return Paired(1.0, 1.0, 1.0, (1.0, 1.0), 2, 1)

    monkeypatch.setattr(quantization, "apart", apart)
    rows = [
        Row("m", method, runtime, "int8", file=f"{method}.file", sqnr_db=20.0)
        for method, runtime in (
            ("NNCF fast", "onnxruntime"),
            ("ours onnx-int8", "onnxruntime"),
            ("ours executorch-xnnpack-int8", "xnnpack"),
            ("XNNPACKQuantizer", "xnnpack"),
        )
    ]
    broken = Row("m", "quantize_static MinMax", "onnxruntime", "int8", reason="no")
    plan = quantization.Plan(tmp_path, 16, 2, 1, (), search=False, slow=False)
    timed = quantization.timed([*rows, broken], plan, references)
    assert {other for name, other, _ in asked if name.startswith("NNCF")} == {"ours onnx-int8.file"}
    assert {o for n, o, _ in asked if n.startswith("XNNPACK")} == {"ours executorch-xnnpack-int8.file"}
    assert [row.latency is None for row in timed] == [False] * 4 + [True]


def test_what_an_alternative_made_is_kept_until_something_changes(
    subject: Subject, references: Evidence, tmp_path: Path
) -> None:
    """Another package version, other weights or a missing file cause a new run."""
    subject.checkpoint.write_bytes(b"weights")
    path = tmp_path / "plain.onnx"
    path.write_bytes(b"model")
    row = Row("cnn", "plain", "onnxruntime", "int8", file=str(path), sqnr_db=20.0)
    key = kept.key(subject, "plain", references, {"onnx": "1"})
    kept.put(path, key, row)
    assert kept.get(path, key) == row
    assert kept.get(path, kept.key(subject, "plain", references, {"onnx": "2"})) is None
    subject.checkpoint.write_bytes(b"other weights")
    assert kept.get(path, kept.key(subject, "plain", references, {"onnx": "1"})) is None
    path.unlink()
    assert kept.get(path, key) is None


def test_every_model_can_be_asked_for() -> None:
    """The table of networks and the list of models agree."""
    assert set(subjects.NAMES) == {subjects.MOBILENET, *nets.NETS}
