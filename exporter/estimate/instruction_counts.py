"""Counts what one inference of an artifact executes, by class of instruction, under QEMU.

The program marks where calls begin and end. What is counted is the mean of the calls after the first, so
that neither start-up nor what the first call prepares is in it. The count is the same in every run.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

from exporter.emulated import run as emulated
from exporter.emulated.arm_tools import ArmTools
from exporter.errors import LoweringError
from exporter.estimate.qemu_plugin import Plugin
from exporter.records import Sample

CALLS, SETTLED = 2, 1
"""How many calls a run makes, and how many of these prepare the rest."""


@dataclass(frozen=True)
class Counts:
    """What one inference executes on one thread. Every field but the bytes is a number of instructions."""

    fma: float = 0
    """Vector fused multiply-adds of floating-point numbers."""
    dot: float = 0
    """Dot products of four int8 values a lane."""
    matrix: float = 0
    """Products of int8 matrices (i8mm): twice the arithmetic of a dot product."""
    simd: float = 0
    """Other vector and floating-point instructions."""
    scalar: float = 0
    branch: float = 0
    load: float = 0
    store: float = 0
    load_bytes: float = 0
    store_bytes: float = 0

    @property
    def instructions(self) -> float:
        """The sum of all classes."""
        return float(sum(getattr(self, name) for name in CLASSES))


CLASSES = tuple(item.name for item in fields(Counts) if not item.name.endswith("_bytes"))


def count_instructions(
    parts: ArmTools,
    plugin: Plugin,
    root: Path,
    core: str,
    backend: str,
    model: Path,
    sample: Sample,
    scratch: Path,
) -> Counts:
    """Count one inference of an artifact.

    Args:
        parts: The programs that run artifacts.
        plugin: QEMU with the plugin.
        root: The root that the program sees.
        core: QEMU's name of the processor.
        backend: "executorch" or "onnxruntime".
        model: The artifact.
        sample: The inputs of a call.
        scratch: A folder for files.

    Raises:
        LoweringError: The runtime refuses the artifact or crashes, or the plugin did not count.
    """
    answer = scratch / "counts.txt"
    answer.unlink(missing_ok=True)
    emulated.run_emulated(
        replace(parts, qemu=plugin.qemu),
        root, core, backend, model, [sample] * CALLS, scratch, plugin.options(answer),
    )  # fmt: skip
    settled = _parse_instruction_counts(answer)[SETTLED:]
    return Counts(*(sum(values) / len(settled) for values in zip(*settled, strict=True)))


def _parse_instruction_counts(answer: Path) -> list[tuple[int, ...]]:
    """Return what each call executed, in the order of the fields of `Counts`."""
    try:
        names, *lines = [line.split() for line in answer.read_text().splitlines()]
        calls = [tuple(int(value) for value in line) for line in lines]
    except (OSError, ValueError):
        raise LoweringError("QEMU's counting plugin wrote no counts") from None
    if names != [item.name for item in fields(Counts)] or len(calls) != CALLS:
        raise LoweringError("QEMU's counting plugin wrote other classes or calls than expected")
    return calls
