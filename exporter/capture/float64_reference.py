"""Computes the float64 model's outputs on the verification inputs, which artifacts are judged by."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from torch import nn
from torch.compiler import set_stance

from exporter.capture import rounding_errors
from exporter.capture.calls import call_runner, copy_module_for_calls, first_line_of_call_error
from exporter.capture.epsilons import program_epsilons
from exporter.capture.other_roundings import OtherRoundings
from exporter.capture.position_axes import position_axes
from exporter.capture.reference_floor import (
    MAX_FLOOR,
    bound_reference_floor,
    note_on_reference_floor,
    reference_floor,
)
from exporter.capture.reference_network import (
    ReferenceNetwork,
    single_reference_network,
    widest_reference_network,
)
from exporter.capture.resting_activations import outputs_of_resting_activations
from exporter.capture.rounded_outputs import outputs_of_rounded_quantities
from exporter.capture.sigmoid_trials import errors_of_sigmoid_trial
from exporter.capture.sigmoids import ERROR as SIGMOID_ERROR
from exporter.capture.sigmoids import outputs_of_sigmoids
from exporter.errors import CaptureError
from exporter.records import Captured, Runner, Sample
from exporter.verify.infinite import without_infinite
from exporter.verify.reference_io import (
    ReferenceIO,
    Stacks,
    largest_reference_io_shapes,
    pad_reference_io,
    reference_io_shapes,
    stack_reference_io,
)


def run_float64_reference(
    captured: Captured,
    samples: Sequence[Sample],
    edges: Mapping[str, Sample],
    scenes: Sequence[int] = (),
) -> tuple[ReferenceIO, tuple[str, ...]]:
    """Run the model in float64 on every sample and edge input, and in float32 to learn its own error.

    Samples, and then edge inputs, are one sequence of calls each, from the state that the checkpoint holds.
    Edge inputs that the model refuses, or that give NaN or Inf, are left out; so are samples and edge inputs
    on which rounding alone decides how large an output is.

    Args:
        captured: The model.
        samples: The verification samples.
        edges: The edge inputs, by name.
        scenes: Number of each sample's scene; empty when every sample is its own.

    Returns:
        The references, and notes on how the reference was made.

    Raises:
        CaptureError: The model does not run on a sample.
    """
    exact, reason = widest_reference_network(captured, samples)
    single = single_reference_network(captured, exact, samples)
    whole, whole_single = exact.sequence(samples), single.sequence(samples)
    edge_expected, edge_actual, refused = _float64_reference_on_edges(exact, single, edges)
    _check_float64_reference_ranks(captured, [*whole, *edge_expected.values()])
    trials = _float64_reference_size_trials(captured, [*whole, *edge_expected.values()])
    if trials:
        edge_expected, edge_actual, refused = _float64_reference_on_edges(exact, single, edges, trials)
    all_samples = samples
    samples, expected, actual, unequal = _float64_reference_of_equal_sizes(
        samples, whole, whole_single, [run for trial in trials for run in trial.sequences(samples)]
    )
    usable = [edges[name] for name in edge_expected]
    edge_outputs = list(edge_expected.values())
    shapes = reference_io_shapes(expected, always=bool(captured.variable))
    edge_shapes = reference_io_shapes(edge_outputs, always=bool(shapes))
    largest = largest_reference_io_shapes([*expected, *edge_outputs])
    expected, actual, edge_outputs, edge_actual = (
        [pad_reference_io(outputs, largest) for outputs in each]
        for each in (expected, actual, edge_outputs, edge_actual)
    )
    sigmoids = outputs_of_sigmoids(captured.program)
    floor = reference_floor(expected, actual, sigmoids)
    rounded = _float64_reference_floors_of_rounding(single, usable, edge_outputs)
    other = _float64_reference_floors_of_other_roundings(single, usable, edge_outputs)
    edge_floors = [
        math.inf
        if math.isinf(anew[1])
        else bound_reference_floor(max(reference_floor([y], [a], sigmoids), *anew))
        for y, a, anew in zip(edge_outputs, edge_actual, zip(rounded, other, strict=True), strict=True)
    ]
    nudged, edge_nudged = (
        _run_nudged_float64_references(captured, largest, calls) for calls in (samples, usable)
    )
    references = ReferenceIO(
        inputs=stack_reference_io(samples),
        reference=stack_reference_io(expected),
        edge_inputs=stack_reference_io(usable) if usable else _empty_float64_reference(samples[0]),
        edge_reference=stack_reference_io(edge_outputs) if usable else _empty_float64_reference(expected[0]),
        edge_names=tuple(edge_expected),
        floor=bound_reference_floor(floor),
        edge_floor=max((floor for floor in edge_floors if math.isfinite(floor)), default=0.0),
        reference_dtype="float64" if exact.widen else "float32",
        edge_floors=tuple(edge_floors),
        eager_errors=_float64_reference_with_sigmoid_errors(
            rounding_errors.rounding_errors(expected, actual, nudged),
            sigmoids,
            errors_of_sigmoid_trial(captured.program, exact, samples, expected),
        ),
        edge_unstable=rounding_errors.rounding_errors(edge_outputs, edge_actual, edge_nudged)
        if usable
        else (),
        shapes=shapes,
        edge_shapes=edge_shapes,
        state=captured.state,
        output_names=tuple(spec.name for spec in captured.outputs),
        resting=outputs_of_resting_activations(captured.program),
        positions=tuple(np.array(axes, np.int64) for axes in position_axes(captured.program)),
        rounded=outputs_of_rounded_quantities(captured.program),
        epsilons=program_epsilons(captured.program),
        untrained_norm=single.untrained_norm(samples, stack_reference_io(expected)),
        scenes=_scenes_of_float64_reference(samples, all_samples, scenes),
    )
    notes = (*unequal, *refused, *_note_on_undecided_edges(references.undecided_edges))
    return references, (*reason, *notes, *note_on_reference_floor(floor))


def _scenes_of_float64_reference(
    samples: Sequence[Sample], all_samples: Sequence[Sample], scenes: Sequence[int]
) -> Stacks:
    """Return the scenes of the samples that are left."""
    if not scenes:
        return ()
    left = {id(sample) for sample in samples}
    pairs = zip(all_samples, scenes, strict=True)
    return (np.array([scene for sample, scene in pairs if id(sample) in left], np.int64),)


def _float64_reference_size_trials(captured: Captured, outputs: Sequence[Sample]) -> list[ReferenceNetwork]:
    """Return networks with other roundings, where the size of an output depends on the data."""
    if not captured.variable and not reference_io_shapes(outputs):
        return []
    return [ReferenceNetwork(captured, widen=False, seed=seed) for seed in range(rounding_errors.SIZE_TRIALS)]


def _float64_reference_on_edges(
    exact: ReferenceNetwork,
    single: ReferenceNetwork,
    edges: Mapping[str, Sample],
    trials: Sequence[ReferenceNetwork] = (),
) -> tuple[dict[str, Sample], list[Sample], tuple[str, ...]]:
    """Return the outputs on the edge inputs in float64 and float32, and a note on each omitted edge."""
    left = dict(edges)
    notes: list[str] = []
    while True:
        # In a function, whose networks end with it: to start again would hold them twice.
        expected, actual, refused, reason = _try_float64_reference_edges(exact, single, left, trials)
        if not refused:
            return expected, actual, tuple(notes)
        # From the start again: a call that failed may have changed a network's state.
        notes.append(f"The edge input {refused!r} is left out: {reason}.")
        del left[refused]


def _try_float64_reference_edges(
    exact: ReferenceNetwork,
    single: ReferenceNetwork,
    edges: Mapping[str, Sample],
    trials: Sequence[ReferenceNetwork],
) -> tuple[dict[str, Sample], list[Sample], str, str]:
    """Return the outputs in float64 and float32 up to an edge input that fails, its name and the reason."""
    expected: dict[str, Sample] = {}
    actual: list[Sample] = []
    run, run_single, runs = exact.start(), single.start(), [trial.start() for trial in trials]
    for name, sample in edges.items():
        try:
            expected[name] = run(sample)
            actual.append(run_single(sample))
            reason = _unusable_float64_reference(expected[name], actual[-1])
            if not _same_float64_reference_sizes(
                expected[name], actual[-1], *_float64_reference_outputs(runs, sample)
            ):
                reason = "rounding alone decides the size of an output there"
        except CaptureError as error:
            cause = first_line_of_call_error(error.__cause__ or error)
            reason = f"on it the model itself fails (it raises {cause})"
        if reason:
            return expected, actual, name, reason
    return expected, actual, "", ""


def _float64_reference_floors_of_rounding(
    single: ReferenceNetwork, edges: Sequence[Sample], expected: Sequence[Sample]
) -> list[float]:
    """Return, for each edge input, float32's largest error where every value of the input is rounded anew.

    A norm of a flat input divides the rounding of its mean by the root of its epsilon. Eager float32 may
    have none by luck; a right runtime that sums in another order has it. An error beyond `MAX_FLOOR` is a
    jump, not rounding, and counts as none.
    """
    errors = [0.0] * len(edges)
    for outputs in single.sequences([rounding_errors.round_anew(sample) for sample in edges])[:1]:
        for index, (y, a) in enumerate(zip(expected, outputs, strict=True)):
            if (error := _reference_floor_of_edge(y, a)) <= MAX_FLOOR:
                errors[index] = error
    return errors


def _float64_reference_floors_of_other_roundings(
    single: ReferenceNetwork, edges: Sequence[Sample], expected: Sequence[Sample]
) -> list[float]:
    """Return, for each edge input, float32's largest error where every operator rounds anew.

    It is infinite where no trial is within `MAX_FLOOR`: there rounding alone decides the outputs, and eager
    float32 is near float64 by luck. A single such trial is a jump.
    """
    trials = []
    for seed in range(rounding_errors.TRIALS):
        # The model's own code may raise. What `torch.cond` compiles in this mode would fail later, too.
        with contextlib.suppress(Exception), set_stance("force_eager"), OtherRoundings(seed):
            outputs = single.sequence(edges)
            trials.append([_reference_floor_of_edge(y, a) for y, a in zip(expected, outputs, strict=True)])
    if not trials:
        return [0.0] * len(edges)
    bound = [[error for error in errors if error <= MAX_FLOOR] for errors in zip(*trials, strict=True)]
    return [max(errors) if errors else math.inf for errors in bound]


def _reference_floor_of_edge(expected: Sample, actual: Sample) -> float:
    return reference_floor([expected], [actual]) if _same_float64_reference_sizes(expected, actual) else 0.0


def _note_on_undecided_edges(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    listed = ", ".join(map(repr, names))
    return (
        f"Rounding alone decides the outputs on the edge input(s) {listed}: float32 that rounds in other "
        f"places is over {MAX_FLOOR:g} of the output's scale away from float64 there (a norm of a constant, "
        "for one). Artifacts must give finite numbers on them, and no more.",
    )


def _float64_reference_outputs(runs: Sequence[Runner], sample: Sample) -> Iterator[Sample]:
    """Yield the outputs of every runner that does not refuse the sample."""
    for run in runs:
        with contextlib.suppress(Exception):  # the model's own code may raise anything
            yield run(sample)


def _same_float64_reference_sizes(*outputs: Sample) -> bool:
    return len({tuple(array.shape for array in each) for each in outputs}) == 1


def _unusable_float64_reference(expected: Sample, actual: Sample) -> str:
    settled = (without_infinite(expected, expected), without_infinite(expected, actual))
    if any(o.dtype.kind in "fc" and not np.isfinite(o).all() for outputs in settled for o in outputs):
        return "on it the model itself fails (it gives NaN or Inf)"
    floor = reference_floor([expected], [actual]) if _same_float64_reference_sizes(expected, actual) else 0.0
    if floor > MAX_FLOOR:  # a norm of nothing divides rounding by rounding
        distance = f"float32 is {floor:.1e} of the output's scale away from float64"
        return f"on it the model itself fails ({distance})"
    return ""


def _float64_reference_of_equal_sizes(
    samples: Sequence[Sample],
    expected: Sequence[Sample],
    actual: Sequence[Sample],
    trials: Sequence[Sequence[Sample]],
) -> tuple[list[Sample], list[Sample], list[Sample], tuple[str, ...]]:
    """Leave out samples where rounding alone decides how many rows an output has."""
    triples = list(zip(samples, expected, actual, strict=True))
    equal = [
        t
        for i, t in enumerate(triples)
        if _same_float64_reference_sizes(*t[1:], *(trial[i] for trial in trials))
    ]
    if not equal:
        raise CaptureError(
            "Rounding alone decides the size of an output on every sample.",
            "Nothing can be compared: export the network without its last selection.",
        )
    count = len(triples) - len(equal)
    note = f"{count} verification sample(s) are left out: rounding alone decides the size of an output there."
    return [t[0] for t in equal], [t[1] for t in equal], [t[2] for t in equal], (note,) if count else ()


def _check_float64_reference_ranks(captured: Captured, outputs: Sequence[Sample]) -> None:
    for spec, arrays in zip(captured.outputs, zip(*outputs, strict=True), strict=True):
        ranks = sorted({array.ndim for array in arrays})
        if len(ranks) > 1:
            raise CaptureError(
                f"The output {spec.name!r} has {' or '.join(map(str, ranks))} dimensions, depending on the "
                "input.",
                "Return it with one number of dimensions (squeeze with a dim, for one).",
            )


def _empty_float64_reference(sample: Sample) -> Sample:
    """Return stacks of no samples."""
    return tuple(np.zeros((0, *array.shape), array.dtype) for array in sample)


def _run_nudged_float64_references(
    captured: Captured, largest: Sequence[tuple[int, ...]], samples: Sequence[Sample]
) -> list[Stacks]:
    """Run with other roundings, where rounding can change a discrete output: class numbers, masks."""
    real = ("float", "bfloat", "complex")
    if not samples or all(spec.dtype.startswith(real) for spec in captured.outputs):
        return []

    def padding(module: nn.Module) -> Runner:
        run = call_runner(module)
        return lambda sample: pad_reference_io(run(sample), largest)

    return rounding_errors.run_nudged_rounding_errors(
        captured.module, copy_module_for_calls, padding, samples
    )


def _float64_reference_with_sigmoid_errors(
    errors: Stacks, sigmoids: Sequence[bool], computed: Stacks
) -> Stacks:
    """Let values of a sigmoid, and those computed from one, have the error of a runtime's sigmoid.

    Args:
        errors: Eager float32's, per output.
        sigmoids: Whether an output holds what a sigmoid gives; empty where that is not known.
        computed: What changed sigmoids make of each output; empty where there is none.
    """
    held = zip(errors, sigmoids or (False,) * len(errors), strict=True)
    own = [np.maximum(e, SIGMOID_ERROR) if s and e.dtype.kind == "f" else e for e, s in held]
    if not computed:
        return tuple(own)
    return tuple(np.maximum(e, c) if e.dtype.kind == "f" else e for e, c in zip(own, computed, strict=True))
