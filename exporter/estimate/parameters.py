"""The fitted parameters: data with their provenance, written by `python -m benchmarks.estimate --fit`."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

FILE = Path(__file__).with_name("parameters.json")


@dataclass(frozen=True)
class Scaling:
    """Four threads take less time than one by this."""

    speedup: float
    """The time of multiply-adds and of their loads is divided by this."""
    other_speedup: float
    """The time of all other instructions is divided by this; 1 where they stay on one thread."""
    kernel_ms: float
    """What starting the threads costs, for each convolution or matrix product."""


@dataclass(frozen=True)
class Spread:
    """The interval around an estimate: from p50 / factor to p50 * factor."""

    factor: float
    coverage: float
    """The share of cases that the interval is meant to hold, by conformal prediction."""
    rows: int
    """How many published latencies it follows from."""


@dataclass(frozen=True)
class SmallCore:
    """How many cycles a chip's small core takes for one of the reference core. Nonnegative."""

    arithmetic: float
    """For multiply-adds and dot products."""
    others: float
    """For all other instructions, loads and stores."""
    spread: Spread
    """How far published latencies on the small core are from those predicted so from the fast one's."""


@dataclass(frozen=True)
class Fit:
    """The costs of one runtime and precision on the reference core."""

    cycles: Mapping[str, float]
    """Class -> cycles of one instruction: fma, dot, simd (other vector ones), load (and store), other."""
    call_ms: float
    """What every call costs besides."""
    least_kernels: int
    """The fewest convolutions and matrix products of the rows: a call of fewer costs a part of `call_ms`."""
    scaling: Scaling
    spread: Mapping[str, Spread]
    """Number of threads -> interval."""
    operators: Mapping[str, float]
    """Field of `GraphWork` -> cycles of each: for what is not counted. One that is missing costs nothing."""
    operators_spread: Mapping[str, Spread]
    graph: Mapping[str, float]
    """Where no graph can be read: cycles of a "flop", of a "byte" of weights and of a "kernel"."""
    graph_spread: Mapping[str, Spread]
    seen_ms: tuple[float, float]
    """The shortest and the longest whole model among the rows."""
    most_other: float
    """The largest share of other instructions among the rows' models: more is an unseen kind of operator."""
    most_other_of_graph: float
    """The largest share of their values' time by the costs of the graph, where nothing is counted."""
    caveat: str
    """What these rows cannot tell, a sentence; empty where the rows are of this runtime and precision."""
    other_runtime: float = 1.0
    """The factor by which latencies differ from those of the rows' runtime; 1 where that is the same."""
    small: Mapping[str, SmallCore] = field(default_factory=dict)
    """"Cortex-A55" -> how much longer it takes."""


@dataclass(frozen=True)
class Parameters:
    """Everything that is fitted, for the core of the published latencies."""

    core: str
    mhz: int
    fits: Mapping[str, Fit]
    """"onnxruntime fp32" -> its fit."""
    provenance: tuple[str, ...]


@functools.cache
def load_parameters(path: Path = FILE) -> Parameters:
    """Read the parameters of the package."""
    from pydantic import TypeAdapter

    return TypeAdapter(Parameters).validate_python(json.loads(path.read_text()))
