"""TorchScript for the lite interpreter (`.ptl`), which PyTorch Mobile executes."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.capture.lowering_errors import lowering_error, shorten_lowering_error
from exporter.checkpoints.packed_archive import pack_archive
from exporter.errors import LoweringError
from exporter.formats.metadata import METADATA, metadata_as_json
from exporter.formats.torchscript.scripting import script_or_trace
from exporter.formats.torchscript.size_guards import guard_sizes_of_torchscript
from exporter.formats.torchscript.torchscript_archive import SIGNATURE
from exporter.formats.torchscript.torchscript_archive import torchscript_archive_structure as structure
from exporter.records import Array, Captured, Emission, Runner, Sample, Variant

if TYPE_CHECKING:
    import torch

__all__ = ["KEEPS_STATE", "PRELOAD", "VARIANTS", "emit", "load", "structure"]

VARIANTS: tuple[Variant, ...] = (
    Variant(
        name="torchscript-lite-fp32",
        format="torchscript",
        backend="lite",
        precision="fp32",
        suffix=".ptl",
        group="torchscript",
        cost_s=1.0,
    ),
)
KEEPS_STATE = True
PRELOAD: tuple[str, ...] = ()


def emit(captured: Captured, variant: Variant, directory: Path) -> Emission:
    """Trace or script the module, freeze it (which folds batch norms) and save it for the lite interpreter.

    The same model gives the same bytes in a fresh process; PyTorch numbers the classes it compiles, so a
    second export in one process differs in their names.

    Args:
        captured: Its `torchscript` says whether to trace or to script.
        variant: One of `VARIANTS`.
        directory: Where `<variant.name>.ptl` is written.

    Raises:
        LoweringError: Neither tracing nor scripting can express the model.
    """
    path = directory / f"{variant.name}{variant.suffix}"
    with warnings.catch_warnings():
        # TorchScript and its lite interpreter are deprecated as a whole: who asks for them knows.
        warnings.simplefilter("ignore", DeprecationWarning)
        script, notes = script_or_trace(captured)
        try:
            optimised, note = _optimise_torchscript(script)
            guard_sizes_of_torchscript(optimised, captured.dynamic)
            optimised._save_for_lite_interpreter(str(path), _extra_files=_torchscript_extra_files(captured))
        except Exception as error:
            raise lowering_error(error, captured.program) from error
    return Emission(path, (*notes, note))


def load(path: Path, variant: Variant, threads: int) -> tuple[Runner, str]:
    """Load a `.ptl` in the lite interpreter.

    Args:
        path: The written file.
        variant: One of `VARIANTS`.
        threads: Size of PyTorch's one thread pool per process.

    Returns:
        A runner giving the outputs flattened in order, and "torchscript lite (torch <version>)".

    Raises:
        LoweringError: The file is damaged, or the interpreter refuses it.
    """
    import torch
    from torch.jit.mobile import _load_for_lite_interpreter

    # The interpreter itself trusts the file: damaged bytes could crash the process.
    structure(path, variant)
    torch.set_num_threads(threads)
    try:
        module = _load_for_lite_interpreter(_repack_torchscript(path))  # type: ignore[no-untyped-call]
    except Exception as error:
        raise LoweringError(
            f"The lite interpreter refuses {path.name}: {shorten_lowering_error(error)}"
        ) from error

    def run(sample: Sample) -> tuple[Array, ...]:
        with torch.no_grad():
            outputs = module(*(torch.tensor(array) for array in sample))
        return tuple(
            tensor.numpy().copy() for tensor in _flatten_torchscript(outputs)
        )  # a buffer may be among them

    return run, f"torchscript lite (torch {torch.__version__.partition('+')[0]})"


def _repack_torchscript(path: Path) -> io.BytesIO:
    """Copy the file's records to a fresh archive: two readers can disagree about a crafted one."""
    with zipfile.ZipFile(path) as archive:
        return pack_archive({name: archive.read(name) for name in archive.namelist()}, root="")


def _optimise_torchscript(script: torch.jit.ScriptModule) -> tuple[torch.jit.ScriptModule, str]:
    import torch
    from torch.utils.mobile_optimizer import optimize_for_mobile

    # A module frozen before has lost this attribute, and can't be frozen again.
    if not hasattr(script, "training"):
        return script, "It was frozen already: nothing was folded."
    try:
        return optimize_for_mobile(script.eval()), "Optimised for mobile: batch norms folded, weights packed."
    except RuntimeError as error:
        if "XNNPACK is not enabled" not in str(error):
            raise
    frozen = torch.jit.freeze(script.eval())
    return frozen, (
        "Frozen, batch norms folded. PyTorch's own mobile pass did not run: it packs weights for XNNPACK, "
        "which this build of PyTorch lacks."
    )


def _torchscript_extra_files(captured: Captured) -> dict[str, str]:
    metadata = metadata_as_json(captured.about)
    return {SIGNATURE: _torchscript_signature(captured)} | (
        {f"{METADATA}.json": metadata} if metadata else {}
    )


def _torchscript_signature(captured: Captured) -> str:
    inputs, outputs = ([asdict(spec) for spec in specs] for specs in (captured.inputs, captured.outputs))
    return json.dumps({"inputs": inputs, "outputs": outputs})


def _flatten_torchscript(outputs: Any) -> list[torch.Tensor]:
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    if isinstance(outputs, tuple | list):
        return [tensor for output in outputs for tensor in _flatten_torchscript(output)]
    return [] if outputs is None else [outputs]
