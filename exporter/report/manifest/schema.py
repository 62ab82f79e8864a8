"""The models of `manifest.json`. Field names are a contract: add fields, never rename one.

A manifest may come from anyone, so every string that becomes a path or a size is checked here, before use.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AliasChoices, FailFast, Field, model_validator

from exporter.config import targets
from exporter.files import file_inside
from exporter.records import (
    BudgetVerdict,
    Count,
    Emulation,
    Executor,
    FormatName,
    ImageInput,
    Latency,
    Limits,
    Precision,
    Preprocessing,
    Scenes,
    SizesVerdict,
    Status,
    TaskMeasure,
    TaskName,
    Variant,
    WorstChannel,
)
from exporter.report.manifest.checked_values import FileName, Fraction, Name, Part, Sha256, Tensor
from exporter.report.manifest.manifest_accuracy import Accuracy, Evaluation
from exporter.report.manifest.manifest_latencies import DeviceLatency, EstimatedLatency
from exporter.report.manifest.manifest_task_accuracy import TaskAccuracy, TaskEvaluation
from exporter.report.manifest.manifest_task_accuracy import (
    manifest_task_accuracy_contradiction as contradiction_of_scores,
)
from exporter.report.manifest.quantization import MixedPoints, OperatorCosts
from exporter.report.manifest.source_schema import (
    MAX_FILES,
    Calibration,
    CurvePoint,
    Evidence,
    Source,
    Target,
)
from exporter.verify.budget import (
    budget_contradiction,
    budget_verdict,
    recorded_budget_verdict,
    worst_for_budget,
)

SCHEMA_VERSION = 1
MAX_ARTIFACTS = 1000


Bound = Annotated[float, Field(ge=-3000, le=3000)]
"""A bound of an SQNR in decibels; 3000 stands for infinity, which JSON has not."""


class Figures(Part):
    """The figures of one comparison. One that is not finite is null, and `not_finite` says what it was."""

    samples: Count
    max_error: float | None
    sqnr_db: float | None
    top1_agreement: Fraction | None
    scenes: Count = 0
    """The number of scenes; 0 where they do not count (edge inputs)."""
    sqnr_bounds_db: tuple[Bound, Bound] | None = None
    """The lower and the upper bound of the SQNR over scenes, each one-sided 95 %."""
    agreement_bounds: tuple[Fraction, Fraction] | None = None
    problem: str = ""
    not_finite: dict[str, Literal["inf", "-inf", "nan"]] = Field(default_factory=dict)


class Verification(Figures):
    runtime: str
    executor: Executor = "runtime"
    """Something else than "runtime" where that could not execute the file here (`records.Executor`)."""
    limits: dict[str, float]
    edge: Figures | None = None
    lowering: Figures | None = None
    worst_channel: WorstChannel | None = None
    task: TaskMeasure | None = None
    sizes: SizesVerdict | None = None
    """What it does at other sizes, where its inputs may have several."""


class Structure(Part):
    """What the artifact's own file contains."""

    weight_bytes: Count
    weight_elements: dict[str, Count]
    operators: dict[str, Count]


