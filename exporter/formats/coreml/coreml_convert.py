"""Converts a captured model to a Core ML package in half precision."""

from __future__ import annotations

import functools
import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.capture.lowering_errors import lowering_error
from exporter.errors import LoweringError
from exporter.formats.coreml.convertible_graph import (
    convertible_graph,
    has_convertible_graph_recurrent_layers,
)
from exporter.formats.coreml.coreml_float16 import coreml_float16_precision
from exporter.formats.coreml.coreml_package import (
    NAMES_KEY,
    WEIGHTS,
    Package,
    coreml_package_names,
    coremltools_quietly_for_package,
)
from exporter.formats.coreml.coreml_sizes import coreml_sizes_of_inputs
from exporter.formats.coreml.package_description import package_description
from exporter.formats.torchscript.scripting import trace_instead_of_scripting
from exporter.records import Captured, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import torch

# The first that keeps compressed weights compressed in memory and takes float16 between operators. Later
# ones add nothing that these variants use, and iPhones with an A15 shipped from iOS 15 on.
DEPLOYMENT_TARGET = "iOS16"
RECURRENT_TARGET = "iOS17"
"""The first that computes recurrent layers in float16."""


def convert_to_coreml(captured: Captured) -> tuple[Package, tuple[str, ...]]:
    """Convert to an ML Program that computes in float16, except what `half` keeps in float32.

    Its inputs and outputs are float32.

    Returns:
        The package, and notes on what differs from the model (narrowed integers, changed names). A second
        call with the same `captured` returns the same package: don't change it.

    Raises:
        LoweringError: There is no program, or coremltools cannot express it.
    """
    result = _attempt_coreml_convert(captured)
    if isinstance(result, LoweringError):
        raise result
    return result


@functools.lru_cache(maxsize=1)
def _attempt_coreml_convert(captured: Captured) -> tuple[Package, tuple[str, ...]] | LoweringError:
    # Failures are kept too: the other variants would fail the same way, after the same seconds.
    if captured.program is None:
        return LoweringError(captured.program_error, captured.program_source)
    try:
        return _coreml_convert_captured(captured, captured.program)
    except Exception as error:
        return lowering_error(error, captured.program)


def _coreml_convert_captured(
    captured: Captured, program: torch.export.ExportedProgram
) -> tuple[Package, tuple[str, ...]]:
    ct = coremltools_quietly_for_package()
    inputs, outputs = coreml_package_names(
        [spec.name for spec in captured.inputs], [spec.name for spec in captured.outputs]
    )
    types = [
        ct.TensorType(name=name, dtype=_dtype_for_coreml_convert(spec))
        for name, spec in zip(outputs, captured.outputs, strict=True)
    ]
    target = RECURRENT_TARGET if has_convertible_graph_recurrent_layers(program) else DEPLOYMENT_TARGET
    tensors = [
        ct.TensorType(name=name, shape=shape, dtype=_dtype_for_coreml_convert(spec))
        for name, shape, spec in zip(inputs, coreml_sizes_of_inputs(captured), captured.inputs, strict=True)
    ]
    package = _coreml_convert_from_trace(captured, tensors, types, target) or _coreml_convert_from_program(
        program, tensors if captured.ranges else None, types, target
    )
    _rename_inputs_of_coreml_convert(package.spec, inputs)
    names = [feature.name for feature in package.spec.description.output]
    if names != outputs:
        raise LoweringError(f"Core ML gives the outputs as {names}, the model as {outputs}.")
    _keep_names_in_coreml_convert(package.spec, captured)
    package_description(package.spec, captured)
    return package, _coreml_convert_notes(captured, target, [*inputs, *outputs])


def _coreml_convert_from_trace(
    captured: Captured, inputs: list[Any], outputs: list[Any], target: str
) -> Package | None:
    """Convert from a trace: a third faster, and with recurrent layers; None where that does not work.

    coremltools' TorchScript reader fails on many attention networks (with NumPy 2.4, `int()` of an array).
    """
    try:
        traced = trace_instead_of_scripting(captured)
        if not traced:
            return None
        return coreml_convert_to_package(
            traced,
            target,
            inputs=inputs,
            outputs=outputs,
            compute_precision=coreml_float16_precision(),
        )
    except Exception as error:
        logging.getLogger(__name__).info("Core ML from the trace failed, so from the program: %s", error)
        return None


