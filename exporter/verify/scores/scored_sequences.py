"""Character error rate of sequences, and the shares of tokens and of whole sequences that are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from exporter.records import Array
from exporter.verify.scores.scored_sample import (
    Label,
    Measures,
    Rows,
    ScoredSample,
    Tables,
    ratio_of_sample_scores,
)
from exporter.verify.tasks.sequence_task import NAMES, join_sequence_of_task


def score_sequences(view: ScoredSample, label: Label) -> Rows:
    """Return (edits, tokens of the label, tokens right in place, whole sequence right)."""
    wanted = [int(token) for token in label["tokens"]]
    steps = scored_sequence_tokens(view)
    aligned = bool(label["aligned"])
    given = [int(token) for token in steps] if aligned else join_sequence_of_task(steps)
    right = sum(a == b for a, b in zip(given, wanted, strict=False)) if aligned else 0
    table = "aligned" if aligned else "joined"
    return {
        table: [
            [float(scored_sequence_edits(given, wanted)), len(wanted), float(right), float(given == wanted)]
        ]
    }


def scored_sequence_tokens(view: ScoredSample) -> Array:
    """Return the token of every step: the likeliest one, or the numbers themselves."""
    index = view.find(*NAMES)
    if index is None:
        index = next((i for i, y in enumerate(view.outputs) if y.ndim >= 3), 0)
    y = view.outputs[index]
    if y.dtype.kind != "f":
        return y.reshape(-1)
    if y.ndim < 2:
        raise ValueError(f"an output of shape {list(y.shape)} holds no scores per step")
    likeliest: Array = y.reshape(-1, y.shape[-1]).argmax(axis=-1)
    return likeliest


def scored_sequence_edits(given: Sequence[int], wanted: Sequence[int]) -> int:
    """Return how many tokens must be added, removed or replaced (Levenshtein's distance)."""
    previous = list(range(len(wanted) + 1))
    for i, left in enumerate(given, 1):
        current = [i]
        for j, right in enumerate(wanted, 1):
            current.append(min(previous[j] + 1, current[-1] + 1, previous[j - 1] + (left != right)))
        previous = current
    return previous[-1]


def measures_of_scored_sequences(tables: Tables, count: int) -> Measures:
    """Return the share of tokens in place for labels as long as the output; the error rate otherwise."""
    aligned = bool(len(tables.get("aligned", ())))
    name = "aligned" if aligned else "joined"
    error, whole = (
        ratio_of_sample_scores(tables, name, 0, 1, count),
        ratio_of_sample_scores(tables, name, 3, None, count),
    )
    right = ratio_of_sample_scores(tables, name, 2, 1, count)

    def value(weights: Array) -> Mapping[str, float]:
        first = {"token accuracy": right(weights)} if aligned else {"CER": error(weights)}
        return first | {"whole sequences": whole(weights)}

    return value