class Artifact(Part):
    name: Name
    file: FileName | None
    format: FormatName
    backend: str
    precision: Precision
    size_bytes: Count | None
    sha256: Sha256 | None
    status: Status
    reason: str | None
    verification: Verification | None
    quantized_weight_fraction: Fraction | None
    delegated_fraction: Fraction | None
    host_latency: Latency | None
    device_latency: DeviceLatency | None = None
    """The one of `device_latencies` that counts (`budget.worst_for_budget`)."""
    device_latencies: tuple[DeviceLatency, ...] = ()
    structure: Structure | None = None
    accuracy: Accuracy | None = None
    """On samples labelled with classes."""
    task_accuracy: TaskAccuracy | None = None
    """On samples labelled for another task."""
    arm64_emulated: Emulation | None = None
    """What it computed on emulated Arm kernels; null where it was not emulated. Never a time."""
    estimated_latencies: tuple[EstimatedLatency, ...] = ()
    """What it is expected to take on the target's CPU. Calculated: no budget is met or missed by it."""
    notes: tuple[str, ...] = ()
    source_line: str | None = None
    build_seconds: float = 0.0

    @model_validator(mode="after")
    def _whole(self) -> Artifact:
        known = [value is not None for value in (self.file, self.size_bytes, self.sha256)]
        if any(known) and not all(known):
            raise ValueError("file, size_bytes and sha256 must be given together or all be null")
        if self.status in {"passed", "inconclusive"} and not (all(known) and self.verification):
            raise ValueError(f"{self.status} without a file and its verification")
        if self.status == "passed" and self.arm64_emulated and self.arm64_emulated.status == "failed":
            raise ValueError("passed, but failed on emulated Arm")
        if self.executor != "runtime" and self.host_latency:
            raise ValueError(f"a host latency, but executed by the {self.executor}")
        return self

    @property
    def executor(self) -> Executor:
        """Return what executed it; "runtime" also where nothing did."""
        return self.verification.executor if self.verification else "runtime"

    def measured_on(self) -> tuple[DeviceLatency, ...]:
        """Return every device's latency. A manifest may also hold `device_latency` alone."""
        return self.device_latencies or ((self.device_latency,) if self.device_latency else ())

    def variant(self) -> Variant:
        """Return the variant as far as a manifest describes it: group and cost matter only while building."""
        suffix = PurePosixPath(self.file).suffix if self.file else ""
        return Variant(self.name, self.format, self.backend, self.precision, suffix, self.name, 0.0)

    def path(self, directory: Path) -> Path | None:
        """Return the file's path in `directory`; None when it was never built.

        Raises:
            VerificationError: A symbolic link leads out of `directory`.
        """
        return file_inside(directory, self.file) if self.file else None


class Verdicts(Part):
    numerics: Status
    budget: BudgetVerdict


Listing = Annotated[dict[Annotated[str, Field(max_length=1000)], Sha256], Field(max_length=MAX_FILES)]
"""File name -> sha256. The names are only compared, they never become a path."""


class Release(Part):
    """The release that `export-mobile release` made; only a bundle's manifest has it."""

    name: Name
    version: Annotated[str, Field(pattern=r"^[0-9][0-9A-Za-z.-]*$", max_length=100)]
    group: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]*$", max_length=100)]
    not_measured: tuple[str, ...] = ()
    """What no phone has measured to be fast enough, one sentence each."""
    not_verified: tuple[str, ...] = ()
    """What was never executed, one sentence each."""
    overridden: tuple[str, ...] = ()
    """What the user overrode, one sentence each: wrong outputs on a device, the export's own budget."""
    files: Listing = Field(default_factory=dict)
    """Every file of the release's folder, except the zip, hashes and signatures."""
    contents: Listing = Field(default_factory=dict)
    """Every other file of the zip, except its hashes."""

    @property
    def title(self) -> str:
        """Return the name that the release's files begin with."""
        return f"{self.name}-{self.version}"


