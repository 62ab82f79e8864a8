"""Counts how often each instruction of a `.pte` runs: a scan is a jump back, once for each step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from executorch.exir.schema import Chain, ExecutionPlan

SELECT = "aten::select_copy"
"""The first operator of a loop: it takes one step of the sequence."""


def pte_repeats(plan: ExecutionPlan, chain: Chain) -> list[int]:
    """Return how often each instruction of a chain runs in one call; a condition's branch counts once."""
    repeats = [1] * len(chain.instructions)
    for end, instruction in enumerate(chain.instructions):
        jump: Any = instruction.instr_args
        if type(jump).__name__ != "JumpFalseCall" or jump.destination_instruction > end:
            continue
        first = jump.destination_instruction
        steps = _steps_of_loop(plan, chain.instructions[first].instr_args)
        repeats[first : end + 1] = [times * steps for times in repeats[first : end + 1]]
    return repeats


def _steps_of_loop(plan: ExecutionPlan, call: Any) -> int:
    """Return the length of the sequence that a loop's first instruction selects from; 1 for another loop."""
    if type(call).__name__ != "KernelCall" or plan.operators[call.op_index].name != SELECT:
        return 1
    sequence: Any = plan.values[call.args[0]].val
    return max(1, int(sequence.sizes[0]))
