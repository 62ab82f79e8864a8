"""The measure that a model's task is known by, one file per task, listed in `TASKS`.

To add one, write a module with `detect` and `measure` and add a line to the table. `detect` must be sure: the
outputs' names, shapes and values say what they are. A task that the user named is measured without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from exporter.records import TaskMeasure
from exporter.verify.tasks import boxes, embeddings, images, keypoints, masks, regression, sequences
from exporter.verify.tasks.measure import Outputs


class Task(Protocol):
    """A module that measures one task."""

    def detect(self, outputs: Outputs) -> bool:
        """Return whether the outputs can be nothing else."""
        ...

    def measure(self, outputs: Outputs) -> TaskMeasure | None:
        """Return the measure; None where the outputs cannot be read as this task's."""
        ...


TASKS: Mapping[str, Task] = {
    "boxes": boxes,
    "masks": masks,
    "keypoints": keypoints,
    "images": images,
    "embeddings": embeddings,
    "sequences": sequences,
    "regression": regression,
}
"""Name -> task, the surest to recognise first."""


def measured(outputs: Outputs, task: str = "") -> TaskMeasure | None:
    """Return the measure of the named task, or of the first one that recognises the outputs."""
    names = [task] if task else [name for name, module in TASKS.items() if module.detect(outputs)]
    return TASKS[names[0]].measure(outputs) if names else None
