"""The measures of a task on labelled samples, of float32 and of every artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from exporter.pipeline.stage_results import ScoredRows
from exporter.records import Array, Runner, Sample, TaskAccuracy, TaskName, TensorSpec
from exporter.verify.scores import SCORES, compare_scores
from exporter.verify.scores.scored_sample import ScoredSample

if TYPE_CHECKING:
    from exporter.data.labelled import Labelled

MOST = 10_000_000
"""A file that claims more samples is not one of ours."""
COUNT = "count"
"""The name of the array that holds the number of samples, in the file of all rows."""


def score_for_task_accuracy(run: Runner, samples: Labelled, outputs: Sequence[TensorSpec]) -> ScoredRows:
    """Run a model on the labelled samples of a task, and return what each contributes to its measures."""
    scorer, names = SCORES[samples.task], [spec.name for spec in outputs]
    tables: dict[str, list[tuple[float, ...]]] = {}
    number = place = 0
    for sample, read in samples.batches():
        views = _task_accuracy_views(run(sample), names, sample, len(read))
        for view, usable in zip(views, read, strict=True):
            if place < len(samples.truths) and usable:
                for name, rows in scorer.rows(view, samples.truths[place]).items():
                    own = tables.setdefault(name, [])
                    own += [(float(number), *map(float, row)) for row in rows]
                number += 1
            place += 1
    return ScoredRows(number, {name: tuple(rows) for name, rows in tables.items()})


def _task_accuracy_views(
    outputs: Sequence[Array], names: Sequence[str], sample: Sample, batch: int
) -> list[ScoredSample]:
    """Split the outputs of one call into those of its samples."""
    size = (sample[0].shape[2], sample[0].shape[3]) if sample[0].ndim == 4 else (1, 1)
    if batch == 1:
        return [ScoredSample(names, outputs, size)]
    if any(y.shape[:1] != (batch,) for y in outputs):
        shapes = ", ".join(f"{list(y.shape)}" for y in outputs)
        raise ValueError(f"outputs {shapes} cannot be split into the {batch} samples of a call")
    return [ScoredSample(names, [y[i : i + 1] for y in outputs], size) for i in range(batch)]


def task_accuracy_arrays(scored: Mapping[str, ScoredRows]) -> dict[str, Array]:
    """Return the rows of every model by name, as they are stored and scored again."""
    stored: dict[str, Array] = {}
    for name, rows in scored.items():
        stored[f"{name}/{COUNT}"] = np.array(rows.count)
        stored |= {f"{name}/{table}": _task_accuracy_table(own) for table, own in rows.tables.items()}
    return stored


def _task_accuracy_table(rows: Sequence[Sequence[float]]) -> Array:
    return np.array(rows, np.float64) if rows else np.zeros((0, 16))


def task_accuracies(stored: Mapping[str, object], task: TaskName, reference: str) -> dict[str, TaskAccuracy]:
    """Return name -> measures of every model in `task_accuracy_arrays`, the reference among them."""
    models: dict[str, dict[str, Array]] = {}
    for key, array in stored.items():
        name, _, table = key.rpartition("/")
        models.setdefault(name, {})[table] = np.asarray(array)
    scored = {name: compare_scores.Scored(int(tables.pop(COUNT)), tables) for name, tables in models.items()}
    if not 0 < scored[reference].count <= MOST or len({own.count for own in scored.values()}) > 1:
        raise ValueError(f"counts of samples: {sorted({own.count for own in scored.values()})}")
    return compare_scores.compare_scores(task, scored[reference], scored)


def plain_task_accuracy(task: TaskName, rows: ScoredRows) -> TaskAccuracy:
    """Return one model's measures without anything to compare them with."""
    tables = {name: _task_accuracy_table(own) for name, own in rows.tables.items()}
    return compare_scores.plain_scores(task, compare_scores.Scored(rows.count, tables))


def equal_task_accuracy(one: TaskAccuracy, other: TaskAccuracy) -> bool:
    """Tell whether two records have the same figures, up to the last digits; NaN equals NaN."""
    if one.count != other.count or [s.name for s in one.scores] != [s.name for s in other.scores]:
        return False
    mine, theirs = ([(s.value, s.lost, *s.interval) for s in own.scores] for own in (one, other))
    return bool(np.allclose(mine, theirs, rtol=1e-9, atol=1e-9, equal_nan=True))
