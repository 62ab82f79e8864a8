"""An artifact may be as far from the reference as its precision costs on this model, and little further.

The cost is that of a simulation: the float program with its weights and activations rounded as the artifact
stores and computes them. An artifact rounds in other places than the simulation and sums in another order,
so that its noise has about the same level but other values; a fault (a lost bias, another activation, another
scale) adds an error that does not average out. So three figures are limited to multiples of the simulated
error's root mean square: the artifact's own error, the error of each channel, and, of the difference from
the simulation, its mean over the samples (an offset) and its projection on the output (a gain).

The margins were measured on onnx-fp16 artifacts of 24 right networks and their faulty copies: see
docs/explanation/verification.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from exporter.records import Array
from exporter.verify.gates.lowering_gate import lowering_gate_rounds_in_integers
from exporter.verify.noise_by_chance import noise_by_chance, noise_ratio_by_chance
from exporter.verify.observation import Observation
from exporter.verify.reference_io import Stacks

NOISE = 2.0
"""Times the simulated error that the whole output's error may be. Right artifacts reach 1.0."""
CHANNEL = 5.0
"""Times its simulated error (at least half the output's) that a channel's error may be. They reach 2.6."""
OFFSET = 0.5
"""Times the simulated error that the offsets' root mean square may be. They reach 0.3."""
GAIN = 0.5
"""Times the simulated error, as a share of the output's variation, that the gain may be off. They reach 0.34
on eight samples."""
EDGE = 5.0
"""Times the simulated error that one edge input's error may be: it is a single sample."""
SMALLEST = 2.0**-13
"""Simulated errors below this share of the output count as this: half a unit in float16's last place."""
SHARE = 0.9
"""Share of the samples that is judged, the best first: rounding turns a choice (an index, a threshold) in a
few of them, here and there in others."""
SUMS_IN_HALF = frozenset({"coreml", "coreai", "vulkan"})
SUMS_MARGIN = 4.0
"""Times more for backends that may sum in float16, which the simulation does in float32. On MobileNetV2 a
channel reaches 10.9 times in Core AI's CPU runtime and 7.8 on a software Vulkan driver; `CHANNEL` is 5. The
reference interpreter sums in float32, too."""
SUMMED_BIASES = 2.5
"""Times more that an offset in Core ML may be: the converter adds the two biases of a recurrent layer before
it rounds them; the simulation rounds each, as ONNX files do. A right LSTM of two layers needs 2.0."""
RECIPROCAL = 2.0**-11
"""Share of an output by which its gain and offset may be off further in Core ML: its converter turns a
division by a constant into a multiplication with the reciprocal, which float16 rounds otherwise, alike for
every value."""
INTEGER_OFFSET = 2 * math.sqrt(2)
"""Times more that an offset may be where a backend rounds in integers of its own: two independent roundings
differ by the root of two times one's error, and where a place is rounded alike in every sample, that is its
offset. Right artifacts of `benchmarks/npu.py` need 1.6."""
STORED_MARGIN = 3.0
"""Times more for compressed weights that the reference interpreter computes: they are stored with scales in
float16, which the simulation has exact, and that error is the same for every input. Right ones need 1.9."""


@dataclass(frozen=True)
class MultipleLimits:
    """How many times the simulated error an output may be off: few values leave more to chance."""

    noise: float
    offset: float
    gain: float

    @classmethod
    def of(cls, samples: int, values: int) -> MultipleLimits:
        """Return the limits for so many samples, and values of the output in each.

        What is random averages out over the samples for an offset, and over all values for the others.
        Rounding is relative, so that the largest values decide a gain: a third of as many normal ones.
        """
        few = 1 / math.sqrt(samples)
        return cls(
            noise=max(NOISE, math.sqrt(noise_ratio_by_chance(max(samples * values, 2), 1))),
            offset=max(OFFSET, 1.5 * few, few * math.sqrt(2 * noise_by_chance(values, 1))),
            gain=max(GAIN, 2 * few, few * math.sqrt(6 * noise_by_chance(1, 1) / values)),
        )


