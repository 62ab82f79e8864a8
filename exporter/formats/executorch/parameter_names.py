"""Gives parameters names that ExecuTorch's compiler can work with.

A plain `nn.Sequential` numbers its modules. Where batch norm is fused into the layer before it, the compiler
names the new weight after the old one, "0.weight" -> "0_weight_fused_bn", and looks for it under that name:
but torch.fx calls it "_0_weight_fused_bn", as no identifier begins with a digit.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch.export.graph_signature import InputSpec


def with_usable_parameter_names(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Rename parameters, so that the compiler can name a tensor after every one of them.

    Returns the program itself where it already can: names end up in the file, and should be the user's.
    """
    from torch.export.graph_signature import ExportGraphSignature, InputKind

    signature = program.graph_signature
    # Their placeholders in the graph have names that are identifiers, each its own.
    names = {
        spec.target: spec.arg.name
        for spec in signature.input_specs
        if spec.kind is InputKind.PARAMETER and not _is_parameter_name_usable(spec.target or "")
    }
    if not names:
        return program

    def with_name(spec: InputSpec) -> InputSpec:
        return dataclasses.replace(spec, target=names.get(spec.target, spec.target))

    return program._update(
        program.graph_module,
        ExportGraphSignature([with_name(spec) for spec in signature.input_specs], signature.output_specs),
        state_dict={names.get(name, name): tensor for name, tensor in program.state_dict.items()},
    )


def _is_parameter_name_usable(name: str) -> bool:
    """Tell whether torch.fx leaves the compiler's name for a tensor unchanged."""
    return name.isascii() and name.replace(".", "_").isidentifier()
