"""Tests of estimates on a chip's small cores."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from exporter.config.targets import get_target
from exporter.estimate import latency_model, small_core
from exporter.estimate.latency_model import Work
from exporter.estimate.parameters import SmallCore, Spread, load_parameters
from exporter.records import EstimatedLatency, Precision
from tests.estimate.test_latency_model import GRAPH, MOBILENET, SD865, SNAPDRAGONS, estimated, fit

SMALL = SmallCore(arithmetic=3.0, others=6.0, spread=Spread(1.3, 0.9, 100))


def on_small(
    name: str = "snapdragon865", small: SmallCore = SMALL, call_ms: float = 0.0, **changes: Any
) -> EstimatedLatency:
    own = dataclasses.replace(fit(), small={"Cortex-A55": small}, call_ms=call_ms)
    work = dataclasses.replace(Work(MOBILENET, 601_548_544, 13_879_080, 53), **changes)
    estimate = small_core.estimate_on_small_core(work, get_target(name), load_parameters(), own, "fp32")
    assert estimate
    return estimate


def test_a_small_core_takes_its_own_cycles_of_each_class() -> None:
    """Arithmetic and the rest have factors of their own, at the small core's own clock."""
    arithmetic = dataclasses.replace(MOBILENET, simd=0, scalar=0, branch=0, load=0, store=0)
    others = dataclasses.replace(MOBILENET, fma=0)
    assert on_small(counts=arithmetic).p50_ms == pytest.approx(
        arithmetic.fma * fit().cycles["fma"] * 3 / 1.805e6
    )
    slower = on_small(counts=others, small=dataclasses.replace(SMALL, others=12.0))
    assert slower.p50_ms == pytest.approx(2 * on_small(counts=others).p50_ms)
    call = on_small(counts=others, call_ms=0.5).p50_ms - on_small(counts=others).p50_ms
    assert call == pytest.approx(0.5 * 6 * 2842 / 1805)  # what a call costs once is other instructions, too


def test_a_small_cores_interval_carries_its_own_misses_too() -> None:
    """It is wider than the fast core's and than that of the factors, and the record names the core."""
    small, fast = on_small(), estimated()
    factor = small.high_ms / small.p50_ms
    assert factor > max(fast.high_ms / fast.p50_ms, SMALL.spread.factor)
    assert (small.core, small.threads, small.where) == ("Cortex-A55", 1, "1 thread of a Cortex-A55")
    assert (fast.core, fast.where) == ("", "1 thread")
    assert sum(small.shares.values()) == pytest.approx(1)


def test_a_small_core_executes_no_more_than_its_decoders_take() -> None:
    """Costs of nothing are no estimate: a Cortex-A55 takes two instructions a cycle, a Cortex-A510 three."""
    nothing = SmallCore(0.0, 0.0, SMALL.spread)
    for name, width, mhz in (("snapdragon865", 2, 1805), ("snapdragon8gen1", 3, 1800)):
        decoded = MOBILENET.instructions / width / mhz / 1000
        assert on_small(name, small=nothing).p50_ms == pytest.approx(decoded)


def test_every_chip_with_small_cores_has_an_estimate_of_one() -> None:
    """An Oryon has none, and the successors of the Cortex-A55 are scaled from it."""
    own = dataclasses.replace(fit(), small={"Cortex-A55": SMALL})
    work = Work(MOBILENET, 601_548_544, 13_879_080, 53)
    have = {
        target.name
        for target in SNAPDRAGONS
        if small_core.estimate_on_small_core(work, target, load_parameters(), own, "fp32")
    }
    assert have == {target.name for target in SNAPDRAGONS} - {"snapdragon8elite"}
    unfitted = dataclasses.replace(own, small={})
    assert small_core.estimate_on_small_core(work, SD865, load_parameters(), unfitted, "fp32") is None


@pytest.mark.parametrize(
    ("name", "core"), [("snapdragon8gen1", "Cortex-A510"), ("snapdragon8gen3", "Cortex-A520")]
)
def test_a_newer_small_core_is_scaled_by_widths_and_is_less_certain(name: str, core: str) -> None:
    """It has as many vectors and half more decoders; its interval is wider, and notes say why."""
    target, arithmetic = (
        get_target(name),
        dataclasses.replace(MOBILENET, simd=0, scalar=0, branch=0, load=0, store=0),
    )
    others = dataclasses.replace(MOBILENET, fma=0)
    mhz = (target.clusters[-1].max_mhz or 0) / 1805
    for counts, ratio in ((arithmetic, 1.0), (others, 2 / 3)):
        assert on_small(name, counts=counts).p50_ms * mhz == pytest.approx(
            ratio * on_small(counts=counts).p50_ms
        )
    new, old = on_small(name), on_small()
    assert new.core == core
    assert new.high_ms / new.p50_ms > 1.5 * old.high_ms / old.p50_ms
    assert sum(core in note for note in new.notes) == 2
    assert not any("Cortex" in note for note in old.notes)


@pytest.mark.parametrize("runtime", ["onnxruntime", "executorch", "torchscript"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_small_core_of_an_865_is_fitted_and_slower(runtime: str, precision: Precision) -> None:
    """The parameters have nonnegative costs of a Cortex-A55, and every artifact takes longer there."""
    own = latency_model.fit_of_latency_model(load_parameters(), runtime, precision)
    if own is None:
        assert (runtime, precision) == ("torchscript", "int8")
        return
    core = own.small["Cortex-A55"]
    assert min(core.arithmetic, core.others) >= 0
    counts = None if runtime == "torchscript" else MOBILENET
    work = Work(counts, 601_548_544, 13_879_080, 53, GRAPH)
    small = small_core.estimate_on_small_core(work, SD865, load_parameters(), own, precision)
    fast = latency_model.estimate_by_latency_model(work, SD865, load_parameters(), own, precision, 1)
    assert small
    assert small.p50_ms > 2 * fast.p50_ms
