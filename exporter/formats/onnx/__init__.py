"""ONNX and ORT files for ONNX Runtime: fp32, fp16 and int8 from one export."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.capture.lowering_errors import lowering_error
from exporter.errors import LoweringError
from exporter.formats.metadata import model_metadata
from exporter.formats.onnx import (
    onnx_contents,
    onnx_export,
    onnx_external,
    onnx_file,
    onnx_float16,
    onnx_quantized,
    ort_convert,
    ort_file,
)
from exporter.formats.onnx.onnx_streamed import StreamedOnnx, streamed_onnx
from exporter.formats.onnx.size_guards import guard_sizes_of_onnx
from exporter.records import (
    ONNX_FOLDER_NOTE,
    QUANTIZED,
    Array,
    Captured,
    Emission,
    Runner,
    Sample,
    Structure,
    Variant,
)

if TYPE_CHECKING:
    import onnxruntime

# There is no ort-fp16: x86 has no float16 kernels, so the conversion would bake casts and float32 weights in.
VARIANTS: tuple[Variant, ...] = (
    Variant("onnx-fp32", "onnx", "onnxruntime", "fp32", ".onnx", "onnx", 6.0),
    Variant("onnx-fp16", "onnx", "onnxruntime", "fp16", ".onnx", "onnx", 1.0),
    Variant("onnx-int8", "onnx", "onnxruntime", "int8", ".onnx", "onnx-int8", 4.0),
    Variant("onnx-mixed", "onnx", "onnxruntime", "mixed", ".onnx", "onnx-mixed", 4.0),
    Variant("ort-fp32", "onnx", "onnxruntime-mobile", "fp32", ".ort", "onnx", 0.5),
    Variant("ort-int8", "onnx", "onnxruntime-mobile", "int8", ".ort", "onnx-int8", 0.5),
)
KEEPS_STATE = False
PRELOAD: tuple[str, ...] = ("onnx", "onnxruntime", "onnxscript")

SHARED_WEIGHT = "Attempt to replace the existing tensor"
"""In ONNX Runtime's message where it converts a weight a second time, because two operators share it."""
ORT_NOTE = "Optimised ahead of time for ARM CPUs: slower than the .onnx file on x86, which has other kernels."


def emit(captured: Captured, variant: Variant, directory: Path) -> Emission:
    """Write the artifact; see `Format.emit`.

    Raises:
        LoweringError: PyTorch or ONNX Runtime cannot express this model; it quotes the cause.
    """
    path = directory / f"{variant.name}{variant.suffix}"
    try:
        notes = _write_onnx(captured, variant, path)
    except OSError:
        raise  # a full disk is not the model's fault
    except Exception as error:
        raise lowering_error(error, captured.program) from error
    return Emission(path, notes)


def _write_onnx(captured: Captured, variant: Variant, path: Path) -> tuple[str, ...]:
    """Write an artifact without a copy of its weights, and return notes on it.

    Raises:
        LoweringError: Its format has one file, which cannot hold the weights.
        Exception: As `emit`.
    """
    if variant.suffix == ".ort" and captured.program is not None:
        onnx_export.refuse_onnx_program_too_large(captured.program)
    model, notes = _onnx_model(captured, variant)
    if captured.ranges:
        guard_sizes_of_onnx(model.proto, captured.ranges)
    model.add_metadata(model_metadata(captured.about))
    model.check()
    if variant.suffix == ".ort":
        onnx_export.refuse_onnx_export_too_large(model.size_bytes)
        with tempfile.TemporaryDirectory(prefix="export-mobile-") as folder:
            parts = Path(folder) / "model"
            model.write_folder(parts)  # its weights are mapped, those of a single file are copied
            ort_convert.convert_to_ort(parts / onnx_external.MODEL, path)
        return (*notes, ORT_NOTE)
    if model.size_bytes > onnx_export.MAX_BYTES:
        model.write_folder(path)
        return (*notes, ONNX_FOLDER_NOTE)
    model.write_file(path)
    return notes


def _onnx_model(captured: Captured, variant: Variant) -> tuple[StreamedOnnx, tuple[str, ...]]:
    """Return the artifact's model, which may be changed, and notes on how it was made."""
    if variant.precision in QUANTIZED:
        quantized = onnx_quantized.make_onnx_quantized_model(captured)
        unsigned = variant.suffix == ".onnx"
        return (onnx_quantized.unsigned_onnx_quantized(quantized) if unsigned else quantized.copy()), ()
    model = streamed_onnx(onnx_export.translate_fp32_to_onnx(captured))
    if variant.precision == "fp32":
        return model, ()
    model, note = onnx_float16.onnx_float16_model(model)
    return model, (note,) if note else ()


def load(path: Path, variant: Variant, threads: int) -> tuple[Runner, str]:
    """Load the file in ONNX Runtime on the CPU, with `threads` threads.

    Returns:
        The runner, and "onnxruntime 1.32.0".

    Raises:
        LoweringError: It is not a whole file of its format, or the runtime refuses it.
    """
    import onnxruntime as ort

    _onnx_contents(path)  # before the runtime sees it: it would follow references to other files
    try:
        session = _onnx_session(str(onnx_external.onnx_model_file(path)), threads)
    except Exception as error:
        raise lowering_error(error) from error
    return _onnx_runner(session), f"onnxruntime {ort.__version__}"


def structure(path: Path, variant: Variant) -> Structure:
    """Read the file without running it.

    Raises:
        LoweringError: It is not a whole, well-formed file of its format.
    """
    return onnx_contents.structure_of_onnx_contents(_onnx_contents(path))


def _onnx_contents(path: Path) -> onnx_contents.Contents:
    try:
        return ort_file.read_ort_file(path) if path.suffix == ".ort" else onnx_file.read_onnx_file(path)
    except OSError as error:
        raise LoweringError(f"It cannot be read: {error.strerror}.") from error


def _onnx_session(model: str | bytes, threads: int) -> onnxruntime.InferenceSession:
    try:
        return _onnx_session_with(model, threads, exact=True)
    except Exception as error:
        if SHARED_WEIGHT not in str(error):
            raise
        return _onnx_session_with(model, threads, exact=False)


def _onnx_session_with(model: str | bytes, threads: int, exact: bool) -> onnxruntime.InferenceSession:
    """Start a session.

    Args:
        model: The file, or its bytes.
        threads: The number of threads.
        exact: Whether products of int8 may not saturate. ONNX Runtime then converts weights for the
            processor, and stops at one that two operators share.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # x86 processors without VNNI add products of int8 in 16 bits that saturate; no phone does. Where there is
    # VNNI this changes nothing (onnxruntime_session_options_config_keys.h, "x64quantprecision").
    options.add_session_config_entry("session.x64quantprecision", str(int(exact)))
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _onnx_runner(session: onnxruntime.InferenceSession) -> Runner:
    names = [i.name for i in session.get_inputs()]

    def run(sample: Sample) -> tuple[Array, ...]:
        return tuple(session.run(None, dict(zip(names, sample, strict=True))))

    return run
