"""The frozen records that flow from stage to stage, in the order they are made.

Request -> Checkpoint -> Model -> Captured -> Emission -> Structure, Verdict, Latency -> Artifact -> Report

Nothing here imports a framework. Shapes are tuples of ints, dtypes are NumPy's names ("float32").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from annotated_types import Ge, Gt, Le, Len

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"
Sample: TypeAlias = "tuple[Array, ...]"
"""One call of the model: an array per input, in the model's own order, shaped as its inputs (batch 1)."""
Runner: TypeAlias = "Callable[[Sample], tuple[Array, ...]]"
"""Runs an artifact once in its real runtime; outputs in the model's own order."""

Status = Literal["passed", "failed", "inconclusive", "not_run", "error"]
"""`inconclusive`: too few scenes to tell whether it passes. It is not shipped unless that is allowed."""
SHIPPABLE: frozenset[Status] = frozenset({"passed", "inconclusive"})
"""Statuses of artifacts that may be shipped; `inconclusive` only when that is allowed."""
Precision = Literal["fp32", "fp16", "int8", "mixed", "w8", "w4"]
QUANTIZED: tuple[Precision, ...] = ("int8", "mixed")
SIMULATED: tuple[Precision, ...] = ("fp16", "w8", "w4")
"""Their cost is simulated from the float program; quantised ones have a program of their own."""
"""Precisions whose program is quantised before any format lowers it."""
FormatName = Literal["executorch", "torchscript", "onnx", "coreml"]

