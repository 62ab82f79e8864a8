"""Tests of turning counts into milliseconds."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from exporter.config.targets import TARGETS, Target, get_target
from exporter.estimate import chips, latency_model
from exporter.estimate.graph_work import GraphWork
from exporter.estimate.instruction_counts import Counts
from exporter.estimate.latency_model import Work
from exporter.estimate.parameters import Fit, load_parameters
from exporter.records import EstimatedLatency, Precision

SD865 = get_target("snapdragon865")
MOBILENET = Counts(
    fma=78_005_256, simd=9_906_054, scalar=37_022_016, branch=17_022_298, load=28_530_458, store=8_103_988
)
"""ONNX Runtime's count of MobileNetV2 in float32."""
SNAPDRAGONS = [target for target in TARGETS if target.name.startswith("snapdragon")]


def fit(runtime: str = "onnxruntime", precision: Precision = "fp32") -> Fit:
    found = latency_model.fit_of_latency_model(load_parameters(), runtime, precision)
    assert found
    return found


def estimated(
    counts: Counts | None = MOBILENET, threads: int = 1, precision: Precision = "fp32", **changes: Any
) -> EstimatedLatency:
    work = dataclasses.replace(Work(counts, 601_548_544, 13_879_080, 53), **changes)
    return latency_model.estimate_by_latency_model(
        work, SD865, load_parameters(), fit(precision=precision), precision, threads
    )


def test_a_mobilenet_takes_what_was_published() -> None:
    """29.1 and 29.3 ms on one thread of a Snapdragon 865 lie in the interval, and near its middle."""
    estimate = estimated()
    assert estimate.low_ms < 29.1 < 29.3 < estimate.high_ms
    assert estimate.p50_ms == pytest.approx(29.2, rel=0.15)
    assert (estimate.evidence, estimate.basis) == ("estimated", "counts")


@pytest.mark.parametrize("threads", latency_model.THREADS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("known", [False, True], ids=["counts alone", "and the graph"])
def test_a_kernel_that_runs_twice_takes_twice_as_long(
    threads: int, precision: Precision, known: bool
) -> None:
    """Counting everything twice doubles the time, but for what a call costs once: the graph tells nothing."""
    twice = Counts(*(2 * value for value in dataclasses.astuple(MOBILENET)))
    graph = GRAPH if known else None
    once_ms, twice_ms = (
        estimated(counts, threads, precision, kernels=kernels, graph=graph).p50_ms
        for counts, kernels in ((MOBILENET, 53), (twice, 106))
    )
    call_ms = fit(precision=precision).call_ms
    assert twice_ms - call_ms == pytest.approx(2 * (once_ms - call_ms))


@pytest.mark.parametrize("name", ["fma", "dot", "matrix", "simd", "scalar", "branch", "load", "store"])
def test_more_of_anything_is_never_faster(name: str) -> None:
    """Costs are not negative, and much of anything takes longer; rows in int8 show no cost of some."""
    more = dataclasses.replace(MOBILENET, **{name: getattr(MOBILENET, name) + 10_000_000})
    much = dataclasses.replace(MOBILENET, **{name: getattr(MOBILENET, name) + 200_000_000})
    for precision in ("fp32", "int8"):
        less = estimated(precision=precision).p50_ms
        assert estimated(more, precision=precision).p50_ms >= less
        assert estimated(much, precision=precision).p50_ms > less


@pytest.mark.parametrize("target", SNAPDRAGONS, ids=lambda target: target.name)
@pytest.mark.parametrize("runtime", ["onnxruntime", "executorch", "torchscript"])
@pytest.mark.parametrize("threads", latency_model.THREADS)
def test_every_snapdragon_has_estimates(target: Any, runtime: str, threads: int) -> None:
    """Each runtime has a figure inside its interval; chips other than the rows' own have wider ones."""
    assert latency_model.has_latency_model(target)
    counts = None if runtime == "torchscript" else MOBILENET
    work = Work(counts, 601_548_544, 13_879_080, 53)
    fitted = load_parameters()
    own, of_865 = (
        latency_model.estimate_by_latency_model(work, phone, fitted, fit(runtime), "fp32", threads)
        for phone in (target, SD865)
    )
    assert 0 < own.low_ms < own.p50_ms < own.high_ms
    assert sum(own.shares.values()) == pytest.approx(1, abs=0.1)
    if target is not SD865:
        assert own.high_ms / own.low_ms > of_865.high_ms / of_865.low_ms
        assert any("documented widths" in note for note in own.notes)


@pytest.mark.parametrize("name", ["iphone", "generic-arm64"])
def test_other_targets_have_none(name: str) -> None:
    """No row and no core of theirs is known."""
    assert not latency_model.has_latency_model(get_target(name))


def test_executorch_carries_the_cross_runtime_error_and_says_so() -> None:
    """No row of ExecuTorch exists, so its interval is wider than that of ONNX Runtime."""
    work = Work(MOBILENET, 601_548_544, 13_879_080, 53)
    known, unknown = (
        latency_model.estimate_by_latency_model(work, SD865, load_parameters(), fit(runtime), "fp32", 1)
        for runtime in ("onnxruntime", "executorch")
    )
    assert unknown.high_ms / unknown.low_ms > known.high_ms / known.low_ms
    assert any("No latency of ExecuTorch" in note for note in unknown.notes)
    assert not any("ExecuTorch" in note for note in known.notes)


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"counts": None}, "Nothing was counted"),
        ({"counts": Counts(fma=1000)}, "far outside"),
        ({"counts": dataclasses.replace(MOBILENET, scalar=2_000_000_000)}, "without matrix products"),
    ],
    ids=["no counts", "size", "operators"],
)
def test_what_the_rows_do_not_show_widens_the_interval(change: dict[str, Any], note: str) -> None:
    """An unseen size, unseen operators and missing counts each say so."""
    usual, unusual = estimated(), estimated(**change)
    assert unusual.high_ms / unusual.low_ms > usual.high_ms / usual.low_ms
    assert any(note in text for text in unusual.notes)
    assert not any(note in text for text in usual.notes)


