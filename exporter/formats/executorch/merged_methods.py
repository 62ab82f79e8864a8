"""Merges several `.pte` files into one with a method for each: what they have in common is stored once.

Delegates keep their weights in the file's named data, under the hash of the bytes. So files of one network
for several input sizes share their weights, as far as these are equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from exporter.errors import LoweringError
from exporter.formats.executorch.pte import read_pte_program

if TYPE_CHECKING:
    from executorch.exir._serialize._program import PTEFile
    from executorch.exir.schema import ExecutionPlan, Program


def merge_pte_methods(files: Mapping[str, bytes]) -> bytes:
    """Return the bytes of a `.pte` with the methods of all files.

    Args:
        files: What is put after the names of a file's methods, as "forward_224x224" -> the file's bytes.

    Raises:
        LoweringError: A file keeps state, which the methods would not share.
    """
    from executorch.exir import ExecutorchBackendConfig
    from executorch.exir._serialize._program import serialize_pte_binary

    names, parts = list(files), [read_pte_program(data) for data in files.values()]
    merged = _MergedProgram(parts[0])
    for name, part in zip(names, parts, strict=True):
        merged.add(name, part)
    config = ExecutorchBackendConfig()
    data = serialize_pte_binary(
        merged.file(),
        extract_delegate_segments=config.extract_delegate_segments,
        segment_alignment=config.segment_alignment,
        constant_tensor_alignment=config.constant_tensor_alignment,
        delegate_alignment=config.delegate_alignment,
    )
    return bytes(data)


class _MergedProgram:
    """Collects methods and the data that they refer to by index; equal data gets one index."""

    def __init__(self, first: PTEFile) -> None:
        self.version = first.program.version
        self.methods: list[ExecutionPlan] = []
        self.constants: dict[bytes, int] = {b"": 0}  # index 0 says that a tensor is no constant
        self.delegates: dict[bytes, int] = {}
        self.weights: dict[str, tuple[bytes, int]] = {}
        """Key of named data -> its bytes and their alignment."""

    def add(self, suffix: str, part: PTEFile) -> None:
        if part.mutable_data:
            raise LoweringError("it keeps state from call to call, which methods of one file do not share")
        constants = [_index_of(self.constants, item.storage) for item in part.program.constant_buffer]
        delegates = [_index_of(self.delegates, item.data) for item in part.program.backend_delegate_data]
        for method in part.program.execution_plan:
            method.name = f"{method.name}_{suffix}"
            _renumber_constants(method, constants)
            for delegate in method.delegates:
                delegate.processed.index = delegates[delegate.processed.index]
            self.methods.append(method)
        if part.named_data:
            for key, entry in part.named_data.pte_data.items():
                self._add_weight(key, part.named_data.buffers[entry.buffer_index], entry.alignment)

    def _add_weight(self, key: str, data: bytes, alignment: int) -> None:
        held, least = self.weights.setdefault(key, (data, alignment))
        if held != data:
            raise LoweringError(f"two files have different weights under the name {key}")
        self.weights[key] = (held, max(least, alignment))

    def file(self) -> PTEFile:
        from executorch.exir._serialize._named_data_store import NamedDataStoreOutput
        from executorch.exir._serialize._program import PTEFile
        from executorch.exir._serialize.data_serializer import DataEntry

        entries = {
            key: DataEntry(index, alignment, None)
            for index, (key, (_, alignment)) in enumerate(self.weights.items())
        }
        buffers = [data for data, _ in self.weights.values()]
        return PTEFile(self._program(), None, NamedDataStoreOutput(buffers, entries, {}))

    def _program(self) -> Program:
        from executorch.exir import schema

        return schema.Program(
            version=self.version,
            execution_plan=self.methods,
            constant_buffer=[schema.Buffer(data) for data in self.constants],
            backend_delegate_data=[schema.BackendDelegateInlineData(data) for data in self.delegates],
            segments=[],
            constant_segment=schema.SubsegmentOffsets(0, []),
        )


def _index_of(held: dict[bytes, int], data: bytes) -> int:
    return held.setdefault(data, len(held))


def _renumber_constants(method: ExecutionPlan, indices: list[int]) -> None:
    """Point a method's constants to their new places; tensors that are no constants have 0."""
    from executorch.exir.schema import Tensor

    for value in method.values:
        if isinstance(value.val, Tensor) and value.val.data_buffer_idx:
            value.val.data_buffer_idx = indices[value.val.data_buffer_idx]
