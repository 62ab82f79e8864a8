"""Spells out operators that ExecuTorch computes wrongly, by others that it computes rightly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.formats.executorch.ignored_arguments import replaced_ignored_arguments
from exporter.formats.executorch.pixel_shuffles import replaced_pixel_shuffles
from exporter.formats.executorch.shifted_norms import replaced_norms

if TYPE_CHECKING:
    import torch

REPLACED = (replaced_ignored_arguments, replaced_pixel_shuffles, replaced_norms)
"""Each returns what replaces some operators of a program: a function with the arguments of each."""


def with_operators_spelled_out(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return the program without the calls that ExecuTorch computes wrongly; itself where it has none."""
    table = {operator: function for replaced in REPLACED for operator, function in replaced(program).items()}
    if not table:
        return program
    spelled_out: torch.export.ExportedProgram = program.run_decompositions(table)
    return spelled_out
