"""Loads programs that other workers of this run saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def load_saved_program(path: Path) -> torch.export.ExportedProgram:
    """Load a program of this run.

    For a size with a step, PyTorch's reader enters the expression (32*s) among the symbols, over which its
    own passes stumble: "expected sympy.Symbol".
    """
    import sympy  # type: ignore[import-untyped]
    import torch

    program = torch.export.load(path)
    for node in program.graph.nodes:
        mode = getattr(node.meta.get("val"), "fake_mode", None)
        if mode is not None and mode.shape_env is not None:
            ranges = mode.shape_env.var_to_range
            for expression in [key for key in ranges if not isinstance(key, sympy.Symbol)]:
                del ranges[expression]
    return program