@dataclass(frozen=True)
class SimulatedFigures:
    """One output's figures, each as a multiple of the simulated error."""

    limits: MultipleLimits
    simulated_db: float
    """The simulation's signal-to-noise ratio."""
    noise: float
    channel: float
    worst: tuple[int, int]
    """Axis (of one call's output) and index of the channel with the largest error."""
    offset: float
    gain: float


def simulated_gate(observation: Observation) -> str:
    """Fail an output further from the model's than its precision costs in a simulation."""
    if observation.simulation is None:
        return ""
    margin = _simulated_margin(observation)
    for index, multiples in simulated_figures(observation).items():
        constant = RECIPROCAL if observation.variant.backend == "coreml" else 0.0
        if reason := _simulated_reason(multiples, margin, _simulated_offset_margin(observation), constant):
            return (
                f"Output {index} is not what {observation.precision} makes of this model, which a simulation "
                f"puts at {multiples.simulated_db:.1f} dB SQNR: {reason}."
            )
    return _simulated_edge_reason(observation, margin)


def may_sum_in_half(observation: Observation) -> bool:
    """Tell whether what executed the artifact may sum in half precision.

    ONNX Runtime widens float16 to float32 on this machine; on an Arm processor it has kernels that do not.
    """
    half_kernels = observation.on_device and observation.precision == "fp16"
    return half_kernels or observation.variant.backend in SUMS_IN_HALF


def _simulated_margin(observation: Observation) -> float:
    if not may_sum_in_half(observation):
        return 1.0
    if observation.executor != "reference interpreter":
        return SUMS_MARGIN
    return 1.0 if observation.precision == "fp16" else STORED_MARGIN


def _simulated_offset_margin(observation: Observation) -> float:
    if lowering_gate_rounds_in_integers(observation.variant):
        return INTEGER_OFFSET
    return SUMMED_BIASES if observation.variant.backend == "coreml" else 1.0


def simulated_limit_db(observation: Observation) -> dict[str, float]:
    """Return the SQNR that the simulation reaches, and the least that is allowed; nothing without one."""
    by_output = simulated_figures(observation) if observation.simulation else {}
    if not by_output:
        return {}
    simulated = min(f.simulated_db for f in by_output.values())
    margin = _simulated_margin(observation)
    least = min(f.simulated_db - 20 * math.log10(f.limits.noise * margin) for f in by_output.values())
    return {"simulated_sqnr_db": simulated, "min_sqnr_db_from_simulation": least}


def simulated_figures(observation: Observation) -> dict[int, SimulatedFigures]:
    """Return the figures of every float output that can be judged by the simulation, by its index."""
    assert observation.simulation is not None
    stacks = (observation.references.reference, observation.simulation.outputs, observation.outputs)
    ties = 10 ** (-observation.simulation.rounding_floor_db / 20)
    # What never moves is compared as a constant: the offset of one is its rounding.
    moving = (item for item in _simulated_comparable(*stacks) if (item[1] != item[1][:1]).any())
    return {i: _simulated_figures(y, s, a, ties) for i, y, s, a in moving}


def _simulated_comparable(
    reference: Stacks, simulated: Stacks, actual: Stacks
) -> Iterator[tuple[int, Array, Array, Array]]:
    """Yield the float outputs whose shapes agree and whose values are all finite."""
    for i, arrays in enumerate(zip(reference, simulated, actual, strict=False)):
        floats = all(a.dtype.kind == "f" for a in arrays)
        if floats and len({a.shape for a in arrays}) == 1 and arrays[0].size:
            y, s, a = (array.astype(np.float64) for array in arrays)
            if all(np.isfinite(array).all() for array in (y, s, a)) and y.any():
                yield i, y, s, a


def _simulated_rms(array: Array) -> float:
    return float(np.sqrt((array**2).mean()))


