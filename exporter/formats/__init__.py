"""The formats that export-mobile can emit: one module per format, listed in `FORMATS`.

To add one, write a module with the six names of `Format` and add a line to the table.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import exporter.formats.coreai as coreai
import exporter.formats.coreml as coreml
import exporter.formats.executorch as executorch
import exporter.formats.onnx as onnx
import exporter.formats.qnn as qnn
import exporter.formats.torchscript as torchscript
from exporter.records import Captured, Emission, Executor, FormatName, Runner, Structure, Variant


class Format(Protocol):
    """A module that makes, reads and runs one kind of file. Frameworks are imported inside functions."""

    VARIANTS: tuple[Variant, ...]
    KEEPS_STATE: bool
    """Whether its files keep buffers that forward changes, from call to call."""
    PRELOAD: tuple[str, ...]
    """Modules worth importing before the first job: imports cost seconds and happen once per worker."""

    def emit(self, captured: Captured, variant: Variant, directory: Path) -> Emission:
        """Write the artifact as `directory / (variant.name + variant.suffix)`.

        For int8 and mixed variants `captured.program` is the quantised program (see `exporter.quantize`).

        Raises:
            LoweringError: The framework cannot express this model; it quotes the cause.
        """
        ...

    def load(self, path: Path, variant: Variant, threads: int) -> tuple[Runner, str]:
        """Load the written file in its own runtime; returns the runner and "runtime version".

        Where this machine has no such runtime, `variant_executor` says what executes it instead.

        Raises:
            CannotRunHere: This machine has no runtime for it; the message says why.
        """
        ...

    def structure(self, path: Path, variant: Variant) -> Structure:
        """Read the file without running it.

        Raises:
            LoweringError: It is not a whole, well-formed file of this format.
        """
        ...


FORMATS: dict[str, Format] = {
    "executorch": executorch,
    "torchscript": torchscript,
    "onnx": onnx,
    "coreml": coreml,
    "coreai": coreai,
    "onnx-qnn": qnn,
}


VARIANTS: dict[str, Variant] = {v.name: v for module in FORMATS.values() for v in module.VARIANTS}


@dataclass(frozen=True)
class Stand:
    """How artifacts are verified whose runtime on this machine only stands in for the phone's.

    Such a runtime may take seconds a call. It is run on the first verification samples, the edge inputs, and
    on one sample again. No time is measured with it, and no labelled sample is run.
    """

    executor: Executor
    samples: int | None
    """The number of verification samples that are run; None for all."""
    writes: bool = False
    """Whether the runtime compiles the artifact into the temporary folder when it loads it."""
    reads: tuple[Path, ...] = ()
    """What the runtime reads beside the artifact."""
    seconds: float = 900.0
    """Bound on the wall time of one artifact's verification."""


STANDS: Mapping[str, Stand] = {
    # Swift's thread pool looks at its threads in /proc/THREAD, and ends the process where it cannot.
    "coreai": Stand("CPU runtime", samples=4, writes=True, reads=(Path("/proc"),)),
    "htp": Stand("NPU simulator", samples=None),
    "vulkan": Stand("software driver", samples=8, writes=True),
}
"""Backend, without its generation -> how its stand-in is used; the others run in the runtime of a phone."""


def stand_for(variant: Variant) -> Stand | None:
    """Return how the stand-in for a variant's runtime is used; None where the runtime itself runs here."""
    backend = variant.backend.partition("-")[0]
    return None if backend == "coreai" and sys.platform == "darwin" else STANDS.get(backend)


def variant_executor(variant: Variant) -> Executor:
    """Return what `load` executes files of a variant with on this machine."""
    if variant.format == "coreml" and sys.platform != "darwin":
        return "reference interpreter"
    stand = stand_for(variant)
    return stand.executor if stand else "runtime"


EXTRAS: Mapping[FormatName, tuple[str, tuple[str, ...]]] = {
    "coreai": ("coreai", ("coreai", "coreai_torch")),
    "onnx-qnn": ("qnn", ("onnxruntime_qnn",)),
}
"""Format -> the extra that makes it, and the modules that the extra brings."""
