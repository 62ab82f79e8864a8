"""Numbers to predict: the error as a share of how much the numbers vary."""

from __future__ import annotations

import numpy as np

from exporter.records import TaskMeasure
from exporter.verify.tasks.measured_outputs import MeasuredOutputs, merged_measured_outputs

EXACT, LOSSY = 0.01, 0.1


def detect_regression_task(outputs: MeasuredOutputs) -> bool:
    """Take a model with one float output of a single number per sample."""
    return len(outputs.reference) == 1 and _is_regression_task_number(outputs)


def _is_regression_task_number(outputs: MeasuredOutputs) -> bool:
    y = outputs.reference[0]
    return y.dtype.kind == "f" and y.ndim >= 2 and y[0].size == y.shape[1]


def measure_regression_task(outputs: MeasuredOutputs) -> TaskMeasure | None:
    """Return the worst column's root mean square error as a share of its standard deviation."""
    index = next((i for i, y in enumerate(outputs.reference) if y.dtype.kind == "f"), None)
    if index is None:
        return None
    y, a = (merged_measured_outputs(stack[index]) for stack in (outputs.reference, outputs.actual))
    y, a = y.reshape(len(y), -1), a.reshape(len(a), -1)
    spread = y.std(axis=0)
    if not spread.any():
        return None
    varying = spread > 0
    shares = np.sqrt(((a - y) ** 2).mean(axis=0))[varying] / spread[varying]
    limit = outputs.limit(EXACT, LOSSY)
    value = float(shares.max())
    column = int(np.flatnonzero(varying)[shares.argmax()])
    return TaskMeasure(
        "regression", "error", value, "of the spread", limit, value <= limit, f"number {column}"
    )