def _simulated_figures(y: Array, s: Array, a: Array, ties: float) -> SimulatedFigures:
    """Compare one output; `ties` is the share of the output that other roundings of the simulation change."""
    energies = ((a - y).reshape(len(y), -1) ** 2).sum(axis=1)
    judged = np.sort(np.argsort(energies, kind="stable")[: math.ceil(SHARE * len(y))])
    y, s, a = y[judged], s[judged], a[judged]
    error = math.hypot(max(_simulated_rms(s - y), SMALLEST * _simulated_rms(y)), ties * _simulated_rms(s))
    channel, worst = _simulated_worst_channel(s - y, a - y, error)
    varying = y - y.mean(axis=0)
    energy = float((varying**2).sum())
    gain = abs(float(((a - s) * varying).sum())) / energy if energy else 0.0
    return SimulatedFigures(
        limits=MultipleLimits.of(len(y), y[0].size),
        simulated_db=20 * math.log10(_simulated_rms(y) / error),
        noise=_simulated_rms(a - y) / error,
        channel=channel,
        worst=worst,
        offset=_simulated_rms((a - s).mean(axis=0)) / error,
        gain=gain * _simulated_rms(varying) / error,
    )


def _simulated_worst_channel(simulated: Array, actual: Array, error: float) -> tuple[float, tuple[int, int]]:
    """Return the largest error of a slice of any axis as a multiple of its simulated error, and the slice."""
    worst, where = 0.0, (0, 0)
    for axis in range(1, actual.ndim):
        others = tuple(i for i in range(actual.ndim) if i != axis)
        expected = np.sqrt((simulated**2).mean(axis=others))
        ratios = np.sqrt((actual**2).mean(axis=others)) / np.maximum(expected, error / 2)
        if ratios.max() > worst:
            worst, where = float(ratios.max()), (axis - 1, int(ratios.argmax()))
    return worst, where


def _simulated_reason(
    multiples: SimulatedFigures, margin: float, offset_margin: float = 1.0, constant: float = 0.0
) -> str:
    """Return what is beyond its limit; a constant's rounding may scale it by the share `constant`."""
    limits, (axis, index) = multiples.limits, multiples.worst
    scaled = constant * 10 ** (multiples.simulated_db / 20)
    judged = (
        ("its error is", multiples.noise, limits.noise * margin),
        (f"the error at {index} of axis {axis} is", multiples.channel, CHANNEL * margin),
        ("it is scaled, its gain is off by", multiples.gain, limits.gain * margin + scaled),
        (
            "it is shifted, its offset is",
            multiples.offset,
            limits.offset * max(margin, offset_margin) + scaled,
        ),
    )
    return next(
        (
            f"{words} {times:.1f} times the simulated error, at most {limit:.1f} times is allowed"
            for words, times, limit in judged
            if times > limit
        ),
        "",
    )


def _simulated_edge_reason(observation: Observation, margin: float) -> str:
    simulation = observation.simulation
    assert simulation is not None
    for index, name in enumerate(observation.references.edge_names):
        if name in observation.references.undecided_edges:
            continue
        row = slice(index, index + 1)
        expected = tuple(y[row] for y in observation.references.edge_reference)
        actual = tuple(a[row] for a in observation.edge_ordered)
        for output, y, s, a in _simulated_comparable(expected, simulation.edges.get(name, ()), actual):
            # A few values may be rounded by next to nothing in the simulation.
            allowed = margin * max(EDGE, math.sqrt(noise_ratio_by_chance(max(y.size, 2), 1)))
            times = _simulated_rms(a - y) / max(_simulated_rms(s - y), 2 * SMALLEST * _simulated_rms(y))
            if times > allowed:
                return (
                    f"On the edge input '{name}' the error of {observation.output_name(output)} is "
                    f"{times:.1f} times what {observation.precision} costs in a simulation; "
                    f"at most {allowed:.3g} times is allowed."
                )
    return ""
