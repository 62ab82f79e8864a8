"""Records that the stages pass on: facts of a checkpoint, built and checked artifacts, measured extras."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from exporter.records import (
    Array,
    CurvePoint,
    DataKind,
    Evaluation,
    ImageInput,
    Limits,
    MixedPoint,
    OperatorCost,
    Preprocessing,
    Scenes,
    Structure,
    TaskEvaluation,
    TaskName,
    TensorSpec,
    Variant,
    Verdict,
)

if TYPE_CHECKING:
    from exporter.data import Data
    from exporter.records import Array


@dataclass(frozen=True)
class ExtraResults:
    """Measurements made on request, for the report."""

    evaluation: Evaluation | None = None
    task_evaluation: TaskEvaluation | None = None
    curve: tuple[CurvePoint, ...] = ()
    warnings: tuple[str, ...] = ()
    mixed_points: tuple[MixedPoint, ...] = ()


DATA = "data.pkl"
"""The file of the data in the work folder: written last, when a model is captured."""


@dataclass(frozen=True)
class ReadResult:
    """The results of reading and capturing that later stages need and that are not tensors."""

    source_sha256: str
    source_kind: str
    architecture: str
    parameters: int
    matrix_weights: int
    flops: int | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing | None
    labels: tuple[str, ...]
    data_kind: DataKind
    calibration_count: int
    verification_count: int
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    digest: str
    """sha256 of the graph and its weights; empty when there is no graph."""
    scenes: Scenes = field(default_factory=Scenes)
    image: ImageInput | None = None
    """How Core ML packages prepare a picture; None where they take the model's own input."""
    activation_bytes: int = 0
    """The most that one call's values take at once in float64; 0 where there is no graph to read it from."""


@dataclass(frozen=True)
class BuildResult:
    """One variant after its build: `file` is None when it could not be made."""

    variant: Variant
    file: str | None
    notes: tuple[str, ...] = ()
    error: str | None = None
    source_line: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class ExpectedResult:
    """What an artifact is checked against, besides the references."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    matrix_weights: int
    limits: Limits
    labels: tuple[str, ...] = ()
    task: TaskName = ""
    """As the user named it; empty leaves it to the outputs."""
    image: ImageInput | None = None
    """How a Core ML package prepares the picture that is its input; None where it takes the model's own."""
    flops: int = 0
    """FLOPs of a call, which bound how long it may take; 0 where they are not known."""


@dataclass(frozen=True, eq=False)
class CheckResult:
    """One artifact after verification."""

    structure: Structure | None
    verdict: Verdict
    outputs: Array | None = None
    """Some of its output values, flat, for the report's histogram."""


def load_stage_data(work: Path) -> Data:
    """Read what `capture_in_read_stage` wrote."""
    data: Data = pickle.loads((work / DATA).read_bytes())  # our own file, in our own folder
    return data


@dataclass(frozen=True)
class LabelsResult:
    """The labelled samples, as far as the caller's process needs them."""

    kind: Literal["photos", "arrays"]
    classes: int
    labels: tuple[int, ...]
    notes: tuple[str, ...]
    digest: str = ""
    """A hash of the samples, their order and their labels."""
    task: TaskName = ""
    """The task whose labels these are; empty for classes."""


@dataclass(frozen=True)
class RankedResult:
    """The most likely classes of every sample; kept in the cache."""

    rows: tuple[tuple[int, ...], ...]

    def array(self) -> Array:
        return np.array(self.rows, np.int32)


@dataclass(frozen=True)
class ScoredRows:
    """What every sample contributes to a task's measures (`exporter.verify.scores`); kept in the cache."""

    count: int
    """Samples that could be read; rows name them by their number among these."""
    tables: dict[str, tuple[tuple[float, ...], ...]]


@dataclass(frozen=True)
class QuantizationResult:
    """The costs of a quantised program."""

    costs: tuple[OperatorCost, ...] = ()
    """In the order the operators run."""


@dataclass(frozen=True, eq=False)
class CheckedArtifactResult:
    """One artifact's verdict and structure, as the cache stores them."""

    structure: Structure | None
    verdict: Verdict
    outputs: tuple[float, ...] = ()
    """Some output values, for the report's histogram."""


def stage_results_run_here(
    built: Sequence[BuildResult], checked: Mapping[str, CheckedArtifactResult]
) -> tuple[BuildResult, ...]:
    """Return the artifacts that ran on this machine in the runtime that a phone has."""
    return tuple(
        b
        for b in built
        if b.file
        and checked[b.variant.name].verdict.comparison is not None
        and checked[b.variant.name].verdict.executor == "runtime"
    )
