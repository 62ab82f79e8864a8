"""Reads a `.pte` without running it: signature, operators, weights and who executes what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.capture.lowering_errors import shorten_lowering_error
from exporter.errors import LoweringError
from exporter.formats.executorch.delegates import DelegateGraph, DelegateWeight, read_delegate
from exporter.formats.executorch.epsilon_place import epsilon_place
from exporter.formats.executorch.loops import pte_loop_places
from exporter.formats.executorch.operator_work import (
    Work,
    is_operator_work_elementwise,
    operator_work,
    total_operator_work,
)
from exporter.records import Structure, TensorSpec, Variant

if TYPE_CHECKING:
    from executorch.exir._serialize._program import PTEFile
    from executorch.exir.schema import ExecutionPlan, Program, Tensor

MAGIC = b"ET"
SCALAR_TYPES = {
    "BYTE": "uint8",
    "CHAR": "int8",
    "SHORT": "int16",
    "INT": "int32",
    "LONG": "int64",
    "HALF": "float16",
    "FLOAT": "float32",
    "DOUBLE": "float64",
    "BOOL": "bool",
    "BFLOAT16": "bfloat16",
}


def read_pte(path: Path, variant: Variant) -> Structure:
    """Read a `.pte`, its delegates included.

    `delegated_fraction` is the share of multiply-accumulates (`work` has the formula) in delegate calls, or
    of output elements when the network multiplies nothing; loops, which no delegate takes, are left out of
    it. `weight_bytes` counts all constants.
    A `.pte` does not keep tensor names: inputs are "input0", …, outputs "output0", ….

    Raises:
        LoweringError: It is not a whole, well-formed `.pte` file of known delegates.
    """
    data = path.read_bytes()
    if data[4:6] != MAGIC:
        raise LoweringError(
            f"{path.name} is not an ExecuTorch program: its identifier is {data[4:8]!r}, not b'ET..'"
        )
    try:
        return _pte_structure(data)
    except LoweringError:
        raise
    except Exception as error:
        # Damaged offsets make the flatbuffer reader fail in any way Python can.
        raise LoweringError(f"{path.name} is damaged: {shorten_lowering_error(error)}") from error


def read_pte_program(data: bytes) -> PTEFile:
    """Parse the bytes of a `.pte`."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    return deserialize_pte_binary(data)


def _pte_structure(data: bytes) -> Structure:
    file = read_pte_program(data)
    plan = next(plan for plan in file.program.execution_plan if plan.name == "forward")
    kernels = list(_pte_kernels(plan))
    graphs = list(_pte_delegate_graphs(plan, file.program))
    constants = _pte_constants(plan, _pte_layer_inputs(plan, graphs))
    weights = _pte_weights([*constants, *(w for graph in graphs for w in graph.weights)])
    return Structure(
        inputs=_pte_specs(plan, plan.inputs, "input"),
        outputs=_pte_specs(plan, plan.outputs, "output"),
        operators=sum((graph.operators for graph in graphs), Counter(name for name, _ in kernels)),
        weight_bytes=_pte_constant_bytes(file),
        weight_elements=weights,
        delegated_fraction=_pte_delegated_fraction(
            total_operator_work(g.work for g in graphs),
            total_operator_work(work for _, work in kernels if work is not None),
        ),
        epsilons=(*_pte_epsilons(plan), *(number for graph in graphs for number in graph.epsilons)),
    )


def _pte_specs(plan: ExecutionPlan, indices: Sequence[int], prefix: str) -> tuple[TensorSpec, ...]:
    tensors = [plan.values[index].val for index in indices]
    for i, tensor in enumerate(tensors):
        # Of images: a matrix that an operator returns column by column (nonzero) is read by its strides.
        if len(tensor.sizes) >= 4 and list(tensor.dim_order) != sorted(tensor.dim_order):
            raise LoweringError(
                f"Its {prefix}{i} lies in memory in the order {list(tensor.dim_order)} of its dimensions: "
                "whoever calls it row by row would read it wrongly"
            )
    return tuple(
        TensorSpec(f"{prefix}{i}", tuple(tensor.sizes), _pte_dtype(tensor))
        for i, tensor in enumerate(tensors)
    )