def test_a_graph_shows_unseen_operators_as_counts_do() -> None:
    """A network whose time goes to values rather than products is like no row, counted or not."""
    own = fit()
    unlike = dataclasses.replace(GRAPH, values=10 * GRAPH.values)
    usual, unusual = estimated(None, graph=GRAPH), estimated(None, graph=unlike)
    assert unusual.high_ms / unusual.low_ms > usual.high_ms / usual.low_ms
    assert any("without matrix products" in note for note in unusual.notes)
    assert not any("without matrix products" in note for note in usual.notes)
    assert 0 < own.most_other_of_graph < 1


DEPTHWISE, FUNCTIONS = latency_model.DEPTHWISE_IN_INT8, latency_model.FUNCTIONS_IN_INT8


@pytest.mark.parametrize("threads", latency_model.THREADS)
@pytest.mark.parametrize(
    ("precision", "graph", "notes"),
    [
        ("int8", (20_000_000, 0), {DEPTHWISE}),
        ("int8", (20_000_000, 6_000_000), {DEPTHWISE, FUNCTIONS}),
        ("int8", (0, 6_000_000), {FUNCTIONS}),
        ("int8", None, {DEPTHWISE, FUNCTIONS}),
        ("int8", (0, 0), set()),
        ("fp32", (20_000_000, 6_000_000), set()),
    ],
    ids=["depthwise", "both", "functions", "not known", "neither", "float32"],
)
def test_what_int8_rows_do_not_show_is_uncertain_without_counts(
    threads: int, precision: Precision, graph: tuple[int, int] | None, notes: set[str]
) -> None:
    """Counts find such operators to take up to twice as long as the graph tells; counts widen nothing."""
    known = graph and dataclasses.replace(GRAPH, depthwise_macs=graph[0], functions=graph[1])
    usual = fit(precision=precision).operators_spread if known else fit(precision=precision).graph_spread
    estimate = estimated(None, threads, precision, graph=known)
    factor = estimate.high_ms / estimate.p50_ms / usual[str(threads)].factor
    assert factor == pytest.approx(latency_model.UNSEEN_FACTOR ** len(notes))
    assert {DEPTHWISE, FUNCTIONS} & set(estimate.notes) == notes
    counted = estimated(MOBILENET, threads, precision, graph=known)
    assert not {DEPTHWISE, FUNCTIONS} & set(counted.notes)


