"""Each figure of the reference, and of what rounding does, on outputs that are written by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.capture import calls, float64_reference, reference_floor, reference_network, rounding_errors
from exporter.capture.reference_floor import MAX_FLOOR
from exporter.capture.reference_network import ReferenceNetwork
from exporter.capture.sigmoids import ERROR
from exporter.errors import CaptureError
from exporter.records import Captured, Sample, TensorSpec

NAN, INF = math.nan, math.inf


def array(*values: complex, dtype: Any = np.float64) -> np.ndarray:
    return np.array(values, dtype)


class Does(nn.Module):
    """Calls a function, and has a weight that makes its precision known."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.does = forward
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Any:
        return self.does(self, x)


def captured(forward: Callable[[Any, Tensor], Any], *outputs: TensorSpec, **others: Any) -> Captured:
    specs = outputs or (TensorSpec("y", (1, 3)),)
    return Captured(Does(forward), None, "", (), (TensorSpec("x", (1, 3)),), specs, **others)


@pytest.mark.parametrize(
    ("values", "sigmoid", "floor"),
    [
        (array(1.0, 0.5), True, ERROR),
        (array(-1e-3, 1e-4), True, ERROR / 1e-3),
        (array(1e-6), True, MAX_FLOOR),
        (array(), True, MAX_FLOOR),
        (array(1e-3), False, 0.0),
        (array(1, dtype=np.int64), True, 0.0),
        (array(1e-3, dtype=np.complex128), True, 0.0),
    ],
)
def test_a_sigmoids_error_is_a_share_of_its_output(values: np.ndarray, sigmoid: bool, floor: float) -> None:
    """A small score's share is larger, up to the bound; no other output has such an error."""
    other = array(7.0)
    pair = [(other, values)]
    assert reference_floor.reference_floor(pair, pair, (False, sigmoid)) == pytest.approx(floor)
    assert reference_floor.reference_floor(pair, pair) == 0.0


@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_floor_of_what_is_not_finite_is_infinite(bad: float) -> None:
    """It may be on either side, in any output; where both are infinite there is no error."""
    good, wrong = [(array(1.0), array(1.0, 2.0))], [(array(1.0), array(1.0, bad))]
    assert reference_floor.reference_floor(good, wrong) == INF
    both = [(array(1.0), array(1.0, INF))]
    assert reference_floor.reference_floor(both, both) == 0.0


@pytest.mark.parametrize(
    ("floor", "bound"), [(0.0, 0.0), (1e-4, 1e-4), (1e-3, 1e-3), (2e-3, 1e-3), (NAN, 1e-3), (INF, 1e-3)]
)
def test_a_floor_is_bounded(floor: float, bound: float) -> None:
    """No figure above a thousandth is a limit's basis, nor is one that cannot be told."""
    assert reference_floor.bound_reference_floor(floor) == bound


@pytest.mark.parametrize(
    ("rounded", "errors"),
    [
        ([[(array(1.0),), (array(2.0),)]], [0.0, 0.0]),
        ([[(array(1.0005),), (array(2.0),)]], [5e-4, 0.0]),
        ([[(array(1.0),), (array(2.002),)]], [0.0, 1e-3]),
        ([[(array(1.002),), (array(2.0001),)]], [0.0, 5e-5]),
        ([[(array(1.0, 1.0),), (array(2.0001),)]], [0.0, 5e-5]),
        ([[(array(NAN),), (array(2.0001),)]], [0.0, 5e-5]),
        ([[(array(1.0),), (array(2.0),)], [(array(1.0005),), (array(2.001),)]], [0.0, 0.0]),
        ([], [0.0, 0.0]),
    ],
)
def test_an_edges_own_rounding_is_its_floor(rounded: list[list[Sample]], errors: list[float]) -> None:
    """A jump, another size and no answer count as none; the network is called on inputs rounded anew."""
    given: list[Sequence[Sample]] = []

    def sequences(samples: Sequence[Sample]) -> list[list[Sample]]:
        given.append(samples)
        return rounded

    single: Any = SimpleNamespace(sequences=sequences)
    edges = [(np.linspace(k, k + 1, 50, dtype=np.float32),) for k in (1, 2)]
    figures = float64_reference._float64_reference_floors_of_rounding(
        single, edges, [(array(1.0),), (array(2.0),)]
    )
    assert figures == pytest.approx(errors, rel=1e-3)
    for (before,), (after,) in zip(edges, given[0], strict=True):
        assert 0 < np.abs(after - before).max() < 1e-6