def _pte_dtype(tensor: Tensor) -> str:
    name: str = tensor.scalar_type.name
    return SCALAR_TYPES.get(name, name.lower())


def _pte_instructions(plan: ExecutionPlan, kind: str) -> Iterator[Any]:
    for chain in plan.chains:
        for instruction in chain.instructions:
            if type(instruction.instr_args).__name__ == kind:
                yield instruction.instr_args


def _pte_kernels(plan: ExecutionPlan) -> Iterator[tuple[str, Work | None]]:
    """Yield the name of each kernel call's operator, and its work; None in a loop."""
    for chain in plan.chains:
        looped = pte_loop_places(chain)
        for place, instruction in enumerate(chain.instructions):
            call: Any = instruction.instr_args
            if type(call).__name__ != "KernelCall":
                continue
            operator = plan.operators[call.op_index]
            arguments = [plan.values[index].val for index in call.args]
            shapes = [argument.sizes for argument in arguments if hasattr(argument, "sizes")]
            transposed = any(getattr(argument, "bool_val", False) for argument in arguments)
            work = None if place in looped else operator_work(operator.name, shapes, transposed)
            yield operator.name, work


def _pte_epsilons(plan: ExecutionPlan) -> Iterator[float]:
    for call in _pte_instructions(plan, "KernelCall"):
        operator = plan.operators[call.op_index]
        place = epsilon_place(operator.name.partition("::")[2], operator.overload)
        number = None if place is None else getattr(plan.values[call.args[place]].val, "double_val", None)
        if number is not None:  # a logit may have none
            yield float(number)


def _pte_delegate_graphs(plan: ExecutionPlan, program: Program) -> Iterator[DelegateGraph]:
    for call in _pte_instructions(plan, "DelegateCall"):
        delegate = plan.delegates[call.delegate_index]
        yield read_delegate(delegate.id, program.backend_delegate_data[delegate.processed.index].data)


def _pte_constants(plan: ExecutionPlan, layers: set[int]) -> Iterator[DelegateWeight]:
    """Yield the constants of the layers outside delegates; buffer 0 means that the tensor is computed."""
    for index in sorted(layers):
        tensor: Any = plan.values[index].val
        if getattr(tensor, "data_buffer_idx", 0) and tensor.allocation_info is None:
            yield DelegateWeight(f"buffer {tensor.data_buffer_idx}", _pte_dtype(tensor), tuple(tensor.sizes))


def _pte_layer_inputs(plan: ExecutionPlan, graphs: Sequence[DelegateGraph]) -> set[int]:
    """Return the values that an operator other than an elementwise one reads, in a delegate or outside."""
    layers: set[int] = set()
    for call in _pte_instructions(plan, "KernelCall"):
        if not is_operator_work_elementwise(plan.operators[call.op_index].name):
            layers.update(call.args)
    for call, graph in zip(_pte_instructions(plan, "DelegateCall"), graphs, strict=True):
        layers.update(index for i, index in enumerate(call.args) if i in graph.layer_arguments)
    return layers


def _pte_weights(constants: Sequence[DelegateWeight]) -> dict[str, int]:
    matrices = {constant.key: constant for constant in constants if len(constant.shape) >= 2}
    counts: Counter[str] = Counter()
    for constant in matrices.values():
        counts[constant.dtype] += prod(constant.shape)
    return dict(counts)


def _pte_constant_bytes(file: PTEFile) -> int:
    named = file.named_data.buffers if file.named_data else []
    return sum(map(len, named)) + sum(len(buffer.storage) for buffer in file.program.constant_buffer)


def _pte_delegated_fraction(delegated: Work, kernels: Work) -> float:
    if delegated.macs + kernels.macs:
        return delegated.macs / (delegated.macs + kernels.macs)
    elements = delegated.elements + kernels.elements
    return delegated.elements / elements if elements else 0.0