@pytest.mark.parametrize("threads", latency_model.THREADS)
@pytest.mark.parametrize("kernels", [0, 2, 10])
def test_a_network_of_few_layers_costs_a_part_of_a_call(threads: int, kernels: int) -> None:
    """Rows in int8 are of 21 kernels and more: two layers do not take half a millisecond as those do."""
    own, tiny = fit(precision="int8"), Counts(fma=1000, scalar=10_000)
    assert own.least_kernels == 21
    call = own.call_ms * kernels / own.least_kernels
    short = estimated(tiny, threads, "int8", kernels=kernels, weight_bytes=0).p50_ms
    assert short == pytest.approx(call, abs=0.002)
    few, many = (estimated(MOBILENET, threads, "int8", kernels=n).p50_ms for n in (21, 100))
    assert few == pytest.approx(many)


@pytest.mark.parametrize("target", SNAPDRAGONS, ids=lambda target: target.name)
@pytest.mark.parametrize("threads", latency_model.THREADS)
def test_a_tiny_network_is_an_unseen_size_on_every_chip(target: Target, threads: int) -> None:
    """What a call costs once does not shrink with the core, and is no size."""
    work = Work(Counts(fma=1000, scalar=10_000), 2000, 1000, 2)
    estimate = latency_model.estimate_by_latency_model(
        work, target, load_parameters(), fit(precision="int8"), "int8", threads
    )
    assert any("far outside" in note for note in estimate.notes)


@pytest.mark.parametrize("target", SNAPDRAGONS, ids=lambda target: target.name)
@pytest.mark.parametrize("threads", latency_model.THREADS)
def test_a_published_network_is_no_unseen_size_on_a_faster_chip(target: Target, threads: int) -> None:
    """Sizes are compared on the reference core: a newer phone makes no other network of a MobileNetV2."""
    work = Work(MOBILENET, 601_548_544, 13_879_080, 53)
    estimate = latency_model.estimate_by_latency_model(
        work, target, load_parameters(), fit(), "fp32", threads
    )
    assert not any("far outside" in note for note in estimate.notes)


@pytest.mark.parametrize("counts", [MOBILENET, None], ids=["counted", "graph"])
def test_an_unseen_size_widens_every_interval(counts: Counts | None) -> None:
    """No row tells the interval of a network of a microsecond, whether it was counted or not."""
    tiny = Counts(fma=1000) if counts else None
    small = GraphWork(macs=1000, depthwise_macs=0, values=100, missed_bytes=0)
    usual, unusual = estimated(counts, graph=GRAPH), estimated(tiny, graph=small)
    assert unusual.high_ms / unusual.low_ms > usual.high_ms / usual.low_ms
    assert any("far outside" in note for note in unusual.notes)


def test_kernels_are_counted_by_their_operators() -> None:
    """Names of ONNX, ExecuTorch and its delegates all count; quantisation and activations do not."""
    operators = {
        "Conv": 2,
        "Gemm": 1,
        "aten::linear": 3,
        "XNNFullyConnected": 1,
        "Relu": 9,
        "QuantizeLinear": 7,
    }
    assert latency_model.count_kernels_for_latency_model(operators) == 7


def test_the_parameters_name_their_sources() -> None:
    """Data without provenance proves nothing; costs are never negative."""
    fitted = load_parameters()
    assert any("MIT" in line for line in fitted.provenance)
    for item in fitted.fits.values():
        assert all(cost >= 0 for cost in item.cycles.values())
        assert {*item.spread, *item.graph_spread} == {"1", "4"}
        assert all(
            s.factor > 1 and 0.5 < s.coverage < 1
            for s in (*item.spread.values(), *item.graph_spread.values())
        )


