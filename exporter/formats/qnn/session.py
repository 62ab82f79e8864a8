"""Compiles models for the Hexagon NPU, and executes them on Qualcomm's simulator of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.capture.lowering_errors import shorten_lowering_error
from exporter.errors import CannotRunHere, LoweringError
from exporter.formats.qnn.qnn_contents import CONTEXT, check_qnn_contents
from exporter.records import Array, Runner, Sample, Variant

if TYPE_CHECKING:
    import onnxruntime

PROVIDER = "QNNExecutionProvider"
QUIET = 3
"""ONNX Runtime's level for errors alone."""


def compile_in_htp_session(model: Path, context: Path, backend: str) -> None:
    """Compile a QDQ model, and write a model in which the binary stands for what the NPU executes.

    Args:
        model: The QDQ model.
        context: Where the compiled model is written.
        backend: "htp-v68", …

    Raises:
        CannotRunHere: The package is not installed, or does not run on this machine.
        LoweringError: Nothing of the model can run on the NPU.
        Exception: The compiler's own errors.
    """
    _htp_session(
        model,
        backend,
        {
            "ep.context_enable": "1",
            "ep.context_embed_mode": "1",
            "ep.context_file_path": str(context),
        },
    )
    if not context.is_file():
        raise LoweringError("Qualcomm's compiler takes none of its operators.")


def load_htp_simulator_session(path: Path, variant: Variant, threads: int) -> tuple[Runner, str]:
    """Load a compiled folder in the simulator; what was not compiled runs on the CPU.

    Args:
        path: The written folder.
        variant: One of this format's variants.
        threads: Unused: the simulator chooses its threads itself.

    Returns:
        A runner, and "onnxruntime-qnn 2.7.0 (simulator, v68)".

    Raises:
        CannotRunHere: The package is not installed, or does not run on this machine.
        LoweringError: The folder is damaged, or the simulator refuses it.
    """
    from importlib import metadata

    check_qnn_contents(path, variant)
    try:
        session = _htp_session(path / CONTEXT, variant.backend, {})
    except (CannotRunHere, LoweringError):
        raise
    except Exception as error:
        raise LoweringError(f"The simulator refuses {path.name}: {shorten_lowering_error(error)}") from error
    names = [value.name for value in session.get_inputs()]

    def run(sample: Sample) -> tuple[Array, ...]:
        return tuple(session.run(None, dict(zip(names, sample, strict=True))))

    generation = variant.backend.removeprefix("htp-")
    return run, f"onnxruntime-qnn {metadata.version('onnxruntime-qnn')} (simulator, {generation})"


def _htp_session(model: Path, backend: str, entries: Mapping[str, str]) -> onnxruntime.InferenceSession:
    import onnxruntime as ort

    package = _package_of_qnn_session()
    options = ort.SessionOptions()
    options.log_severity_level = QUIET
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    devices = [device for device in ort.get_ep_devices() if device.ep_name == PROVIDER]
    if not devices:
        raise CannotRunHere("onnxruntime-qnn finds no NPU and no simulator on this machine.")
    generation = backend.removeprefix("htp-v")
    options.add_provider_for_devices(
        devices[:1], {"backend_path": package.get_qnn_htp_path(), "htp_arch": generation}
    )
    return ort.InferenceSession(str(model), options)


def _package_of_qnn_session() -> Any:
    """Return the package, once its provider is registered in this process.

    Raises:
        CannotRunHere: It is not installed, or does not load.
    """
    import onnxruntime as ort

    try:
        import onnxruntime_qnn
    except ImportError as error:
        raise CannotRunHere(f"onnxruntime-qnn is not installed ({error}).") from None
    if not any(device.ep_name == PROVIDER for device in ort.get_ep_devices()):
        try:
            ort.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())
        except Exception as error:
            raise CannotRunHere(f"onnxruntime-qnn does not load: {shorten_lowering_error(error)}") from error
    return onnxruntime_qnn
