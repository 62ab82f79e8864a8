"""The quantisation benchmark measures what it says: the same samples, real files, blocks that take turns."""

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
from exporter.capture.reference import run_reference
from exporter.errors import MissingDependencyError
from exporter.records import TensorSpec
from exporter.verify import reference_io
from tests.nets import captured, samples, trained

SPEC = (TensorSpec("image", (1, 1, 8, 8)),)


class Clock:
    """A clock that only calls move."""

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
    """A machine that becomes slower and slower slows both: the ratio stays what it is."""
    clock = Clock(monkeypatch)
    slow = clock.call("slow", lambda: int(3e6 * (1 + clock.now / 1e10)))
    fast = clock.call("fast", lambda: int(2e6 * (1 + clock.now / 1e10)))
    paired = pairing.compare(slow, fast, pairs=20, threads=1)
    assert paired.ratio == pytest.approx(1.5, rel=0.01)
    assert paired.quartiles[0] <= paired.ratio <= paired.quartiles[1]
    assert paired.pairs == 20


def test_the_blocks_take_turns_in_going_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the second would always find the caches as the first left them."""
    clock = Clock(monkeypatch)
    first, second = (clock.call(name, lambda: pairing.BLOCK_NS) for name in "ab")
    pairing.compare(first, second, pairs=2, threads=1)
    blocks = clock.order[2 * pairing.BLOCK_CALLS :: pairing.BLOCK_CALLS]
    assert "".join(blocks) == "abba"


@pytest.mark.parametrize("name", nets.NETS)
def test_every_net_takes_the_digits(name: str) -> None:
    """As arranged for it: in the shape and type that the export is told."""
    net = nets.NETS[name]
    rows = nets.arrays(net, each=2)["arr_0"]
    assert rows.shape == (4, *net.input_shape[1:])
    assert rows.dtype == net.dtype
    assert net.make().eval()(torch.from_numpy(rows)).shape == (4, 10)
    assert getattr(nets, net.arch.partition(":")[2]) is net.make


def test_held_out_digits_are_no_training_digits() -> None:
    """The first half of the arrays calibrates and may be known, the second must not be."""
    net = nets.NETS["depthwise"]
    rows = nets.arrays(net, each=3)["arr_0"]
    known = net.arrange(nets.digits().images[: nets.TRAINING]).numpy()
    assert all((known == row).all(axis=(1, 2, 3)).any() for row in rows[:3])
    assert not any((known == row).all(axis=(1, 2, 3)).any() for row in rows[3:])


def test_absent_nncf_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before minutes are spent; or it is left out when asked to."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "nncf" else find(n))
    with pytest.raises(MissingDependencyError, match=r"export-mobile\[benchmarks\]"):
        alternatives.methods("convolutions")
    left = alternatives.methods("convolutions", without=("nncf",))
    assert [m.name for m in left] == [
        m.name for m in alternatives.METHODS if not m.needs and len(m.kinds) > 1
    ]


def test_an_unknown_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """With the names there are."""
    with pytest.raises(SystemExit) as stopped:
        quantization.main(["--models", "resnet"])
    assert stopped.value.code == 2
    assert "mobilenet_v2" in capsys.readouterr().err


def rows() -> np.ndarray[Any, Any]:
    """Digits to calibrate on, then as many that no network was trained on."""
    return np.concatenate([np.stack([s[0] for s in samples("cnn", first, 16)]) for first in (0, 1400)])


@functools.cache
def reference() -> reference_io.Evidence:
    """The float64 network on the second half."""
    known, _ = run_reference(captured("cnn"), tuple((row,) for row in rows()[16:]), {})
    return known


@pytest.fixture
def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """The tests' small CNN as a model of the benchmark, with digits to calibrate and to verify on."""
    np.savez(tmp_path / "cnn.npz", image=rows())
    monkeypatch.setattr(Subject, "load", lambda self: trained("cnn"))
    return Subject("cnn", "convolutions", tmp_path / "cnn.pt", tmp_path / "cnn.npz", "a test", inputs=SPEC)


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    """What an export of it would have left."""
    reference_io.save(reference(), tmp_path / "verification.npz")
    return Evidence(tmp_path, SPEC, None, 16)


