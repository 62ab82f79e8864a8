"""How an artifact is compared with the original, and whether it may be shipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from exporter.records.values import Bounds

Status = Literal["passed", "failed", "inconclusive", "not_run", "error"]
"""`inconclusive`: too few scenes to tell whether it passes. It is not shipped unless that is allowed."""
SHIPPABLE: frozenset[Status] = frozenset({"passed", "inconclusive"})
"""Statuses of artifacts that may be shipped; `inconclusive` only when that is allowed."""


Executor = Literal["runtime", "reference interpreter", "CPU runtime", "NPU simulator", "software driver"]
"""What executed an artifact to verify it: its own runtime; or an interpreter of ours, which computes what the
file says where that runtime does not exist; or, of the maker's, a runtime for the CPU (Core AI), a simulator
(Hexagon) or a software driver (Vulkan). Those are a rung below: they show nothing of the hardware itself."""


@dataclass(frozen=True)
class Limits:
    """When an artifact counts as equal. Change with `--limits key=value,…`.

    fp32: `max_error <= max(fp32_max_error, fp32_floor_factor * floor)`, floor being eager float32's.
    fp16: SQNR and agreement. int8, mixed, w8, w4: SQNR or agreement, one suffices.
    """

    fp32_max_error: float = 1e-5
    fp32_floor_factor: float = 10.0
    fp16_min_sqnr_db: float = 35.0
    fp16_min_agreement: float = 0.95
    int8_min_sqnr_db: float = 20.0
    int8_min_agreement: float = 0.95
    lowering_min_sqnr_db: float = 30.0
    """A quantised artifact against its own program; lower where that amplifies rounding ties itself."""
    min_quantized_weights: float = 0.9
    min_delegated: float = 0.8


@dataclass(frozen=True)
class Comparison:
    """How far outputs are from the float64 reference, worst output of the model first.

    `max_error` is max|a-y| / max|y|; `sqnr_db` is 10 log10(sum y² / sum (a-y)²); `agreement` is the share
    of equal argmax over axis 1 (None where there are no classes).
    """

    samples: int
    max_error: float
    sqnr_db: float
    agreement: float | None
    problem: str = ""
    """Why the figures mean nothing (NaN, constant output, wrong shape, …); empty when they do."""
    scenes: int = 0
    """The number of the samples' scenes. 0 where they were not counted (edge inputs)."""
    sqnr_bounds_db: Bounds | None = None
    """None where scenes were not counted, or there are no float outputs."""
    agreement_bounds: Bounds | None = None


@dataclass(frozen=True)
class WorstChannel:
    """The channel of all outputs that is nearest to its limit, or furthest beyond it."""

    output: str
    channel: str
    """Where it is in the output, as NumPy writes it: "boxes[..., 4]"."""
    label: str
    """Its class, where the classes have names; else empty."""
    sqnr_db: float
    """Its error against its own variation around its own mean over the inputs."""
    limit_db: float
    """What `sqnr_db` must reach."""
    fault: str
    """Why the artifact fails because of it, in words; empty when it does not."""


TaskName = Literal["", "boxes", "masks", "keypoints", "images", "embeddings", "sequences", "regression"]
"""What a model is for; empty where the user did not say. `exporter.verify.tasks` measures each."""


@dataclass(frozen=True)
class TaskMeasure:
    """The figure that a model's task is known by, of an artifact's outputs against the model's."""

    task: str
    """"boxes", "masks", … (`exporter.verify.tasks`)."""
    name: str
    """"mIoU", "PSNR", …"""
    value: float
    unit: str
    limit: float
    passed: bool
    detail: str = ""


@dataclass(frozen=True)
class SizesVerdict:
    """What an artifact does at other sizes than those of the verification inputs."""

    verified: tuple[str, ...]
    """Points at which it equals the model: "height=224, width=640"."""
    refused: tuple[str, ...]
    """Sizes next to its ranges that it refuses."""
    accepted: tuple[str, ...]
    """Sizes next to its ranges with which it computes something in silence."""


@dataclass(frozen=True)
class Verdict:
    """One artifact, judged."""

    status: Status
    reason: str | None
    runtime: str
    comparison: Comparison | None
    """Real (or synthetic) samples against float64."""
    edge: Comparison | None = None
    """Zeros, saturated and tiny inputs against float64."""
    lowering: Comparison | None = None
    """Quantised artifact against its own quantised program."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """The limits that were applied, by name, as resolved."""
    worst_channel: WorstChannel | None = None
    """None where no channel has an error, or nothing could be compared."""
    task: TaskMeasure | None = None
    """None where no task was named and the outputs do not say which it is."""
    executor: Executor = "runtime"
    sizes: SizesVerdict | None = None
    """None where its inputs have one size each."""
