"""ONNX models compiled for the Hexagon NPU of Snapdragons, by ONNX Runtime's QNN execution provider.

An artifact is a folder of two files: `model.onnx` with QDQ pairs, from which a phone's own driver can
compile, and `context.onnx` with the binary that was compiled here for one generation of the NPU (v68, …).

The package `onnxruntime-qnn` holds Qualcomm's compiler and simulator. Its licence forbids to pass it on:
users install it, and nothing of it is part of this project.
"""

from __future__ import annotations

from pathlib import Path

from exporter.capture.lowering_errors import lowering_error, shorten_lowering_error
from exporter.errors import CannotRunHere, LoweringError
from exporter.formats.onnx import onnx_quantized
from exporter.formats.qnn.qnn_contents import CONTEXT, MODEL, qnn_contents_off_npu
from exporter.formats.qnn.qnn_contents import read_qnn_contents as structure
from exporter.formats.qnn.refused_operator import refused_operator
from exporter.formats.qnn.session import compile_in_htp_session
from exporter.formats.qnn.session import load_htp_simulator_session as load
from exporter.records import Captured, Emission, Variant

__all__ = ["KEEPS_STATE", "PRELOAD", "VARIANTS", "emit", "load", "structure"]

GENERATIONS = ("v68", "v69", "v73", "v75", "v79")
VARIANTS: tuple[Variant, ...] = tuple(
    Variant(f"onnx-qnn-{name}-int8", "onnx-qnn", f"htp-{name}", "int8", ".qnn", f"onnx-qnn-{name}", 5.0)
    for name in GENERATIONS
)
KEEPS_STATE = False
PRELOAD: tuple[str, ...] = ("onnx", "onnxruntime", "onnxscript")
LICENCE_NOTE = "Compiled with Qualcomm's SDK: read its licence before you pass the file on."


def emit(captured: Captured, variant: Variant, directory: Path) -> Emission:
    """Write the QDQ model, and compile it for the variant's generation.

    Args:
        captured: Its `program` is quantised.
        variant: One of `VARIANTS`.
        directory: Where the folder `<variant.name>.qnn` is written.

    Raises:
        LoweringError: ONNX cannot express the model, or Qualcomm's compiler refuses it.
    """
    folder = directory / f"{variant.name}{variant.suffix}"
    folder.mkdir()
    try:
        model = onnx_quantized.unsigned_onnx_quantized(onnx_quantized.make_onnx_quantized_model(captured))
        model.check()
        model.write_file(folder / MODEL)
        _compile_for_htp((folder / MODEL).read_bytes(), folder, variant)
        left = qnn_contents_off_npu(folder)
    except OSError:
        raise  # a full disk is not the model's fault
    except Exception as error:
        raise lowering_error(error, captured.program) from error
    names = ", ".join(f"{count} {name}" for name, count in left.items())
    return Emission(folder, (LICENCE_NOTE, f"Stays on the CPU: {names}.") if left else (LICENCE_NOTE,))


def _compile_for_htp(model: bytes, folder: Path, variant: Variant) -> None:
    """Compile the folder's model, and say which operator the compiler refuses.

    Raises:
        LoweringError: Nothing of it can run on the NPU, or the compiler fails; it names the operator.
    """
    try:
        compile_in_htp_session(folder / MODEL, folder / CONTEXT, variant.backend)
    except (CannotRunHere, LoweringError):
        raise
    except Exception as error:
        operator = refused_operator(
            model,
            folder,
            lambda path: compile_in_htp_session(path, folder / CONTEXT, variant.backend),
        )
        who = (
            f"Qualcomm's compiler refuses the operator {operator}"
            if operator
            else "Qualcomm's compiler fails"
        )
        generation = variant.backend.removeprefix("htp-")
        raise LoweringError(f"{who} for Hexagon {generation}: {shorten_lowering_error(error)}") from error