def test_a_benchmark_of_other_samples_is_refused(
    subject: Subject, evidence: Evidence, tmp_path: Path
) -> None:
    """Figures of different photos cannot be compared."""
    assert len(measure.calibration(subject, evidence)) == 16
    known = reference_io.load(tmp_path / "verification.npz")
    changed = replace(known, inputs=tuple(a * 0.5 for a in known.inputs))
    reference_io.save(changed, tmp_path / "verification.npz")
    with pytest.raises(RuntimeError, match="other samples"):
        measure.calibration(subject, evidence)


@pytest.mark.slow
def test_a_plain_library_call_is_measured_and_printed(
    subject: Subject, evidence: Evidence, tmp_path: Path
) -> None:
    """Quantised into a real file, run on unseen digits, timed against itself, and shown with its figures."""
    path = tmp_path / "plain.onnx"
    row = measure.quantise(subject, "quantize_static MinMax", evidence, path)
    assert (row.status, row.reason) == ("ran", "")
    assert row.quantized == 1.0
    assert row.size_bytes == path.stat().st_size
    assert row.sqnr_db is not None
    assert 10 < row.sqnr_db < 60
    row = replace(row, latency=measure.latency(path, path, "onnx-int8", evidence, 3, 1))
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
    subject: Subject, evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another library cannot do with a model is a result."""

    def write(*arguments: Any) -> None:
        raise ValueError("no such operator")

    method = replace(alternatives.METHODS[0], name="broken", write=write)
    monkeypatch.setattr(alternatives, "METHODS", (method,))
    row = measure.quantise(subject, "broken", evidence, tmp_path / "x.pte")
    assert (row.status, row.file, row.sqnr_db) == ("error", "", None)
    assert "ValueError: no such operator" in shown(subject, [row])


def test_the_readmes_table_has_a_line_per_row() -> None:
    """With a figure where there is one, and a dash where not."""
    timing = Paired(1.2, 1.0, 1.2, (1.1, 1.3), 40, 1)
    ran = Row(
        "m", "a", "xnnpack", "int8", sqnr_db=20.04, agreement=0.906, size_bytes=3_760_000, latency=timing
    )
    *_, first, second = tables.markdown([ran, Row("m", "b", "xnnpack", "int8")]).splitlines()
    assert first == "| m | xnnpack | a | 20.0 | 90.6 | 3.76 | - | 1.20 (1.10 to 1.30) |"
    assert second == "| m | xnnpack | b | - | - | - | - |  |"


def test_only_files_of_one_runtime_are_timed_against_each_other(
    evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ExecuTorch's against our ExecuTorch int8, ONNX Runtime's against our ONNX int8."""
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
    timed = quantization.timed([*rows, broken], plan, evidence)
    assert {other for name, other, _ in asked if name.startswith("NNCF")} == {"ours onnx-int8.file"}
    assert {o for n, o, _ in asked if n.startswith("XNNPACK")} == {"ours executorch-xnnpack-int8.file"}
    assert [row.latency is None for row in timed] == [False] * 4 + [True]


def test_what_an_alternative_made_is_kept_until_something_changes(
    subject: Subject, evidence: Evidence, tmp_path: Path
) -> None:
    """Another version of a package, other weights, or a file that is gone: it is made again."""
    subject.checkpoint.write_bytes(b"weights")
    path = tmp_path / "plain.onnx"
    path.write_bytes(b"model")
    row = Row("cnn", "plain", "onnxruntime", "int8", file=str(path), sqnr_db=20.0)
    key = kept.key(subject, "plain", evidence, {"onnx": "1"})
    kept.put(path, key, row)
    assert kept.get(path, key) == row
    assert kept.get(path, kept.key(subject, "plain", evidence, {"onnx": "2"})) is None
    subject.checkpoint.write_bytes(b"other weights")
    assert kept.get(path, kept.key(subject, "plain", evidence, {"onnx": "1"})) is None
    path.unlink()
    assert kept.get(path, key) is None


def test_every_model_can_be_asked_for() -> None:
    """The table of networks and the list of models do not part."""
    assert set(subjects.NAMES) == {subjects.MOBILENET, *nets.NETS}