Count = Annotated[int, Ge(0)]
Milliseconds = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Side = Annotated[int, Gt(0), Le(65536)]
"""Pixels."""
DTYPE_PATTERN = r"^(bool|u?int(8|16|32|64)|b?float(16|32|64)|float8_\w+|complex(64|128))$"
"""The dtype names that a manifest or a model card may hold."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model."""

    name: str
    shape: tuple[Count, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class Preprocessing:
    """How a photo becomes the model's input.

    The shorter side is resized to `resize` pixels (both sides when `squash`), the centre `crop` (height,
    width) is cut, values are scaled to 0..1 (unless `scale` is 255), then `(x - mean) / std` per channel.
    """

    resize: Side = 256
    crop: tuple[Side, Side] = (224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[Positive, ...] = (0.229, 0.224, 0.225)
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    squash: bool = False
    scale: Positive = 1.0
    """The value white has before normalisation: 1.0, or 255.0 for models trained on raw bytes."""


@dataclass(frozen=True)
class Reading:
    """One way to name a checkpoint's tensors: as stored, or without what wrappers put before the names."""

    names: Mapping[str, str]
    """Name as the network may have it -> name in the file."""
    notes: tuple[str, ...] = ()
    """What was done to the names, and what is left out."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a file holds, read without running anything in it.

    Exactly one of `tensors` (weights only) and `module` (weights and network in one) is set.
    """

    path: Path
    sha256: str
    kind: str
    """state_dict, container, lightning, safetensors, torchscript, exported_program, pickled_module,
    distributed, ultralytics, or pretrained (a folder with its network's settings)."""
    tensors: Mapping[str, torch.Tensor] | None
    """Name in the file -> tensor; `readings` says how a network may call them."""
    module: torch.nn.Module | None = None
    """For self-contained kinds: runs under eager PyTorch (a ScriptModule, a GraphModule, or a module)."""
    example: tuple[torch.Tensor, ...] | None = None
    """Example inputs, where the file carries them (`torch.export`)."""
    notes: tuple[str, ...] = ()
    """What was found, chosen and left out, a sentence each: shown to the user."""
    contents: tuple[tuple[str, str], ...] = ()
    """Everything at the top of the file, (key, short description), for `inspect`."""
    readings: tuple[Reading, ...] = ()
    """Names to try in this order, the stored ones first; empty: only the stored ones."""
    layer_versions: Mapping[str, Mapping[str, Any]] | None = None
    """Layer's name in the file -> what PyTorch noted of its format (`state_dict()._metadata`): load hooks ask
    for its version. None where the file has no such notes."""
    extra_state: Mapping[str, Any] = field(default_factory=dict)
    """What layers save beside tensors (`get_extra_state`), where it is plain values; by stored name."""
    stated_networks: tuple[tuple[str, str], ...] = ()
    """(where it stands in the file, what it says) of each text that seems to name the network."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Name of each JSON file beside the weights, such as config.json -> its content; under "args"
    what the training program was called with."""


@dataclass(frozen=True)
class Codes:
    """The legal values of an input of whole numbers."""

    kind: Literal["tokens", "mask", "segments"]
    """Tokens are codes of a vocabulary, a mask is 1 up to a length and then 0, segments are 0 and then 1."""
    count: int = 2
    """Codes are from 0 to `count` - 1."""
    padding: int = 0
    """The token behind the text's end."""
    first: int | None = None
    """The token that begins every text, where there is one."""
    last: int | None = None
    """The token that ends every text, where there is one."""


SampleReader: TypeAlias = (
    "Callable[[Path, tuple[TensorSpec, ...], int], tuple[list[Sample], tuple[str, ...]] | None]"
)
"""Reads up to so many samples from a file or folder of the model's own kind (texts, recordings), with notes;
None where it is of another kind."""


@dataclass(frozen=True, eq=False)
class Model:
    """A network with its trained weights, in eval mode, float32, on the CPU."""

    module: torch.nn.Module
    architecture: str
    """"torchvision/mobilenet_v2", "mypkg.nets:make_net", or the self-contained kind's own name."""
    inputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing | None
    """None when the inputs are not photos, or no preprocessing is known."""
    parameters: int
    notes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """What the weights cannot prove about the network."""
    codes: Mapping[str, Codes] = field(default_factory=dict)
    """Name of an input -> its legal values, for inputs of whole numbers where they are known."""
    reader: SampleReader | None = None
    """Reads calibration data through the checkpoint's own tokenizer or feature extractor."""


@dataclass(frozen=True, eq=False)
class Captured:
    """A model made ready for the formats. Lives inside one worker process."""

    module: torch.nn.Module
    """Eval, float32. Called with `example`, returns a tensor or a tuple of tensors."""
    program: torch.export.ExportedProgram | None
    """The same network as a graph; None when it has control flow that `torch.export` cannot keep."""
    program_error: str
    """Why `program` is None, in torch's words; else empty."""
    example: tuple[torch.Tensor, ...]
    """Contiguous example inputs, taken from real data where there is some."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    torchscript: Literal["auto", "trace", "script"] = "auto"
    """How TorchScript is made: "auto" traces, and scripts where a trace would lose control flow."""
    program_source: str | None = None
    """`file:line` of the user's code that `torch.export` could not follow, where known."""
    state: tuple[str, ...] = ()
    """Buffers and attributes through which a call changes the next call's outputs."""
    variable: tuple[str, ...] = ()
    """Names of the outputs whose sizes depend on the inputs' values, as the graph tells."""


@dataclass(frozen=True)
class Variant:
    """One artifact that a format can make."""

    name: str
    """Unique, used for files and on the command line: "executorch-xnnpack-int8"."""
    format: FormatName
    backend: str
    """Who executes it: xnnpack, vulkan, lite, onnxruntime, onnxruntime-mobile, coreml."""
    precision: Precision
    suffix: str
    group: str
    """Variants of one group share work and are made one after the other by one worker."""
    cost_s: float
    """Rough build seconds for MobileNetV2: only orders the work (longest first)."""


@dataclass(frozen=True, eq=False)
class Emission:
    """What `emit` made. Lives inside the worker that made it."""

    path: Path
    notes: tuple[str, ...] = ()


def decibels(noise: float) -> float:
    """SQNR by the error's energy as a share of the output's; infinite where there is none."""
    return -10 * math.log10(noise) if noise else math.inf


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
        return decibels(self.noise)

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
class Structure:
    """What can be read from an artifact without running it.

    Raises nothing: a file that cannot be parsed raises `LoweringError` in the reader.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: Mapping[str, int]
    """Operator name -> count, delegated ones included where the delegate's format can be read."""
    weight_bytes: int
    weight_elements: Mapping[str, int]
    """Storage type ("float32", "float16", "int8", "uint8", "int4", …) -> number of weight elements.
    Biases and quantisation parameters are not weights: only tensors of two or more dimensions count, where
    the format tells without those that are only added or multiplied elementwise (a position embedding)."""
    delegated_fraction: float | None = None
    """Share of the multiply-accumulates that the backend executes; None where there is no delegate."""

    @property
    def quantized_weight_fraction(self) -> float:
        """Share of weight elements stored in 8 bits or fewer."""
        total = sum(self.weight_elements.values())
        small = sum(count for dtype, count in self.weight_elements.items() if dtype in NARROW_DTYPES)
        return small / total if total else 0.0


INPUT_DTYPES = ("float32", "float64", "float16", "int64", "int32", "int8", "uint8", "bool")
"""What `--input-shape` can declare."""
NARROW_DTYPES = frozenset({"int8", "uint8", "int4", "uint4", "int2", "uint2", "int1", "uint1"})


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


Bounds = tuple[float, float]
"""The lower and the upper bound of a figure over scenes, each one-sided 95 % (`verify.intervals`)."""


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
    """The samples' scenes: each is one witness. 0 where they were not counted (edge inputs)."""
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
"""What a model is for; empty where nobody said it. `exporter.verify.tasks` measures each."""


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


@dataclass(frozen=True)
class Accuracy:
    """How often one model was right about labelled samples, in counts, beside eager float32 on the same."""

    count: int
    """Labelled samples that could be read."""
    right: int
    """Whose label came first."""
    right5: int | None
    """Whose label was among the first five; None with five classes or fewer."""
    lost: int = 0
    """Right in float32, wrong here."""
    gained: int = 0
    """Wrong in float32, right here."""
    same: int = 0
    """Where it answers as float32 does, right or wrong."""


@dataclass(frozen=True)
class Evaluation:
    """What accuracy was measured on, and what is allowed to be lost."""

    kind: Literal["photos", "arrays"]
    classes: int
    max_drop: float
    """Points of top-1 that an artifact may lose against float32."""
    reference: Accuracy
    """Eager float32's own."""
    notes: tuple[str, ...] = ()
    """How labels became classes, and what the figures cannot tell."""


@dataclass(frozen=True)
class Score:
    """One measure of a task on labelled samples ("mIoU"), beside eager float32's on the same samples."""

    name: str
    value: float
    lost: float = 0.0
    """How much worse than float32's, in points (hundredths), dB, or the measure's own numbers."""
    interval: tuple[float, float] = (0.0, 0.0)
    """The 95 % interval of `lost`."""


@dataclass(frozen=True)
class TaskAccuracy:
    """One model's measures on labelled samples of a task."""

    count: int
    """Labelled samples that could be read."""
    scores: tuple[Score, ...]
    """The first decides whether too much was lost."""


@dataclass(frozen=True)
class TaskEvaluation:
    """The labelled samples of a task, and what is allowed to be lost."""

    task: TaskName
    kind: Literal["photos", "arrays"]
    max_drop: float
    """Points (or dB) of the first measure that an artifact may lose against float32."""
    reference: TaskAccuracy
    """Eager float32's own."""
    notes: tuple[str, ...] = ()
    """How labels were read, and what the figures cannot tell."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds on this host: never a phone's."""

    p50_ms: Milliseconds
    p90_ms: Milliseconds
    samples: Count
    threads: Annotated[int, Ge(1)]
    samples_ns: tuple[Count, ...] = ()


BudgetVerdict = Literal["pass", "fail", "inconclusive", "not_measured"]
DeviceEvidence = Literal["measured", "simulated", "host"]
Launch = tuple[Milliseconds, Milliseconds, Milliseconds, Milliseconds, Milliseconds]
"""p5, p25, p50, p75 and p95 of the calls of one launch."""


@dataclass(frozen=True)
class DeviceLatency:
    """What one device said about one artifact, as the harness judged it. Milliseconds."""

    evidence: DeviceEvidence
    device: Mapping[str, Any]
    """Serial, model, SoC, Android version, fingerprint, runtime, runner, power, clocks, …"""
    p50_ms: Milliseconds
    p90_ms: Milliseconds
    p90_ci_ms: tuple[Milliseconds, Milliseconds]
    """95 % interval of p90, launches being the sampling unit."""
    launches: Annotated[int, Ge(1)]
    samples: Annotated[int, Ge(1)]
    flags: tuple[str, ...]
    """Signs of instability, "name: what was seen"; empty for a stable run."""
    max_error: Annotated[float, Ge(0)] | None
    verdict: BudgetVerdict
    budget_ms: Positive | None = None
    """What it was judged against; None: the export's own."""
    p95_ms: Milliseconds | None = None
    p99_ms: Milliseconds | None = None
    max_ms: Milliseconds | None = None
    mad_ms: Milliseconds | None = None
    first_ms: Milliseconds | None = None
    load_ms: Milliseconds | None = None
    peak_bytes: Count | None = None
    peak_pss_bytes: Count | None = None
    """The highest PSS between timed calls: the runner's own memory and its share of what others use too."""
    problem: str = ""
    """Why the device's outputs are not the model's; empty when they are."""
    exceeded: tuple[str, ...] = ()
    """Limits of `bench` that the artifact exceeded (memory, load, first call), a sentence each."""
    why: tuple[str, ...] = ()
    """What a real phone would have shown in place of a simulated one."""
    started_at: str = ""
    samples_file: str | None = None
    """The raw samples, a JSON line per launch, in OUT."""
    launch_ms: Annotated[tuple[Launch, ...], Len(max_length=10_000)] = ()
    """For the report's plot."""

    @property
    def serial(self) -> str:
        return str(self.device.get("serial", ""))


@dataclass(frozen=True)
class Emulation:
    """The outputs of an artifact on a phone's CPU kernels under emulation, judged. It is never a time."""

    status: Status
    reason: str
    """Why it did not pass; empty when it did."""
    runtime: str
    """"executorch 1.5.1": the Arm library that executed it; empty where none did."""
    core: str
    """The emulated processor, as QEMU calls it."""
    samples: Count
    max_error: float | None = None
    """As `Comparison.max_error`; None where nothing could be compared, or it is not finite."""
    sqnr_db: float | None = None
    difference: float | None = None
    """The largest difference from the same file's outputs on this machine, as a share of their scale."""


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
    task: TaskName = ""
    """As the user named it; empty leaves it to the outputs."""
    scenes: Scenes = Scenes()
    limits: Limits = Limits()
    """The limits for this run's artifacts; `export-mobile verify` applies the same."""
    operator_costs: tuple[OperatorCost, ...] = ()
    """Costs of the int8 program's operators, in the order the operators run; empty where there is none."""
    mixed_points: tuple[MixedPoint, ...] = ()
    """What `--search` tried, in the order it did; empty without a search."""
    matrix_weights: int = 0
    """Elements of the two-or-more-dimensional weights the graph uses; 0 where there was no graph to count."""
    evidence_files: Mapping[str, str] = field(default_factory=dict)
    """Files beside the artifacts that `verify` needs (inputs and expected outputs), name -> SHA-256."""
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
