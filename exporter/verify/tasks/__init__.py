"""The measure that a model's task is known by, one file per task, listed in `TASKS`.

To add one, write a module with both functions of a `Task` and add a line to the table. `detect` must be sure:
the outputs' names, shapes and values say what they are. A task that the user named is measured without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from exporter.records import TaskMeasure
from exporter.verify.tasks import (
    box_task,
    embedding_task,
    image_task,
    keypoint_task,
    mask_task,
    regression_task,
    sequence_task,
)
from exporter.verify.tasks.measured_outputs import MeasuredOutputs


@dataclass(frozen=True)
class Task:
    """How one task is recognised and measured."""

    detect: Callable[[MeasuredOutputs], bool]
    """Returns whether the outputs can be nothing else."""
    measure: Callable[[MeasuredOutputs], TaskMeasure | None]
    """Returns the measure; None where the outputs cannot be read as this task's."""


TASKS: Mapping[str, Task] = {
    "boxes": Task(box_task.detect_box_task, box_task.measure_box_task),
    "masks": Task(mask_task.detect_mask_task, mask_task.measure_mask_task),
    "keypoints": Task(keypoint_task.detect_keypoint_task, keypoint_task.measure_keypoint_task),
    "images": Task(image_task.detect_image_task, image_task.measure_image_task),
    "embeddings": Task(embedding_task.detect_embedding_task, embedding_task.measure_embedding_task),
    "sequences": Task(sequence_task.detect_sequence_task, sequence_task.measure_sequence_task),
    "regression": Task(regression_task.detect_regression_task, regression_task.measure_regression_task),
}
"""Name -> task, the surest to recognise first."""


def measure_task(outputs: MeasuredOutputs, task: str = "") -> TaskMeasure | None:
    """Return the measure of the named task, or of the first one that recognises the outputs."""
    names = [task] if task else [name for name, entry in TASKS.items() if entry.detect(outputs)]
    return TASKS[names[0]].measure(outputs) if names else None
