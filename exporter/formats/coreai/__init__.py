"""Core AI assets (`.aimodel` folders), the successor of Core ML from iOS 27 on: single and half precision.

Apple's packages bring a runtime for Linux that computes on the CPU, seconds a call for a mobile network. It
tells whether an asset is right; it says nothing of a phone's time, nor of its GPU and Neural Engine.
"""

from __future__ import annotations

from pathlib import Path

from exporter.capture.lowering_errors import lowering_error
from exporter.errors import LoweringError
from exporter.formats.coreai.coreai_asset import read_coreai_asset as structure
from exporter.formats.coreai.coreai_asset import write_coreai_asset
from exporter.formats.coreai.coreai_convert import convert_to_coreai
from exporter.formats.coreai.coreai_runtime import load_in_coreai_runtime as load
from exporter.records import Captured, Emission, Variant

__all__ = ["KEEPS_STATE", "PRELOAD", "VARIANTS", "emit", "load", "structure"]

VARIANTS: tuple[Variant, ...] = (
    Variant("coreai-fp32", "coreai", "coreai", "fp32", ".aimodel", "coreai-fp32", 4.0),
    Variant("coreai-fp16", "coreai", "coreai", "fp16", ".aimodel", "coreai-fp16", 5.0),
)
KEEPS_STATE = False
PRELOAD: tuple[str, ...] = ()
NEEDS_NOTE = "Needs iOS 27 or macOS 27. Linux executes it on the CPU, to tell whether it is right."


def emit(captured: Captured, variant: Variant, directory: Path) -> Emission:
    """Convert the program and write an asset whose bytes depend on nothing else.

    Args:
        captured: Its `program` is converted.
        variant: One of `VARIANTS`.
        directory: Where the folder `<variant.name>.aimodel` is written.

    Raises:
        LoweringError: There is no program, or Core AI cannot express it.
    """
    if captured.program is None:
        raise LoweringError(captured.program_error, captured.program_source)
    path = directory / f"{variant.name}{variant.suffix}"
    try:
        asset, note = convert_to_coreai(captured, captured.program, variant.precision)
        write_coreai_asset(asset, path)
    except OSError:
        raise  # a full disk is not the model's fault
    except Exception as error:
        raise lowering_error(error, captured.program) from error
    narrowed = [s.name for s in (*captured.inputs, *captured.outputs) if s.dtype == "int64"]
    narrow = f"{', '.join(narrowed)}: int32, because Core AI has no 64-bit integers." if narrowed else ""
    return Emission(path, tuple(text for text in (NEEDS_NOTE, note, narrow) if text))
