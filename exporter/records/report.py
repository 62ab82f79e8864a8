"""What an export reports: its artifacts, its calibration data and its search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from exporter.records.accuracy import Accuracy, Evaluation, TaskAccuracy, TaskEvaluation
from exporter.records.artifact import Structure, Variant
from exporter.records.latency import (
    BudgetVerdict,
    DeviceLatency,
    Emulation,
    EstimatedLatency,
    Latency,
)
from exporter.records.network import ImageInput, Preprocessing, TensorSpec
from exporter.records.values import Count, decibel_value
from exporter.records.verdict import Executor, Limits, Status, TaskName, Verdict


@dataclass(frozen=True)
class OperatorCost:
    """What one operator costs the output when it alone is quantised."""

    name: str
    """Unique in the program."""
    layer: str
    """Its module's path in the user's model: "features.3.conv.0.0"."""
    kind: str
    """"conv2d", "linear", "add", …"""
    noise: float
    """Energy of the output's error as a share of the output's own: 0.01 is 20 dB SQNR."""

    @classmethod
    def of_decibels(cls, name: str, layer: str, kind: str, sqnr_db: float) -> OperatorCost:
        return cls(name, layer, kind, 10 ** (-sqnr_db / 10))

    @property
    def sqnr_db(self) -> float:
        """The output's SQNR in dB; infinite where the operator costs nothing."""
        return decibel_value(self.noise)

    @property
    def where(self) -> str:
        """Its layer; its own name where the model calls it outside any layer."""
        return self.layer or self.name


@dataclass(frozen=True)
class MixedPoint:
    """One way to keep operators in float: a real artifact, verified and timed."""

    variant: str
    """"executorch-xnnpack-mixed"; that of the int8 artifact where nothing is kept in float."""
    float_ops: tuple[str, ...]
    """`OperatorCost.name` of the operators in float."""
    sqnr_db: float
    """On the scenes that choose, against the float64 model."""
    agreement: float | None
    p50_ms: float
    """Median latency, on this host unless a device measured."""
    size_bytes: int
    passed: bool
    """It reaches the limits that the search was given."""
    chosen: bool = False
    """It was emitted."""
    drop: float | None = None
    """Points of top-1 lost against float32; None without labelled samples, or when it gave no answers."""


@dataclass(frozen=True)
class Artifact:
    """A row of the manifest."""

    variant: Variant
    file: str | None
    size_bytes: int | None
    sha256: str | None
    status: Status
    reason: str | None
    notes: tuple[str, ...] = ()
    source_line: str | None = None
    structure: Structure | None = None
    verdict: Verdict | None = None
    latency: Latency | None = None
    build_seconds: float = 0.0
    device_latencies: tuple[DeviceLatency, ...] = ()
    accuracy: Accuracy | None = None
    """On samples labelled with classes, where there are some and it ran here."""
    task_accuracy: TaskAccuracy | None = None
    """On samples labelled for another task, where there are some and it ran here."""
    arm64: Emulation | None = None
    """None where it was not emulated."""
    estimates: tuple[EstimatedLatency, ...] = ()
    """On one and on four threads of the target's CPU; empty where nothing can be estimated."""

    @property
    def executor(self) -> Executor:
        """Return what executed it; "runtime" also where nothing did."""
        return self.verdict.executor if self.verdict else "runtime"


@dataclass(frozen=True)
class CurvePoint:
    """int8 calibrated on the first `count` samples, on all verification samples against float64."""

    count: int
    sqnr_db: float
    agreement: float | None


DataKind = Literal["photos", "arrays", "synthetic", "none"]
Purpose = Literal["calibration", "choice", "verification"]
"""What a scene serves for: to calibrate, to choose among candidates, or to judge what was chosen."""


@dataclass(frozen=True)
class Scene:
    """Several samples that show the same thing."""

    purpose: Purpose
    members: tuple[str, ...]
    """Names of the files, or "row 3"."""
    joined_by: str
    """What tells that they are one scene: "file names", "the same picture content", "near copies"."""


@dataclass(frozen=True)
class Scenes:
    """How many scenes serve each purpose; none serves two, but for choice where there are only two."""

    calibration: Count = 0
    choice: Count = 0
    """0 when nothing was chosen among."""
    verification: Count = 0
    groups: tuple[Scene, ...] = ()
    """The scenes of several samples; every other sample is a scene of its own."""


@dataclass(frozen=True, eq=False)
class Report:
    """Everything one run found out: what `manifest.json`, `report.html` and the terminal show."""

    source_file: str
    """The checkpoint's file name, without its folder."""
    source_sha256: str
    source_kind: str
    architecture: str
    parameters: int
    flops: int | None
    """FLOPs of one call at the declared input shape; None where they could not be counted."""
    target_name: str
    target_soc: str
    budget_ms: float
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing | None
    calibration_kind: DataKind
    calibration_count: int
    verification_kind: DataKind
    verification_count: int
    floor: float
    """Eager float32's own `max_error` against float64."""
    artifacts: tuple[Artifact, ...]
    selected: str | None
    """The chosen artifact's variant name; None when nothing may be shipped."""
    selection_reason: str
    numerics: Status
    budget: BudgetVerdict
    tools: Mapping[str, str]
    """Package -> version, "export_mobile" first."""
    notes: tuple[str, ...]
    """Everything that was inferred or chosen, a sentence each."""
    warnings: tuple[str, ...]
    not_offered: Mapping[str, str]
    """Variant or format -> why the target cannot use it."""
    seconds: float
    stage_seconds: Mapping[str, float]
    labels: tuple[str, ...] = ()
    image_input: ImageInput | None = None
    """How the Core ML packages prepare the picture that is their input; None where they take a tensor."""
    task: TaskName = ""
    """As the user named it; empty leaves it to the outputs."""
    scenes: Scenes = Scenes()
    limits: Limits = Limits()  # noqa: RUF009 (frozen)
    """The limits for this run's artifacts; `export-mobile verify` applies the same."""
    operator_costs: tuple[OperatorCost, ...] = ()
    """Costs of the int8 program's operators, in the order the operators run; empty where there is none."""
    mixed_points: tuple[MixedPoint, ...] = ()
    """What `--search` tried, in the order it did; empty without a search."""
    matrix_weights: int = 0
    """Elements of the two-or-more-dimensional weights the graph uses; 0 where there was no graph to count."""
    evidence_files: Mapping[str, str] = field(default_factory=dict)
    """Files beside the artifacts that `verify` needs (inputs and expected outputs), name -> SHA-256."""
    toolchain: str = ""
    """The tested set of framework versions, or what differs from the nearest."""
    page_sha256: str = ""
    """The sha256 of report.html; empty until it is written."""
    evaluation: Evaluation | None = None
    """None when no labels of classes were given."""
    task_evaluation: TaskEvaluation | None = None
    """None when no labels of another task were given."""
    calibration_sweep: tuple[CurvePoint, ...] = ()
    """Empty unless it was asked for."""
    export_budget_ms: float | None = None
    """The export's own budget where `bench --budget` gave another; else None."""

    @property
    def own_budget_ms(self) -> float:
        """Return the budget that the export was made for."""
        return self.export_budget_ms or self.budget_ms