def test_only_a_sigmoids_errors_are_raised() -> None:
    """Floats are raised to a sigmoid's error, or to what changed sigmoids make of them, and no further."""
    raised_by = float64_reference._float64_reference_with_sigmoid_errors
    errors = (array(0.0, 1.0), array(0.0), array(False, dtype=bool))
    held = (True, False, True)
    assert [e.tolist() for e in raised_by(errors, held, ())] == [[ERROR, 1.0], [0.0], [False]]
    assert [e.tolist() for e in raised_by(errors, (), ())] == [e.tolist() for e in errors]
    computed = (array(0.5, 0.5), array(0.25), array(1.0))
    assert [e.tolist() for e in raised_by(errors, (), computed)] == [[0.5, 1.0], [0.25], [False]]


def test_a_run_that_refuses_a_sample_gives_nothing() -> None:
    """The others still do."""

    def refuses(_: Sample) -> Sample:
        raise ValueError("no")

    runs = [refuses, lambda sample: sample, refuses, lambda _: (array(2.0),)]
    outputs = list(float64_reference._float64_reference_outputs(runs, (array(1.0),)))
    assert outputs == [(array(1.0),), (array(2.0),)]


@pytest.mark.parametrize(("widen", "name"), [(True, "float64"), (False, "float32")])
def test_a_network_runs_in_the_precision_that_is_asked(widen: bool, name: str) -> None:
    """Its weights and its inputs have that precision; the captured network stays as it was."""
    network = captured(lambda net, x: (x, net.weight * 1))
    outputs = ReferenceNetwork(network, widen).start()((np.ones((1, 3), np.float32),))
    assert [o.dtype.name for o in outputs] == [name, name]
    assert network.module.get_parameter("weight").dtype == torch.float32


def test_a_seed_rounds_weights_and_inputs() -> None:
    """Each seed has its own rounding, and has it again."""
    network = captured(lambda net, x: (x, net.weight * 1))

    def run(seed: int | None) -> list[float]:
        x, weight = ReferenceNetwork(network, False, seed).start()((np.ones((1, 3), np.float32),))
        return [x[0, 0].item(), weight[0].item()]

    assert run(None) == [1.0, 1.0]
    assert run(0) == run(0) != run(1)
    assert all(0 < abs(value - 1) < 1e-5 for value in (*run(0), *run(1)))


def test_a_sequence_starts_with_the_checkpoints_state() -> None:
    """Calls of one sequence follow one another; a refused one gives no sequence."""

    def counts(net: Any, x: Tensor) -> Tensor:
        if x[0, 0] < 0:
            raise ValueError("negative")
        net.weight += 1
        product: Tensor = net.weight * x
        return product

    network = ReferenceNetwork(captured(counts), widen=True)
    ones, negative = (np.ones((1, 3), np.float32),), (np.full((1, 3), -1, np.float32),)
    for _ in range(2):
        assert [output[0][0, 0] for output in network.sequence([ones, ones])] == [2.0, 3.0]
    assert [o[0][0, 0] for s in network.sequences([ones, ones]) for o in s] == [2.0, 3.0]
    assert network.sequences([ones, negative]) == []
    with pytest.raises(CaptureError, match=r"x \[1, 3\] float64: negative"):
        network.sequence([ones, negative])


def stays_single(net: nn.Module, x: Tensor) -> Tensor:
    return torch.from_numpy(x.numpy().astype(np.float32))


def stays_complex(net: nn.Module, x: Tensor) -> Tensor:
    return torch.from_numpy(x.numpy().astype(np.complex64))


def insists(net: Any, x: Tensor) -> Tensor:
    if x.dtype == torch.float64:
        raise TypeError("only float32\nand more")
    return x


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda net, x: x * net.weight, ""),
        (lambda net, x: (x > 0, x.to(torch.complex128)), ""),
        (stays_single, "its output stays float32"),
        (stays_complex, "its output stays float32"),
        (lambda net, x: (x, stays_single(net, x)), "its output stays float32"),
        (lambda net, x: x.to(torch.float32) * net.weight, ""),
        (insists, "only float32"),
    ],
)
def test_the_reference_is_as_wide_as_the_network(forward: Any, reason: str) -> None:
    """A network that insists on float32 is said to, with its own words."""
    samples = [(np.ones((1, 3), np.float32),)]
    network, notes = reference_network.widest_reference_network(captured(forward), samples)
    assert network.widen is not bool(reason)
    output = network.start()(samples[0])[-1]
    assert (output.dtype.name in ("float64", "complex128")) is network.widen
    assert len(notes) == bool(reason)
    assert not reason or f"does not run in float64 ({reason})." in notes[0]


