"""Lists the operators of TorchScript that a model may use: those that compute.

`operators.txt` holds their names, one a line. It was drawn from the operators of the pinned torch. Left out
are those that name files (`aten::save`, `aten::from_file`), print, reach other processes or devices, set a
tensor's storage, or belong to another library.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from importlib import resources

TRUST = "Pass --trust if you trust whoever made the file."


@functools.cache
def allowed_torchscript_operators() -> frozenset[str]:
    """The names of all operators a model may use, as in "aten::conv2d"."""
    return frozenset(resources.files("exporter.checkpoints").joinpath("operators.txt").read_text().split())


def refused_torchscript_operators(names: Iterable[str]) -> tuple[str, ...]:
    """The operators among `names` that a model may not use, sorted.

    Args:
        names: With or without an overload: "aten::add", "aten::add.Tensor".
    """
    return tuple(
        sorted({name for name in names if name.partition(".")[0] not in allowed_torchscript_operators()})
    )


def torchscript_operators_complaint(names: tuple[str, ...]) -> str:
    """What is wrong with a file that uses these operators, to go on after its name."""
    shown = ", ".join(map(_spell_torchscript_operator, names[:3])) + (", …" if len(names) > 3 else "")
    return f"uses {shown}: it may reach files, the screen or other code, which no model needs to compute"


def _spell_torchscript_operator(name: str) -> str:
    """An operator as TorchScript's source writes it, with its full name: 'save' (aten::save)."""
    namespace, _, short = name[:80].partition("::")
    return f"{short if namespace in ('aten', 'prim') else f'ops.{namespace}'!r} ({namespace}::{short})"
