"""Lets PyTorch list its composite operators in one go where it decomposes a program.

PyTorch looks every composite operator up again for each of its 40 namespaces of operators, and decomposes a
program several times in one lowering: a third of the time that a small network takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from exporter.formats.replaced_internals import are_versions_proven, replaced_internal

PROVEN_VERSIONS = {"torch": "2.13.0"}


@contextmanager
def list_composite_operators_in_one_go() -> Iterator[None]:
    """Look composite operators up once for each list inside the block; does nothing in other versions."""
    if not are_versions_proven(PROVEN_VERSIONS):
        yield
        return
    from torch._export import utils
    from torch.export import decomp_utils, exported_program

    listed = _listed_in_one_go(utils, utils._collect_all_valid_cia_ops)
    with (
        replaced_internal(decomp_utils, "_collect_all_valid_cia_ops", listed),
        replaced_internal(exported_program, "_collect_all_valid_cia_ops", listed),
    ):
        yield


def _listed_in_one_go(utils: Any, collect: Callable[[], set[Any]]) -> Callable[[], set[Any]]:
    look_up = utils._materialize_cpp_cia_ops

    def listed() -> set[Any]:
        look_up()  # in all namespaces, whichever is asked for
        with replaced_internal(utils, "_materialize_cpp_cia_ops", lambda: None):
            return collect()

    return listed