class Above(nn.Module):
    """Returns the values of its input above a half, and their sum."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[x > 0.5], (x * 2).sum(1)


def test_outputs_of_several_sizes_are_padded_and_their_sizes_noted() -> None:
    """The largest size is that of samples and edge inputs; the facts of the network come along."""
    specs = TensorSpec("above", (2,)), TensorSpec("sum", (1,))
    network = Captured(
        Above(), None, "", (), (TensorSpec("x", (1, 4)),), specs, variable=("above",), state=("cache",)
    )
    samples = [(np.array([row], np.float32),) for row in ([0, 0, 1, 2], [0, 0, 0, 3], [4, 5, 6, 0])]
    edges = {"full": (np.array([[1, 2, 3, 4]], np.float32),), "none": (np.zeros((1, 4), np.float32),)}
    references, notes = float64_reference.run_float64_reference(network, samples, edges, (3, 3, 5))
    assert notes == ()
    assert [a[0].shape for a in (references.reference, references.edge_reference)] == [(3, 4), (2, 4)]
    assert references.reference[0].tolist() == [[1, 2, 0, 0], [3, 0, 0, 0], [4, 5, 6, 0]]
    assert references.shapes[0].tolist() == [[2], [1], [3]]
    assert references.edge_shapes[0].tolist() == [[4], [0]]
    assert [a.tolist() for a in references.scenes] == [[3, 3, 5]]
    assert (references.edge_names, references.output_names) == (("full", "none"), ("above", "sum"))
    assert (references.state, references.reference_dtype) == (("cache",), "float64")
    assert (references.epsilons, references.resting) == (None, ())
    assert len(references.edge_floors) == 2
    assert references.edge_floor == max(references.edge_floors)
    assert references.eager_errors[0].shape == (4,)
    alike = dict.fromkeys(("full", "again"), edges["full"])
    references, _ = float64_reference.run_float64_reference(network, samples, alike)
    assert references.edge_shapes[0].tolist() == [[4], [4]]


def test_a_reference_without_edges_has_empty_ones() -> None:
    """They have the outputs' shape and type, so that a reader needs no case of its own."""
    network = captured(
        lambda net, x: (x * 2, x > 0), TensorSpec("y", (1, 3)), TensorSpec("z", (1, 3), "bool")
    )
    samples = [(np.full((1, 3), value, np.float32),) for value in (1, 2)]
    references, _ = float64_reference.run_float64_reference(network, samples, {})
    assert [(a.shape, a.dtype.name) for a in (*references.edge_inputs, *references.edge_reference)] == [
        ((0, 1, 3), "float32"), ((0, 1, 3), "float64"), ((0, 1, 3), "bool"),
    ]  # fmt: skip
    assert (references.edge_floor, references.edge_floors, references.edge_unstable) == (0.0, (), ())
    assert (references.scenes, references.shapes) == ((), ())


def test_the_floor_of_edges_is_the_largest_finite_one() -> None:
    """A note gives what the samples' is where that is large; edges have their own."""
    network = captured(lambda net, x: (x * 3 - x * 2.9999) + (x > 5))
    samples = [(np.linspace(0.1, 1, 3, dtype=np.float32)[None] * k,) for k in (1, 2)]
    edges = {"large": (np.full((1, 3), 10.3, np.float32),)}
    references, notes = float64_reference.run_float64_reference(network, samples, edges)
    assert references.floor > references.edge_floor > 0
    assert (references.floor == MAX_FLOOR) == any("Eager float32 itself is" in note for note in notes)


def test_float32_is_rounded_anew_where_it_is_the_reference() -> None:
    """It would have no error against itself, unless it refuses other inputs."""
    samples = [(np.linspace(1, 2, 3, dtype=np.float32)[None],)]

    def picky(net: nn.Module, x: Tensor) -> Tensor:
        if x[0, 0] != 1 or x[0, 2] != 2:
            raise ValueError("other inputs")
        return stays_single(net, x)

    for forward, anew in ((stays_single, True), (picky, False), (lambda net, x: x, False)):
        network = captured(forward)
        exact, _ = reference_network.widest_reference_network(network, samples)
        single = reference_network.single_reference_network(network, exact, samples)
        assert not single.widen
        assert (single.seed, single.size) == (
            (0, rounding_errors.STEP) if anew else (None, rounding_errors.NUDGE)
        )