@pytest.mark.parametrize("target", SNAPDRAGONS, ids=lambda target: target.name)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", ["simd", "scalar", "branch", "load", "store"])
def test_no_core_executes_more_than_its_decoders_take(
    target: Target, precision: Precision, name: str
) -> None:
    """Rows in int8 show no cost of other instructions; a network of nothing else takes its decoders' time."""
    counts, core = Counts(**{name: 400_000_000}), target.clusters[0]
    one, four = (
        latency_model.estimate_by_latency_model(
            Work(counts, 0, 1, 1), target, load_parameters(), fit(precision=precision), precision, threads
        )
        for threads in latency_model.THREADS
    )
    decoded = 400_000 / chips.CORES[core.core].others / (core.max_mhz or 1)
    assert one.p50_ms >= decoded - 1e-9
    if precision == "int8":  # in float32, loads are those of arithmetic
        assert any("without matrix products" in note for note in one.notes)
    assert decoded / 4 < four.p50_ms <= one.p50_ms + fit(precision=precision).scaling.kernel_ms + 1e-9
    assert sum(one.shares.values()) == pytest.approx(1)


@pytest.mark.parametrize("target", SNAPDRAGONS, ids=lambda target: target.name)
@pytest.mark.parametrize("threads", latency_model.THREADS)
def test_weights_that_fit_into_no_cache_are_read_in_every_call(target: Any, threads: int) -> None:
    """No call is faster than the memory, and the estimate says so; weights in the caches are free."""
    memory = chips.MEMORIES[target.soc]
    few = dataclasses.replace(MOBILENET, fma=1_000_000)
    times = [
        latency_model.estimate_by_latency_model(
            Work(few, 0, weight_bytes, 1), target, load_parameters(), fit(), "fp32", threads
        )
        for weight_bytes in (1_000_000, int(memory.caches_mb * 1e6), 4_000_000_000)
    ]
    assert times[0].p50_ms == times[1].p50_ms
    assert times[2].p50_ms == pytest.approx((4e9 - memory.caches_mb * 1e6) / memory.gb_per_s / 1e6)
    assert [item.shares.get("memory", 0.0) > 0.3 for item in times] == [False, False, True]


GRAPH = GraphWork(
    macs=280_057_856,
    depthwise_macs=20_716_416,
    values=14_162_024,
    missed_bytes=20_000_000,
    depthwise_values=6_043_072,
    conv_values=13_444_032,
    patches=338_688,
)
"""MobileNetV2's."""


