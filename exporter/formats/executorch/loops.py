"""Tells which instructions of a `.pte` are in loops: a loop is a jump back, once for each step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from executorch.exir.schema import Chain


def pte_loop_places(chain: Chain) -> frozenset[int]:
    """Return the places of a chain's instructions that a jump back repeats; a condition only jumps ahead."""
    places: set[int] = set()
    for end, instruction in enumerate(chain.instructions):
        jump: Any = instruction.instr_args
        if type(jump).__name__ == "JumpFalseCall" and jump.destination_instruction <= end:
            places.update(range(jump.destination_instruction, end + 1))
    return frozenset(places)
