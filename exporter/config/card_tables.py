"""The tables and keys of a model card: which there are, and what their values may be."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from exporter.config.request import Request
from exporter.config.toml_file import Table
from exporter.records import DTYPE_PATTERN, Preprocessing, TaskName

Positive = Annotated[float, Field(gt=0)]


Side = Annotated[int, Field(gt=0, le=65536)]


Text = Annotated[str, Field(min_length=1, max_length=10_000)]


MAX_LABELS = 100_000


class CheckpointTable(Table):
    """The file with the trained weights, and the hash that identifies it."""

    path: Text
    """The path relative to the card, or to the package's folder where `package` is given."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
    """The file's SHA-256. Its first eight or more digits, with which published files' names end, reveal a
    wrong file; all 64 also reveal a forged one."""
    package: Text | None = None
    """The Python package that holds the file."""
    get: Text | None = None
    """Where the file comes from, or the command that gets it. Shown when the file is missing, never run."""
    trust: bool = False
    base: Text | None = None
    """The base network of a LoRA adapter, as for `--base`: a path relative to the card."""
    ignore_keys: tuple[Text, ...] = ()
    """Patterns of tensors to leave out, as for `--ignore-key`."""


class ArchitectureTable(Table):
    name: Text | None = None
    """torchvision/resnet18, transformers/BertModel or mypkg.nets:make_net. Inferred when left out."""
    part: Text | None = None
    """The part of a network of several to export, as for `--part`."""
    arguments: dict[str, str | int | float | bool] = Field(default_factory=dict)
    input_values: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Values of inputs that are no tensors, as for `--input-value`."""
    weights_from_arch: bool = False
    """Whether to keep the function's own weights where the file has none, as `--weights-from-arch` does."""
    expect: dict[Text, str | int] = Field(default_factory=dict)
    """Photo -> the number or label of its class, as for `--expect`."""


class InputTable(Table):
    shape: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1, max_length=16)]
    name: str = ""
    """The input's name; inputs without one are matched by position."""
    dtype: Annotated[str, Field(pattern=DTYPE_PATTERN)] = "float32"


class PreprocessingTable(Table):
    """A preset, or every step from a photo to the input. Nothing that is left out is guessed."""

    preset: Literal["imagenet", "unit", "symmetric", "bytes"] | None = None
    resize: Side | None = None
    crop: tuple[Side, Side] | None = None
    mean: Annotated[tuple[float, ...], Field(min_length=1, max_length=16)] | None = None
    std: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=16)] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    squash: bool = False
    scale: Positive = 1.0
    """The value of white before normalisation: 1, or 255 for networks trained on raw bytes."""

    @model_validator(mode="after")
    def _preset_or_whole(self) -> Self:
        whole = {name: getattr(self, name) is not None for name in ("resize", "crop", "mean", "std")}
        if self.preset is None and not all(whole.values()):
            missing = ", ".join(name for name, given in whole.items() if not given)
            raise ValueError(f"without a preset every step is needed; missing: {missing}")
        if self.preset is not None and self.model_fields_set - {"preset", "mean", "std"}:
            raise ValueError("with a preset, only mean and std can be given")
        return self

    def record(self) -> Preprocessing | None:
        """Return the preprocessing; None for a preset, which keeps the architecture's own resize and crop."""
        if self.preset or self.crop is None or self.resize is None or self.mean is None or self.std is None:
            return None
        return Preprocessing(
            self.resize, self.crop, self.mean, self.std, self.interpolation, self.squash, self.scale
        )


class DataTable(Table):
    """Calibration inputs: a folder of photos, or an .npz of arrays named like the inputs."""

    path: Text
    samples: Annotated[int, Field(gt=0)] = Request.samples


class EvaluationTable(Table):
    """Labelled inputs of any task, as for `--eval`; and the limit of `--max-drop`."""

    path: Text
    max_drop: Annotated[float, Field(ge=0, le=100)] = Request.max_drop


class LimitsTable(Table):
    """Verification limits, as for `--limits`."""

    fp32_max_error: Positive | None = None
    fp32_floor_factor: Positive | None = None
    fp16_min_sqnr_db: float | None = None
    fp16_min_agreement: Annotated[float, Field(ge=0, le=1)] | None = None
    int8_min_sqnr_db: float | None = None
    int8_min_agreement: Annotated[float, Field(ge=0, le=1)] | None = None
    lowering_min_sqnr_db: float | None = None
    min_quantized_weights: Annotated[float, Field(ge=0, le=1)] | None = None
    min_delegated: Annotated[float, Field(ge=0, le=1)] | None = None


class ArtifactsTable(Table):
    """What the export makes.

    The keys mean what the options mean: `--formats`, `--precisions`, `--require`, `--torchscript`, `--state`,
    `--dynamic`, `--embed-preprocessing` (with the bytes of `--pixels`), `--photo-sizes`, `--image-input`,
    `--allow-synthetic`, `--allow-inconclusive`.
    """

    formats: tuple[Text, ...] = ()
    precisions: tuple[Text, ...] = ()
    require: tuple[Text, ...] = ()
    torchscript: Literal["auto", "trace", "script"] = "auto"
    state: Literal["kept", "explicit"] = "kept"
    dynamic: tuple[Text, ...] = ()
    """Shapes with ranges of sizes, as for `--dynamic`; each names its input, or is matched by position."""
    embed_preprocessing: Literal["", "rgb", "rgba"] = ""
    photo_sizes: Text = ""
    """The least and the greatest side of photos that artifacts resize themselves, such as "64..1280"."""
    image_input: bool = False
    allow_synthetic: bool = False
    allow_inconclusive: bool = False


class CardFile(Table):
    """The keys of a card."""

    checkpoint: CheckpointTable
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None = None
    """The model's name in every table and trend; the file's name when left out."""
    description: Text = ""
    licence: Text = ""
    author: Text = ""
    """Who made the model, as Core ML packages say it."""
    version: Text = ""
    """The version of the model, as Core ML packages say it."""
    labels: Text | Annotated[tuple[Text, ...], Field(max_length=MAX_LABELS)] | None = None
    """The labels of the classes, in order: a list, or a text file with one per line."""
    budget_ms: Positive = Request.budget_ms
    architecture: ArchitectureTable = ArchitectureTable()
    inputs: tuple[InputTable, ...] = ()
    preprocessing: PreprocessingTable | None = None
    calibration: DataTable | None = None
    evaluation: EvaluationTable | None = None
    limits: LimitsTable = LimitsTable()
    task: TaskName = ""
    """What the model is for, as for `--task`."""
    artifacts: ArtifactsTable = ArtifactsTable()
