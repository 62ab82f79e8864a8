"""Planted faults in outputs, by the gate and the task that are there for them. To add one, add a line.

They stand for formats and precisions that nothing runs here (Core ML, w8, w4, mixed), and for tasks. What
such an artifact would give is made from the reference, rounded as its precision rounds, and damaged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from exporter.formats import VARIANTS
from exporter.records import Array, TaskName, Variant

SAMPLES = 32
Change = Callable[[Array], Array]


@dataclass(frozen=True)
class ArrayFault:
    name: str
    kind: str
    """Which of `REFERENCES` is damaged."""
    variant: Variant
    damage: Change
    gate: str
    """The gate that must have a reason against it."""
    task: TaskName = ""

    @property
    def title(self) -> str:
        return f"{self.name} ({self.kind}, {self.variant.name})"


def _random() -> np.random.Generator:
    return np.random.default_rng(5)


def _detections() -> Array:
    """Four sure objects per sample among 40 places: [centre, size and three classes' scores, places]."""
    y = np.zeros((SAMPLES, 1, 7, 40))
    y[:, :, :2] = _random().uniform(40, 600, (SAMPLES, 1, 2, 40))
    y[:, :, 2:4] = _random().uniform(20, 60, (SAMPLES, 1, 2, 40))
    y[:, :, 4:] = _random().uniform(0, 0.2, (SAMPLES, 1, 3, 40))
    for place in (3, 11, 17, 30):
        y[:, :, 4 + place % 3, place] = _random().uniform(0.7, 0.95, (SAMPLES, 1))
    return y


def _unit(vectors: Array) -> Array:
    scaled: Array = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled


REFERENCES: dict[str, Array] = {
    "logits": _random().normal(size=(SAMPLES, 1, 10)) * 3,
    "boxes": _detections(),
    "masks": _random().normal(size=(SAMPLES, 1, 5, 16, 16)),
    "keypoints": _random().uniform(0, 64, (SAMPLES, 1, 17, 2)),
    "images": _random().uniform(0, 1, (SAMPLES, 1, 3, 16, 16)),
    "embeddings": _unit(_random().normal(size=(SAMPLES, 1, 32))),
    "sequences": np.log(_random().dirichlet(np.full(6, 0.3), (SAMPLES, 1, 10)) + 1e-3),
    "regression": _random().normal(30, 5, (SAMPLES, 1, 1)),
    "classes": _random().integers(0, 4, (SAMPLES, 1, 8)),
    "tokens": _random().integers(0, 30_000, (SAMPLES, 1, 8)),
    "flags": _random().random((SAMPLES, 1, 16)) > 0.5,
    "constant": np.full((SAMPLES, 1, 10), 0.7),
    "alike": _random().normal(size=(SAMPLES, 1, 10)) * 3,
    "three outputs": _random().normal(size=(3, SAMPLES, 1, 10)),
    "tiny": _random().normal(size=(SAMPLES, 1, 10)) * 1e-9,
    "broken": np.where(np.arange(10) == 3, np.nan, _random().normal(size=(SAMPLES, 1, 10))),
}
"""Kind of output -> what the model gives, [samples, batch, …]."""

FADED_NORMS: dict[str, str] = {"tiny": "norm"}
"""Kind of output -> the batch norm that hardly anything reaches: such a network is untrained."""

SEVERAL = frozenset({"three outputs"})
"""Kinds that stand for several outputs of one shape, along the first axis."""

OTHER_NETWORKS: dict[str, Array] = {
    "alike": 1e-3 * np.random.default_rng(6).normal(size=(SAMPLES, 1, 10)),
}
"""Kind of output -> by how much a network that is easily mistaken for the model differs: half as much as
half precision."""


def at(index: int, factor: float, term: float = 0.0) -> Change:
    """Multiply one channel of the first axis after the batch, and add to it."""

    def change(y: Array) -> Array:
        y[:, :, index] = y[:, :, index] * factor + term
        return y

    return change


def exchanged(first: int, second: int) -> Change:
    def change(y: Array) -> Array:
        y[:, :, [first, second]] = y[:, :, [second, first]]
        return y

    return change


def other_network(share: float) -> Change:
    """Add a share of the difference to another network: 1 is that network itself."""
    return lambda y: y + share * OTHER_NETWORKS["alike"]


def clipped(y: Array) -> Array:
    y[:, :, 6] = np.minimum(y[:, :, 6], np.median(y[:, :, 6]))
    return y


def coarse(y: Array) -> Array:
    y[:, :, 2] = np.round(y[:, :, 2] / 8) * 8
    return y


def nan(y: Array) -> Array:
    y[3, 0, 1] = np.nan
    return y


def some_turned(y: Array) -> Array:
    """Every third sample has other values."""
    y[::3] = (y[::3] + 1) % (y.max() + 1)
    return y


def lost_class(y: Array) -> Array:
    return np.where(y == 3, 2, y)


def no_scores(y: Array) -> Array:
    y[:, :, 4:] = 0
    return y


def outputs_of(kind: str, array: Array) -> tuple[Array, ...]:
    """Return the outputs that a kind's array stands for."""
    return tuple(array) if kind in SEVERAL else (array,)


def _variants(*names: str) -> tuple[Variant, ...]:
    return tuple(VARIANTS[name] for name in names)


OUTPUTS_OF = _variants(
    *("torchscript-lite-fp32", "executorch-xnnpack-fp32", "ort-fp32", "coreai-fp32"),
    *("coreml-fp16", "executorch-vulkan-fp16", "coreai-fp16"),
    *("executorch-xnnpack-int8", "ort-int8", "onnx-qnn-v69-int8"),
    *("coreml-w8", "coreml-w4", "onnx-mixed", "executorch-xnnpack-mixed"),
)
"""Variants whose outputs are damaged in one channel, in a choice, and by NaN."""
TASKS_OF = _variants(
    "onnx-fp32", "onnx-fp16", "onnx-int8", "coreml-fp16", "coreml-w8", "coreml-w4", "onnx-mixed"
)
"""Variants whose outputs are damaged in what a task asks of them."""
IN_CHANNELS: dict[str, Change] = {
    "a dead class": at(3, 0.0),
    "a negated class": at(5, -1.0),
    "a class at a tenth": at(2, 0.1),
    "two classes exchanged": exchanged(1, 8),
    "a class clipped": clipped,
    "a class in steps of eight": coarse,
}
IN_CHOICES: dict[str, tuple[str, Change]] = {
    "some class numbers turned": ("classes", some_turned),
    "a class lost": ("classes", lost_class),
    "all classes one further": ("classes", lambda y: (y + 1) % 4),
    "some tokens turned": ("tokens", some_turned),
    "flags inverted": ("flags", lambda y: ~y),
}
TASK_FAULTS: dict[str, tuple[TaskName, Change]] = {
    "no detections": ("boxes", no_scores),
    "boxes elsewhere": ("boxes", at(0, 1.0, 100.0)),
    "boxes of half the size": ("boxes", at(2, 0.3)),
    "classes exchanged": ("boxes", exchanged(4, 5)),
    "two classes of a mask exchanged": ("masks", exchanged(0, 1)),
    "a class of a mask lost": ("masks", at(2, 0.0, -9.0)),
    "one point elsewhere": ("keypoints", at(3, 1.0, 12.0)),
    "two points exchanged": ("keypoints", exchanged(0, 9)),
    "a darker picture": ("images", lambda y: y * 0.9),
    "colours exchanged": ("images", exchanged(0, 2)),
    "turned vectors": ("embeddings", lambda y: np.roll(y, 1, axis=-1)),
    "half of a vector lost": ("embeddings", lambda y: _unit(y * (np.arange(32) < 16) + 1e-9)),
    "other tokens": ("sequences", lambda y: np.roll(y, 1, axis=-1)),
    "a step late": ("sequences", lambda y: np.roll(y, 1, axis=2)),
    "an offset of two": ("regression", lambda y: y + 2.0),
    "scaled by a third": ("regression", lambda y: 30 + (y - 30) / 3),
}
EXCHANGED_OUTPUTS: dict[str, Change] = {
    "two outputs exchanged": lambda y: y[[1, 0, 2]],
    "three outputs in another order": lambda y: y[[1, 2, 0]],
}
ARRAY_FAULTS: tuple[ArrayFault, ...] = (
    *(ArrayFault(n, "logits", v, c, "channels") for n, c in IN_CHANNELS.items() for v in OUTPUTS_OF),
    *(ArrayFault(n, k, v, c, "choices") for n, (k, c) in IN_CHOICES.items() for v in OUTPUTS_OF),
    *(ArrayFault("not a number", "logits", v, nan, "comparable") for v in OUTPUTS_OF),
    *(
        ArrayFault("a model that proves nothing", kind, VARIANTS["onnx-fp32"], lambda y: y, "reference")
        for kind in ("constant", "tiny", "broken")
    ),
    *(
        ArrayFault(name, task, variant, change, "task", task)
        for name, (task, change) in TASK_FAULTS.items()
        for variant in TASKS_OF
    ),
    *(
        ArrayFault(f"{share:g} of another network", "alike", v, other_network(share), "lookalikes")
        for share in (1.0, -1.0, 3.0)
        for v in _variants("onnx-fp16")
    ),
    *(
        ArrayFault(name, "three outputs", v, change, "exchanged")
        for name, change in EXCHANGED_OUTPUTS.items()
        for v in OUTPUTS_OF
    ),
)
"""Every planted fault, with the gate that must find it."""