class Manifest(Part):
    """The content of `OUT/manifest.json`, checked."""

    schema_version: Literal[1]
    tool: dict[str, str]
    source: Source
    target: Target
    budget_ms: Annotated[float, Field(gt=0)]
    """The budget that the verdicts are about."""
    inputs: Annotated[tuple[Tensor, ...], Field(min_length=1)]
    outputs: Annotated[tuple[Tensor, ...], Field(min_length=1)]
    calibration: Calibration
    artifacts: Annotated[tuple[Artifact, ...], Field(max_length=MAX_ARTIFACTS), FailFast()]
    selected: str | None
    verdict: Verdicts
    evidence: Evidence = Evidence(kind="none", count=0)
    scenes: Scenes = Scenes()
    limits: Limits = Limits()
    task: TaskName = ""
    accuracy: Evaluation | None = None
    task_accuracy: TaskEvaluation | None = None
    calibration_sweep: tuple[CurvePoint, ...] = Field(
        default=(), validation_alias=AliasChoices("calibration_sweep", "calibration_curve")
    )
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] = ()
    image_input: ImageInput | None = None
    """How Core ML packages prepare the picture that is their input, as byte * scale + bias for each channel;
    null where they take the model's own input."""
    selection_reason: str = ""
    toolchain: str = ""
    """The tested set of framework versions, or what differs from the nearest; empty in older manifests."""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    not_offered: dict[str, str] = Field(default_factory=dict)
    seconds: float = 0.0
    stage_seconds: dict[str, float] = Field(default_factory=dict)
    operator_costs: OperatorCosts = ()
    mixed_points: MixedPoints = ()
    page_sha256: Sha256 | None = None
    """The hash of report.html; None in older manifests."""
    export_budget_ms: Annotated[float, Field(gt=0)] | None = None
    """The export's own budget where `bench --budget` gave another; else null."""
    release: Release | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        files = [a.file for a in self.artifacts if a.file] + [e.file for e in self.evidence.files]
        _refuse_duplicates_of_schema("file", [name.casefold() for name in files])
        _refuse_duplicates_of_schema("name", [a.name for a in self.artifacts])
        passed = {a.name for a in self.artifacts if a.status == "passed"}
        if self.verdict.numerics == "inconclusive":  # it was allowed to be chosen
            passed |= {a.name for a in self.artifacts if a.status == "inconclusive"}
        if self.selected is not None and self.selected not in passed:
            raise ValueError(f"selected is {self.selected!r}, which is not an artifact that passed")
        named = {target.name: target for target in targets.TARGETS}.get(self.target.name)
        if self.release is None and named and self.selected not in {None, *named.runnable}:
            raise ValueError(f"selected is {self.selected!r}, which {named.name} does not run")
        return self

    @model_validator(mode="after")
    def _accurate(self) -> Manifest:
        """Refuse a passed artifact that lost too much accuracy, and accuracy from other data."""
        for artifact in self.artifacts:
            scored = artifact.task_accuracy
            if scored and (reason := contradiction_of_scores(artifact.status, scored, self.task_accuracy)):
                raise ValueError(f"{artifact.name}: {reason}")
            measured = artifact.accuracy
            if measured is None:
                continue
            if self.accuracy is None or measured.count != self.accuracy.float32.count:
                raise ValueError(f"{artifact.name}: accuracy on other samples than float32's")
            before = measured.right + measured.lost - measured.gained
            if before != self.accuracy.float32.right:
                raise ValueError(
                    f"{artifact.name}: accuracy is compared with another float32 than the manifest's"
                )
            if (
                artifact.status in {"passed", "inconclusive"}
                and measured.drop_points > self.accuracy.max_drop_points
            ):
                raise ValueError(
                    f"{artifact.name}: {artifact.status}, but lost {measured.drop_points:g} points of top-1"
                )
        return self

    @model_validator(mode="after")
    def _budget(self) -> Manifest:
        """Refuse a verdict without the measurement that it follows from."""
        for artifact in self.artifacts:
            latencies = artifact.measured_on()
            for item in latencies:
                if reason := budget_contradiction(item, self.budget_ms, self.target.soc):
                    raise ValueError(f"{artifact.name}: {reason}")
            if artifact.device_latency != worst_for_budget(latencies, self.budget_ms):
                raise ValueError(f"{artifact.name}: device_latency is not the one that counts")
        latencies = next((a.measured_on() for a in self.artifacts if a.name == self.selected), ())
        expected = budget_verdict(latencies, self.budget_ms)
        if self.verdict.budget not in {expected, recorded_budget_verdict(latencies, self.budget_ms)}:
            raise ValueError(
                f"verdict.budget is {self.verdict.budget}, but the selected artifact's is {expected}"
            )
        return self


def _refuse_duplicates_of_schema(noun: str, values: list[str]) -> None:
    twice = sorted(value for value, count in Counter(values).items() if count > 1)
    if twice:
        raise ValueError(f"two entries have the same {noun}: {twice[0][:80]!r}")