def _coreml_convert_from_program(
    program: torch.export.ExportedProgram, inputs: list[Any] | None, outputs: list[Any], target: str
) -> Package:
    """Convert from the exported program, whose inputs are its own unless they have several sizes."""
    return coreml_convert_to_package(
        convertible_graph(program),
        target,
        inputs=inputs,
        outputs=outputs,
        compute_precision=coreml_float16_precision(),
    )


def _dtype_for_coreml_convert(spec: TensorSpec) -> type[np.generic]:
    import numpy as np

    return np.float32 if spec.dtype.startswith("float") else np.int32


def coreml_convert_targets() -> dict[int, str]:
    """Return the deployment targets that packages here have, by the version of Core ML's specification."""
    ct = coremltools_quietly_for_package()
    return {int(ct.target[name]): name for name in (DEPLOYMENT_TARGET, RECURRENT_TARGET)}


def coreml_convert_to_package(model: Any, target: str = DEPLOYMENT_TARGET, **options: Any) -> Package:
    """Run `coremltools.convert`; take the result out of the folder it insists on."""
    ct = coremltools_quietly_for_package()
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory, "model.mlpackage")
        converted = ct.convert(
            model,
            convert_to="mlprogram",
            minimum_deployment_target=ct.target[target],
            skip_model_load=True,
            package_dir=str(folder),
            **options,
        )
        weights = (folder / WEIGHTS).read_bytes() if (folder / WEIGHTS).exists() else b""
        spec = converted.get_spec()
    # The day of the export would make two builds differ.
    spec.description.metadata.userDefined.pop("com.github.apple.coremltools.conversion_date", None)
    return Package(spec, weights)


def _rename_inputs_of_coreml_convert(spec: Any, names: list[str]) -> None:
    """Give the inputs, which coremltools names after the graph's placeholders, the model's names."""
    rename = coremltools_quietly_for_package().utils.rename_feature
    placeholders = [feature.name for feature in spec.description.input]
    if len(placeholders) != len(names):
        raise LoweringError(
            f"Core ML takes the inputs {placeholders}, the model {names}: some are never used."
        )
    taken = set(_values_for_coreml_convert(spec)) & set(names) - set(placeholders)
    if taken:
        raise LoweringError(f"The input name {min(taken)} is an operator's in the converted graph.")
    # In two steps, because the new name of one input may be the old name of another.
    for position, old in enumerate(placeholders):
        rename(spec, old, f"export_mobile_input_{position}", rename_outputs=False)
    for position, new in enumerate(names):
        rename(spec, f"export_mobile_input_{position}", new, rename_outputs=False)


def _values_for_coreml_convert(spec: Any) -> Iterator[str]:
    for function in spec.mlProgram.functions.values():
        for block in function.block_specializations.values():
            for operation in block.operations:
                yield from (output.name for output in operation.outputs)


def _keep_names_in_coreml_convert(spec: Any, captured: Captured) -> None:
    names = {"inputs": [s.name for s in captured.inputs], "outputs": [s.name for s in captured.outputs]}
    spec.description.metadata.userDefined[NAMES_KEY] = json.dumps(names)


def _coreml_convert_notes(captured: Captured, target: str, names: list[str]) -> tuple[str, ...]:
    specs = (*captured.inputs, *captured.outputs)
    renamed = [f"{s.name!r} is {name!r}" for s, name in zip(specs, names, strict=True) if s.name != name]
    narrowed = [s.name for s in specs if s.dtype == "int64"]
    notes = [f"Needs {target} or later."]
    tied = [size.range.name for size in captured.ranges if len({place for place, _ in size.places}) > 1]
    if tied:
        notes.append(f"Core ML does not check that inputs have the same {', '.join(tied)}: the app must.")
    if renamed:
        notes.append(f"Core ML's names: {', '.join(renamed)}.")
    if narrowed:
        notes.append(f"{', '.join(narrowed)}: int32, because Core ML has no 64-bit integers.")
    return tuple(notes)
