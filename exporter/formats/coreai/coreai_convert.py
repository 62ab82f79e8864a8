"""Converts a captured program to Core AI, in single or half precision."""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import TYPE_CHECKING, Any

from exporter.errors import LoweringError
from exporter.records import Captured, Precision

if TYPE_CHECKING:
    import torch


def convert_to_coreai(
    captured: Captured, program: torch.export.ExportedProgram, precision: Precision
) -> tuple[Any, str]:
    """Convert a program; inputs and outputs keep the model's names and types.

    Args:
        captured: Its inputs and outputs name those of the asset.
        program: In ATen dialect, float32.
        precision: "fp32" or "fp16".

    Returns:
        coreai's program, and a note on what stays in float32; empty when nothing does.

    Raises:
        LoweringError: A weight leaves float16's range.
        Exception: Core AI cannot express the network; the converter's errors are of many types.
    """
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # a CPU build of a tested torch counts as untested
        from coreai_torch import TorchConverter, get_decomp_table

        note = ""
        if precision == "fp16":
            from exporter.formats.coreai.coreai_float16 import coreai_float16_program

            program, note = coreai_float16_program(captured, program)
        _check_coreai_converted_names(captured)
        converter = TorchConverter(mode=TorchConverter.Mode.RELEASE).add_exported_program(
            program.run_decompositions(get_decomp_table()),
            input_names=[spec.name for spec in captured.inputs],
            output_names=[spec.name for spec in captured.outputs],
        )
        return converter.to_coreai(), note


def _check_coreai_converted_names(captured: Captured) -> None:
    names = [spec.name for spec in (*captured.inputs, *captured.outputs)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise LoweringError(f"Core AI cannot give an input and an output the same name: {repeated[0]}.")
