"""Core ML ML Programs (`.mlpackage` folders): half precision, and weights in 8 or 4 bits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.capture.lowering_errors import lowering_error, shorten_lowering_error
from exporter.errors import LoweringError
from exporter.formats.coreml.compress import compress_program
from exporter.formats.coreml.contents import package_contents as structure
from exporter.formats.coreml.convert import convert_to_coreml
from exporter.formats.coreml.description import check_package_description
from exporter.formats.coreml.package import read_package, write_package
from exporter.records import Array, Captured, Emission, Precision, Runner, Sample, Variant

if TYPE_CHECKING:
    from typing import Any

__all__ = ["KEEPS_STATE", "PRELOAD", "VARIANTS", "emit", "load", "structure"]


def _coreml_variant(precision: Precision, cost_s: float) -> Variant:
    return Variant(f"coreml-{precision}", "coreml", "coreml", precision, ".mlpackage", "coreml", cost_s)


VARIANTS: tuple[Variant, ...] = (
    _coreml_variant("fp16", 5.0),
    _coreml_variant("w8", 1.0),
    _coreml_variant("w4", 2.5),
)
KEEPS_STATE = False
PRELOAD: tuple[str, ...] = ("coremltools",)


def emit(captured: Captured, variant: Variant, directory: Path) -> Emission:
    """Convert the program, compress its weights, and write a package whose bytes depend on nothing else.

    The variants share one conversion of the same `captured`.

    Args:
        captured: Its `program` is converted.
        variant: One of `VARIANTS`.
        directory: Where the folder `<variant.name>.mlpackage` is written; it must not exist.

    Raises:
        LoweringError: There is no program, or Core ML cannot express it.
    """
    path = directory / f"{variant.name}{variant.suffix}"
    try:
        package, notes = convert_to_coreml(captured)
        if variant.precision in ("w8", "w4"):
            package, note = compress_program(package, variant.precision)
            notes = (*notes, note)
        write_package(package, path)
        check_package_description(read_package(path).spec, captured)
    except LoweringError:
        raise
    except Exception as error:
        raise lowering_error(error, captured.program) from error
    return Emission(path, notes)


def load(path: Path, variant: Variant, threads: int) -> tuple[Runner, str]:
    """Load a package in Core ML itself on a Mac, and in the reference interpreter elsewhere.

    Args:
        path: The written folder.
        variant: One of `VARIANTS`.
        threads: Unused: Core ML chooses cores, GPU and Neural Engine itself.

    Raises:
        CannotRunHere: This is not macOS, and the interpreter does not know an operator of the package.
        LoweringError: Core ML refuses the package, or it is damaged.
    """
    if sys.platform == "darwin":
        return _load_coreml_on_mac(path, variant)
    from exporter.formats.coreml.interpreter import load_interpreter

    return load_interpreter(path)


def _load_coreml_on_mac(path: Path, variant: Variant) -> tuple[Runner, str]:
    import platform

    import coremltools
    import numpy as np

    try:
        model: Any = coremltools.models.MLModel(str(path))
    except Exception as error:
        raise LoweringError(f"Core ML refuses {path.name}: {shorten_lowering_error(error)}") from error
    description = model.get_spec().description
    inputs = [feature.name for feature in description.input]
    outputs = [feature.name for feature in description.output]

    def run(sample: Sample) -> tuple[Array, ...]:
        # Core ML has no 64-bit integers.
        narrow = [a.astype(np.int32) if a.dtype == np.int64 else a for a in sample]
        predictions = model.predict(dict(zip(inputs, narrow, strict=True)))
        return tuple(np.asarray(predictions[name]) for name in outputs)

    return run, f"coreml (macOS {platform.mac_ver()[0]})"
