"""An int8 program of which most weights stay in float is refused before anything is made from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.zoo import ZOO, build
from exporter.capture import captured_program
from exporter.data import Data
from exporter.errors import LoweringError
from exporter.pipeline import int8_stage, stage_results
from exporter.quantize.int8_recipe import PROGRAM
from exporter.records import Model, TensorSpec


def prepared(name: str, work: Path) -> Path:
    """Write what the job finds in its work folder: the captured network and its data."""
    samples = ZOO[name].samples(4)
    specs = tuple(TensorSpec(f"x{i}", a.shape, a.dtype.name) for i, a in enumerate(samples[0]))
    captured_program.save_captured_program(
        captured_program.capture_program(Model(build(name), "tests:net", specs, None, 0), samples[0]), work
    )
    return work


def test_weights_that_stay_in_float_are_no_int8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal says how many weights stay in float32, and what reads them."""
    samples = tuple(ZOO["rnn"].samples(4))
    monkeypatch.setattr(stage_results, "load_stage_data", lambda _: Data(samples, samples, "arrays"))
    with pytest.raises(LoweringError, match="would leave 100% of the weights in float32"):
        int8_stage.quantize_in_int8_stage(prepared("rnn", tmp_path), 0.9)
    assert not (tmp_path / PROGRAM).exists()


def test_a_lower_limit_takes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is the one that verification holds the artifact to."""
    samples = tuple(ZOO["rnn"].samples(4))
    monkeypatch.setattr(stage_results, "load_stage_data", lambda _: Data(samples, samples, "arrays"))
    int8_stage.quantize_in_int8_stage(prepared("rnn", tmp_path), 0.0)
    assert (tmp_path / PROGRAM).exists()


@pytest.mark.parametrize("name", ["lstm", "gru", "embedding bag of tokens"])
def test_recurrent_weights_and_embeddings_count_as_quantised(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LSTM and GRU have their weights in 8 bits, so that their int8 is not refused."""
    samples = tuple(ZOO[name].samples(4))
    monkeypatch.setattr(stage_results, "load_stage_data", lambda _: Data(samples, samples, "arrays"))
    int8_stage.quantize_in_int8_stage(prepared(name, tmp_path), 0.9)
    assert (tmp_path / PROGRAM).exists()
