"""The measure that a model's task is known by, one file per task, listed in `TASKS`.

To add one, write a module with both functions of a `Task` and add a line to the table. `detect` must be sure:
the outputs' names, shapes and values say what they are. A task that the user named is measured without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from exporter.records import TaskMeasure
from exporter.verify.tasks import boxes, embeddings, images, keypoints, masks, regression, sequences
from exporter.verify.tasks.measured_outputs import MeasuredOutputs


@dataclass(frozen=True)
class Task:
    """How one task is recognised and measured."""

    detect: Callable[[MeasuredOutputs], bool]
    """Returns whether the outputs can be nothing else."""
    measure: Callable[[MeasuredOutputs], TaskMeasure | None]
    """Returns the measure; None where the outputs cannot be read as this task's."""


TASKS: Mapping[str, Task] = {
    "boxes": Task(boxes.detect_boxes, boxes.measure_boxes),
    "masks": Task(masks.detect_masks, masks.measure_masks),
    "keypoints": Task(keypoints.detect_keypoints, keypoints.measure_keypoints),
    "images": Task(images.detect_images, images.measure_images),
    "embeddings": Task(embeddings.detect_embeddings, embeddings.measure_embeddings),
    "sequences": Task(sequences.detect_sequences, sequences.measure_sequences),
    "regression": Task(regression.detect_regression, regression.measure_regression),
}
"""Name -> task, the surest to recognise first."""


def measure_task(outputs: MeasuredOutputs, task: str = "") -> TaskMeasure | None:
    """Return the measure of the named task, or of the first one that recognises the outputs."""
    names = [task] if task else [name for name, entry in TASKS.items() if entry.detect(outputs)]
    return TASKS[names[0]].measure(outputs) if names else None
