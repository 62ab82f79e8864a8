"""Labels of networks that give a token per step: a table of files and their text or tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exporter.data.labelled import Labelled
from exporter.data.labels.label_source import (
    Arrays,
    Model,
    find_label_table,
    is_label_table,
    label_source_file,
    label_source_files,
    unusable_labels,
)
from exporter.records import Array

EXPECTED = (
    "a .jsonl, .csv or .tsv with `file` (a photo or .npy beside it) and `text` or `tokens` in each row, or "
    "an .npz with `labels` [samples, most] of token numbers, -1 after the end"
)
TOKENS_FILE = "tokens.txt"
SPACE = "<space>"


def recognises_sequence_labels(source: Path) -> bool:
    """Return whether this is a table with text or tokens."""
    return is_label_table("sequences", source, EXPECTED, lambda _, row: "text" in row or "tokens" in row)


def read_sequence_labels(source: Path, model: Model) -> Labelled:
    """Read the table. Text needs the tokens' names: `tokens.txt` beside it, or the model's own labels."""
    path, rows = find_label_table("sequences", source, EXPECTED)
    numbers = _sequence_label_token_numbers(path.parent / TOKENS_FILE, model)
    sequences = [_sequence_label_tokens(path, row, numbers) for row in rows]
    files = [label_source_file("sequences", path, str(row["file"]), EXPECTED) for row in rows]
    pairs = list(zip(files, join_sequence_labels(sequences, model), strict=True))
    return label_source_files("sequences", source, model, pairs, (_sequence_label_note(sequences, model),))


def _sequence_label_token_numbers(path: Path, model: Model) -> dict[str, int]:
    """Return token -> number, from the file with a token a line, else from the model's own labels."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else list(model.names)
    return {" " if line == SPACE else line: number for number, line in enumerate(lines)}


def _sequence_label_tokens(path: Path, row: Mapping[str, Any], numbers: Mapping[str, int]) -> list[int]:
    if row.get("tokens") not in (None, ""):
        tokens = row["tokens"]
        parts = tokens.split() if isinstance(tokens, str) else tokens
        try:
            return [int(part) for part in parts]
        except (TypeError, ValueError):
            raise unusable_labels(
                "sequences", f"{path.name} has the tokens {tokens!r:.80}", EXPECTED
            ) from None
    text = str(row.get("text", ""))
    if not numbers:
        raise unusable_labels(
            "sequences",
            f"{path.name} holds text, and the model's tokens have no names",
            EXPECTED,
            f"List the tokens in {TOKENS_FILE} beside it, one a line in the model's order (the blank of CTC "
            f"first), {SPACE} for a space; or give `tokens`.",
        )
    if unknown := sorted(set(text) - set(numbers)):
        raise unusable_labels("sequences", f"{path.name} has {unknown[0]!r}, which is no token", EXPECTED)
    return [numbers[character] for character in text]


def _sequence_label_steps(model: Model) -> int | None:
    """Return the steps of the output that gives a token for each."""
    for spec in model.outputs:
        if len(spec.shape) == 3 or (len(spec.shape) == 2 and not spec.dtype.startswith("float")):
            return spec.shape[1]
    return None


def _sequence_labels_aligned(sequences: Sequence[Sequence[int]], model: Model) -> bool:
    """Return whether every label has as many tokens as the output has steps; else CTC joins the steps."""
    steps = _sequence_label_steps(model)
    return steps is not None and all(len(tokens) == steps for tokens in sequences)


def _sequence_label_note(sequences: Sequence[Sequence[int]], model: Model) -> str:
    if _sequence_labels_aligned(sequences, model):
        return "Labels: a token for each step of the output."
    return "Labels: tokens of the text; steps of the output are joined as by CTC, with token 0 as blank."


def join_sequence_labels(sequences: Sequence[Sequence[int]], model: Model) -> list[Mapping[str, Array]]:
    """Return a label per sequence of tokens."""
    aligned = np.array(_sequence_labels_aligned(sequences, model))
    return [{"tokens": np.array(tokens, np.int64), "aligned": aligned} for tokens in sequences]


def sequence_labels_from_arrays(arrays: Arrays, model: Model) -> list[Mapping[str, Array]]:
    """Read `labels` [samples, most]: token numbers, -1 after the end."""
    rows = arrays.get("labels")
    if rows is None or rows.ndim != 2 or rows.dtype.kind not in "iu":
        raise ValueError("it holds no whole numbers `labels` [samples, most]")
    return join_sequence_labels([[int(token) for token in row if token >= 0] for row in rows], model)