ROUNDED: list[tuple[Any, Any, list[Any], list[Any]]] = [
    (array(1.0, 2.0), array(1.0, 2.5), [], [0.0, 0.5]),
    (array(1.0, INF), array(0.75, INF), [], [0.25, 0.0]),
    (array(1j, dtype=complex), array(-1j, dtype=complex), [], [2.0]),
    (array(1, 2, 3, dtype=int), array(1, 2, 4, dtype=int), [array(1, 5, 3, dtype=int)], [False, True, True]),
    (array(True, dtype=bool), array(True, dtype=bool), [], [False]),
]


@pytest.mark.parametrize(("reference", "actual", "runs", "errors"), ROUNDED)
def test_roundings_effect_is_an_error_or_a_change(
    reference: np.ndarray, actual: np.ndarray, runs: list[np.ndarray], errors: list[Any]
) -> None:
    """The largest absolute error over the samples, or for each value of each sample whether it changes."""
    nudged = [(np.stack([run, run]),) for run in runs]
    (found,) = rounding_errors.rounding_errors([(reference,)] * 2, [(reference,), (actual,)], nudged)
    if reference.dtype.kind in "fc":
        assert found.tolist() == errors
        assert found.dtype == np.float32
    else:
        first = [bool(value) for value in reference != (runs[0] if runs else reference)]
        assert found.tolist() == [first, errors]


def test_each_output_has_its_own_runs() -> None:
    """The second output is compared with the second of each run."""
    sample = (array(1, dtype=int), array(2, dtype=int))
    first, second = rounding_errors.rounding_errors([sample], [sample], [(np.array([[1]]), np.array([[3]]))])
    assert (first.tolist(), second.tolist()) == ([[False]], [[True]])


def test_an_input_is_rounded_anew_by_half_a_step() -> None:
    """It is always changed in the same way; only floats are, and they keep their type."""
    sample = (np.linspace(1, 2, 1000, dtype=np.float32), np.arange(3), np.ones(3, bool))
    first, again = rounding_errors.round_anew(sample), rounding_errors.round_anew(sample)
    assert first[0].dtype == np.float32
    assert np.array_equal(first[0], again[0])
    change = np.abs(first[0].astype(np.float64) / sample[0] - 1)
    assert 0 < change.mean() < 2.0**-23
    assert first[1] is sample[1]
    assert first[2] is sample[2]


class Counts(nn.Module):
    """Has a buffer of whole numbers, one of floats, and an output of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.tensor([3]))
        self.register_buffer("scale", torch.ones(1))

    steps: Tensor
    scale: Tensor

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.topk(2).indices + self.steps, self.scale * 1


def test_whole_numbers_are_not_nudged_and_buffers_are() -> None:
    """Two runs with other roundings, and two that take ties from either end; the network stays."""
    net = Counts()
    samples = [(np.zeros((1, 4), np.float32),), (np.arange(4, dtype=np.float32)[None],)]
    runs = rounding_errors.run_nudged_rounding_errors(net, copy.deepcopy, calls.call_runner, samples)
    assert len(runs) == rounding_errors.TRIALS + 2
    assert all(len(run[0]) == 2 and run[0][1].tolist() == [[6, 5]] for run in runs)
    scales = [run[1][0, 0].item() for run in runs]
    assert scales[2:] == [1.0, 1.0]
    assert len({1.0, *scales[:2]}) == 3
    assert net.scale.item() == 1.0


def test_facts_of_the_graph_come_along() -> None:
    """The references know which outputs rest at the end of an activation, from the program."""
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval()
    program = torch.export.export(net, (torch.ones(1, 4),))
    specs = (TensorSpec("x", (1, 4)),), (TensorSpec("y", (1, 3)),)
    network = Captured(net, program, "", (torch.ones(1, 4),), *specs)
    samples = [(np.full((1, 4), value, np.float32),) for value in (1, 2, 3)]
    references, _ = float64_reference.run_float64_reference(network, samples, {})
    assert references.resting == (True,)