@pytest.mark.parametrize("runtime", ["onnxruntime", "executorch", "torchscript"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_what_knows_less_is_never_more_certain(runtime: str, precision: Precision) -> None:
    """Counts, operators and FLOPs have intervals in this order, for each number of threads."""
    own = latency_model.fit_of_latency_model(load_parameters(), runtime, precision)
    for threads in ("1", "4") if own else ():
        assert own
        factors = [spread[threads].factor for spread in (own.spread, own.operators_spread, own.graph_spread)]
        assert factors == sorted(factors)


def test_a_graph_tells_more_than_flops() -> None:
    """Operators give a narrower interval than FLOPs where nothing is counted, and a note tells the basis."""
    by_graph, by_flops = estimated(None, graph=GRAPH), estimated(None)
    assert by_graph.high_ms / by_graph.low_ms < by_flops.high_ms / by_flops.low_ms
    assert any("the operators of the graph" in note for note in by_graph.notes)
    assert by_graph.basis == "graph"


@pytest.mark.parametrize("name", ["macs", "depthwise_macs", "values", "depthwise_values", "patches"])
def test_more_work_in_a_graph_takes_longer(name: str) -> None:
    """Every kind of work of ONNX Runtime's kernels costs something."""
    more = dataclasses.replace(GRAPH, **{name: 10_000_000 + 2 * getattr(GRAPH, name)})
    assert estimated(None, graph=more).p50_ms > estimated(None, graph=GRAPH).p50_ms


@pytest.mark.parametrize("name", ["values", "conv_values", "functions"])
def test_pytorch_mobiles_layouts_and_functions_cost(name: str) -> None:
    """Its convolutions change the layout of their values, and functions are evaluated one by one."""
    own = fit("torchscript")
    more = dataclasses.replace(GRAPH, **{name: 10_000_000 + getattr(GRAPH, name)})
    less, longer = (
        latency_model.estimate_by_latency_model(
            Work(None, 601_548_544, 13_879_080, 53, graph), SD865, load_parameters(), own, "fp32", 1
        ).p50_ms
        for graph in (GRAPH, more)
    )
    assert longer > less
    assert own.operators["functions"] > 5 * own.operators["conv_values"] > own.operators["values"]


def test_what_comes_from_beyond_the_caches_bounds_a_call() -> None:
    """Activations count too, where the graph tells them: 4.4 GB take 100 ms at 44 GB a second."""
    beyond = dataclasses.replace(GRAPH, missed_bytes=4_400_000_000)
    slow = estimated(graph=beyond)
    assert slow.p50_ms == pytest.approx(100.0)
    assert slow.shares["memory"] > 0.5
    assert "memory" not in estimated(graph=GRAPH).shares


def test_chips_name_their_sources() -> None:
    """Each figure has the page where it was read, or says that it is assumed."""
    for core in chips.CORES.values():
        for source in (core.vectors_source, core.others_source):
            assert source == chips.ASSUMED or source.startswith("https://")
    for memory in chips.MEMORIES.values():
        for source in (memory.last_source, memory.speed_source):
            assert source == chips.ASSUMED or source.startswith("https://")
    assert not chips.CORES["Cortex-A77"].assumed  # the core of the fit


@pytest.mark.parametrize("name", ["snapdragon888", "snapdragon8gen1", "snapdragon8gen2", "snapdragon8elite"])
@pytest.mark.parametrize("threads", latency_model.THREADS)
def test_an_assumed_width_widens_the_interval_and_is_named(
    name: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every width of the fast cores has a page today; without one, an estimate that needs it says so."""
    work, target = Work(MOBILENET, 601_548_544, 13_879_080, 53), get_target(name)
    core = target.clusters[0].core
    documented = chips.CORES[core]
    cores = dict(chips.CORES)
    monkeypatch.setattr(latency_model, "CORES", cores)
    for assumed in (False, True):
        unknown = dataclasses.replace(documented, vectors_source=chips.ASSUMED, others_source=chips.ASSUMED)
        cores[core] = unknown if assumed else documented
        fitted = load_parameters()
        estimate = latency_model.estimate_by_latency_model(work, target, fitted, fit(), "fp32", threads)
        factor = fit().spread[str(threads)].factor * latency_model.OTHER_CORE_FACTOR
        named = [note for note in estimate.notes if "is assumed" in note]
        assert len(named) == assumed
        assert all(core in note for note in named)
        more = latency_model.ASSUMED_FACTOR if assumed else 1
        assert estimate.high_ms / estimate.p50_ms == pytest.approx(factor * more)


def test_an_assumed_cache_widens_what_the_memory_bounds() -> None:
    """The system's cache has no public size; it matters only where the memory decides."""
    few = dataclasses.replace(MOBILENET, fma=1_000_000)
    bound, free = (estimated(few, weight_bytes=size) for size in (4_000_000_000, 1_000_000))
    assert any("system cache is assumed" in note for note in bound.notes)
    assert not any("is assumed" in note for note in free.notes)


def test_vector_instructions_cost_what_the_core_allows() -> None:
    """Two a cycle is what a Cortex-A77 executes: a fit below that explains other rows by chance."""
    costs = fit().cycles
    assert min(costs["fma"], costs["simd"]) >= 1 / chips.CORES["Cortex-A77"].vectors


def test_other_instructions_stay_on_one_thread() -> None:
    """Four threads shorten multiply-adds and their loads, and nothing else."""
    only = dataclasses.replace(MOBILENET, fma=0, load=0, store=0)
    one, four = (estimated(only, threads, kernels=0).p50_ms for threads in latency_model.THREADS)
    assert four == pytest.approx(one)
    assert estimated(threads=4).p50_ms < 0.6 * estimated().p50_ms


def test_values_of_a_graph_stay_on_one_thread_in_float32() -> None:
    """Four threads shorten multiply-accumulates and the loads of convolutions alone, counted or not."""
    only = dataclasses.replace(GRAPH, macs=0, depthwise_macs=0, depthwise_values=0, patches=0)
    one, four = (estimated(None, threads, graph=only, kernels=0).p50_ms for threads in latency_model.THREADS)
    assert four == pytest.approx(one)
    arithmetic = dataclasses.replace(GRAPH, values=0, depthwise_values=2_000_000, patches=1_000_000)
    one, four = (
        estimated(None, threads, graph=arithmetic, kernels=0).p50_ms for threads in latency_model.THREADS
    )
    assert four < 0.4 * one
