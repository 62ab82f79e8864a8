"""Runs an artifact under QEMU, in a confined process: samples go in, outputs come back, nothing is timed.

Both files are little-endian. The inputs begin with the number of samples. Then, as in the outputs, there is
for each sample the number of tensors, and for each tensor its type's place in `DTYPES`, its rank, its shape
and its values.
"""

from __future__ import annotations

import io
import math
import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exporter.emulated.parts import EmulatedParts
from exporter.errors import LoweringError
from exporter.records import Array, Sample

DTYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
"""In the order of android_harness/runner/tensor.h."""
MAX_RANK = 16
MAX_TENSORS = 1000
SIGNALS = 128


@dataclass(frozen=True, eq=False)
class EmulatedRun:
    """What an artifact computed under emulation."""

    runtime: str
    """"onnxruntime 1.32.0"."""
    outputs: tuple[Sample, ...]


def run_emulated(
    parts: EmulatedParts,
    root: Path,
    core: str,
    backend: str,
    model: Path,
    samples: Sequence[Sample],
    scratch: Path,
    options: Sequence[str] = (),
) -> EmulatedRun:
    """Run an artifact on samples.

    Args:
        parts: QEMU and the programs.
        root: The root that the program sees.
        core: QEMU's name of the processor.
        backend: "executorch" or "onnxruntime".
        model: The artifact.
        samples: The inputs of each call.
        scratch: A folder for both files.
        options: Further options of QEMU.

    Raises:
        LoweringError: The runtime refuses the artifact or crashes; or its answer is damaged.
    """
    inputs, outputs = scratch / "inputs.bin", scratch / "outputs.bin"
    inputs.write_bytes(_encoded_for_emulated_run(samples))
    program = parts.folder / "bin" / f"runner-{backend}"
    done = subprocess.run(
        [parts.qemu, "-L", root, "-cpu", core, *options, program, model, inputs, outputs],
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode < 0 or done.returncode >= SIGNALS:
        raise LoweringError(
            f"the runtime crashes on an emulated {core.partition(',')[0]}: "
            f"{_last_of_emulated_run(done.stderr)}"
        )
    if done.returncode:
        raise LoweringError(_last_of_emulated_run(done.stderr) or f"the program ended with {done.returncode}")
    return EmulatedRun(
        done.stdout.strip()[:100], tuple(_decoded_emulated_run(outputs.read_bytes(), len(samples)))
    )


def _last_of_emulated_run(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _encoded_for_emulated_run(samples: Sequence[Sample]) -> bytes:
    stream = io.BytesIO()
    stream.write(struct.pack("<I", len(samples)))
    for sample in samples:
        stream.write(struct.pack("<I", len(sample)))
        for array in sample:
            values = np.ascontiguousarray(array)
            header = struct.pack("<II", DTYPES.index(values.dtype.name), values.ndim)
            stream.write(header + struct.pack(f"<{values.ndim}q", *array.shape) + values.tobytes())
    return stream.getvalue()


def _decoded_emulated_run(data: bytes, samples: int) -> Iterator[Sample]:
    reader = _EmulatedRunReader(data)
    for _ in range(samples):
        count = reader.number("<I")
        if count > MAX_TENSORS:
            raise LoweringError("the emulated program's answer is damaged")
        yield tuple(reader.array() for _ in range(count))


class _EmulatedRunReader:
    """Reads an answer and checks it: a hostile artifact may have taken the program over."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, code: str) -> int:
        (value,) = struct.unpack(code, self._take(struct.calcsize(code)))
        return int(value)

    def array(self) -> Array:
        dtype, rank = self.number("<I"), self.number("<I")
        if dtype >= len(DTYPES) or rank > MAX_RANK:
            raise LoweringError("the emulated program's answer is damaged")
        shape = tuple(self.number("<q") for _ in range(rank))
        kind = np.dtype(DTYPES[dtype])
        if any(length < 0 for length in shape):
            raise LoweringError("the emulated program's answer is damaged")
        values = self._take(math.prod(shape) * kind.itemsize)
        try:
            return np.frombuffer(values, kind).reshape(shape).copy()
        except ValueError:  # no values, in a shape that numpy cannot count
            raise LoweringError("the emulated program's answer is damaged") from None

    def _take(self, size: int) -> bytes:
        part = self._data[self._at : self._at + size]
        if len(part) != size:
            raise LoweringError("the emulated program's answer is cut short")
        self._at += size
        return part
