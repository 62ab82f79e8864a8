"""A class for every step of a sequence: equal tokens, and equal text after CTC joins the steps."""

from __future__ import annotations

import numpy as np

from exporter.records import Array, TaskMeasure
from exporter.verify.tasks.measured_outputs import MeasuredOutputs, merged_measured_outputs

EXACT, LOSSY = 0.99, 0.95
MIN_STEPS = 2
NAMES = ("token", "ctc", "log_prob", "logprob", "lm_logits")


def detect_sequence_task(outputs: MeasuredOutputs) -> bool:
    """Take an output named after tokens, or steps whose scores are logarithms of probabilities."""
    index = _sequence_task_index(outputs)
    if index is None:
        return False
    y = outputs.reference[index]
    if outputs.find(*NAMES) == index:
        return True
    sums = np.exp(np.minimum(y, 1.0)).sum(axis=-1)
    return bool(y.max() <= 0 and (np.abs(sums - 1) < 1e-3).all())


def _sequence_task_index(outputs: MeasuredOutputs) -> int | None:
    index = outputs.find(*NAMES)
    index = outputs.first_float(4) if index is None else index
    if index is None:
        return None
    y = outputs.reference[index]
    return (
        index if y.ndim == 4 and y.dtype.kind == "f" and y.shape[2] >= MIN_STEPS and y.shape[3] > 1 else None
    )


def measure_sequence_task(outputs: MeasuredOutputs) -> TaskMeasure | None:
    """Return the share of steps with the model's token, and of samples with its text."""
    index = _sequence_task_index(outputs)
    if index is None:
        return None
    y, a = (
        merged_measured_outputs(stack[index]).argmax(axis=-1) for stack in (outputs.reference, outputs.actual)
    )
    value = float((y == a).mean())
    texts = float(
        np.mean(
            [
                join_sequence_of_task(left) == join_sequence_of_task(right)
                for left, right in zip(y, a, strict=True)
            ]
        )
    )
    limit = outputs.limit(EXACT, LOSSY)
    detail = f"{texts:.1%} of the samples give the same text after CTC"
    return TaskMeasure("sequences", "equal tokens", value, "", limit, value >= limit, detail)


def join_sequence_of_task(tokens: Array) -> list[int]:
    """Return what CTC makes of the steps: repeated tokens once, without blanks (token 0)."""
    repeated = np.concatenate([[False], tokens[1:] == tokens[:-1]])
    return [int(token) for token in tokens[~repeated] if token]
