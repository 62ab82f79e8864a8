"""Writes an ONNX model tensor by tensor: protobuf's own writer holds the whole model twice.

A model of more than 2 GB becomes a folder of the graph and of its weights (`onnx_external`), any other one
file, with the bytes that protobuf writes. A message is its fields in the order of their numbers, each a tag,
a length and the content (https://protobuf.dev/programming-guides/encoding), so that the graph is written as
what comes before its tensors, the tensors, and what comes after them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from exporter.formats.onnx import onnx_export, onnx_external
from exporter.records import Array

if TYPE_CHECKING:
    import onnx
    import onnx_ir

GRAPH, INITIALIZER, RAW_DATA = 7, 5, 9
"""Numbers of fields: of a model, of a graph, and of a tensor."""
ALIGNMENT = 64
"""Runtimes map the file of weights, and vector instructions read whole cache lines."""
LENGTH_DELIMITED = 2
"""The wire type of a field that has a length."""


@dataclass(frozen=True, eq=False)
class StreamedOnnx:
    """A model whose large tensors are not in its message."""

    proto: onnx.ModelProto
    """The model; each large tensor is a reference to a place in another file."""
    tensors: Mapping[str, onnx_ir.TensorProtocol]
    """Name -> large tensor."""

    @property
    def size_bytes(self) -> int:
        """Return the size of the file."""
        graph = sum(map(_streamed_size, self._graph_parts()))
        head, tail = self._model_ends()
        return len(head) + len(_streamed_tag(GRAPH, graph)) + graph + len(tail)

    def add_metadata(self, properties: Mapping[str, str]) -> None:
        """Add the properties that the runtime gives an app."""
        for key, text in properties.items():
            self.proto.metadata_props.add(key=key, value=text)

    def write_file(self, path: Path) -> None:
        """Write one file; the values of one tensor are in memory at a time."""
        with path.open("wb") as file:
            self.write_to(file)

    def write_to(self, file: BinaryIO) -> None:
        """Write what one file holds."""
        head, tail = self._model_ends()
        file.write(head)
        file.write(_streamed_tag(GRAPH, sum(map(_streamed_size, self._graph_parts()))))
        for part in self._graph_parts():
            if isinstance(part, bytes):
                file.write(part)
            else:
                _write_streamed_tensor(part, file)
        file.write(tail)

    def write_folder(self, folder: Path) -> None:
        """Write the weights to a file of their own, beside the graph."""
        folder.mkdir()
        (folder / onnx_external.MODEL).write_bytes(self.proto.SerializeToString(deterministic=True))
        with (folder / onnx_external.WEIGHTS).open("wb") as file:
            for tensor in self.tensors.values():
                file.seek(_streamed_place(file.tell()))
                _write_streamed_tensor(tensor, file)

    def check(self) -> None:
        """Check the model as one with its weights in another file, which nobody reads for it.

        Raises:
            onnx.checker.ValidationError: It is not valid ONNX.
        """
        import onnx

        with tempfile.TemporaryDirectory(prefix="export-mobile-") as folder:
            path = Path(folder) / onnx_external.MODEL
            path.write_bytes(self.proto.SerializeToString(deterministic=True))
            with path.with_name(onnx_external.WEIGHTS).open("wb") as weights:
                weights.truncate(sum(_streamed_place(tensor.nbytes) for tensor in self.tensors.values()))
            onnx.checker.check_model(str(path), full_check=True)

    def changed_model(
        self,
        proto: onnx.ModelProto,
        convert: Callable[[onnx_ir.TensorProtocol], onnx_ir.TensorProtocol] | None = None,
    ) -> onnx_ir.Model:
        """Return a changed message as a model that has its large tensors again.

        Args:
            proto: This model's message after a change. Its references tell which tensor is meant, whatever
                its name is now.
            convert: Makes a tensor of another type, where the message states one. Nothing is converted
                before it is written.
        """
        import onnx_ir

        by_place = dict(zip(_streamed_places(self.tensors.values()), self.tensors.values(), strict=True))
        model = onnx_ir.from_proto(proto)
        for value in model.graph.initializers.values():
            if isinstance(reference := value.const_value, onnx_ir.ExternalTensor):
                tensor = by_place[reference.offset or 0]
                changed = tensor.dtype != reference.dtype
                value.const_value = convert(tensor) if changed and convert else tensor
        return model

    def constants(self) -> dict[str, Array]:
        """Return the values of all tensors by name; the large ones are not copied."""
        from onnx import numpy_helper

        return {
            stored.name: self.tensors[stored.name].numpy()
            if stored.name in self.tensors
            else numpy_helper.to_array(stored)
            for stored in self.proto.graph.initializer
        }

    def copy(self) -> StreamedOnnx:
        """Return a model whose message can be changed without this one's; tensors are shared."""
        proto = type(self.proto)()
        proto.CopyFrom(self.proto)
        return StreamedOnnx(proto, self.tensors)

    def restreamed(
        self,
        proto: onnx.ModelProto | None = None,
        convert: Callable[[onnx_ir.TensorProtocol], onnx_ir.TensorProtocol] | None = None,
    ) -> StreamedOnnx:
        """Return the model of a changed message, in order and with valid names.

        Args:
            proto: As for `changed_model`; this model's own, changed in place, when None.
            convert: As for `changed_model`; None where no large tensor gets another type.
        """
        model = self.changed_model(proto or self.proto, convert)
        onnx_export.clean_onnx_export(model)
        return streamed_onnx(model)

    def _model_ends(self) -> tuple[bytes, bytes]:
        """Return the model's fields before and after its graph."""
        return (
            _streamed_fields(self.proto, lambda number: number < GRAPH),
            _streamed_fields(self.proto, lambda number: number > GRAPH),
        )

    def _graph_parts(self) -> Iterator[bytes | onnx_ir.TensorProtocol]:
        """Yield the graph's content in order: bytes, and large tensors, which stand for theirs."""
        graph = self.proto.graph
        yield _streamed_fields(graph, lambda number: number < INITIALIZER)
        for stored in graph.initializer:
            tensor = self.tensors.get(stored.name)
            if tensor is None:
                content = stored.SerializeToString(deterministic=True)
                yield _streamed_tag(INITIALIZER, len(content)) + content
                continue
            described = _streamed_fields(stored, lambda number: number < RAW_DATA)
            described += _streamed_tag(RAW_DATA, tensor.nbytes)
            yield _streamed_tag(INITIALIZER, len(described) + tensor.nbytes) + described
            yield tensor
        yield _streamed_fields(graph, lambda number: number > INITIALIZER)


def streamed_onnx(model: onnx_ir.Model) -> StreamedOnnx:
    """Take a model's large tensors out of its message."""
    import onnx_ir

    stored = {name: value.const_value for name, value in model.graph.initializers.items()}
    tensors = {
        name: tensor
        for name, tensor in stored.items()
        if tensor is not None and tensor.nbytes >= onnx_external.LARGE_TENSOR_BYTES
    }
    try:
        for (name, tensor), place in zip(tensors.items(), _streamed_places(tensors.values()), strict=True):
            model.graph.initializers[name].const_value = onnx_ir.ExternalTensor(
                onnx_external.WEIGHTS,
                place,
                tensor.nbytes,
                tensor.dtype,
                shape=onnx_ir.Shape(tensor.shape.numpy()),
                name=name,
            )
        proto = onnx_ir.to_proto(model)
    finally:
        for name, tensor in tensors.items():
            model.graph.initializers[name].const_value = tensor
    onnx_export.strip_onnx_export(proto)
    return StreamedOnnx(proto, tensors)


def _write_streamed_tensor(tensor: onnx_ir.TensorProtocol, file: BinaryIO) -> None:
    """Write a tensor's values, without a copy where they are in memory."""
    import onnx_ir

    if isinstance(tensor, (onnx_ir.Tensor, onnx_ir.LazyTensor)):
        tensor.tofile(file)
    else:
        file.write(tensor.tobytes())


def _streamed_places(tensors: Iterable[onnx_ir.TensorProtocol]) -> Iterator[int]:
    """Yield where each large tensor begins in a file of weights."""
    place = 0
    for tensor in tensors:
        yield place
        place = _streamed_place(place + tensor.nbytes)


def _streamed_place(offset: int) -> int:
    """Return the first place from an offset on where a tensor begins in a file of weights."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _streamed_fields(message: Any, wanted: Callable[[int], bool]) -> bytes:
    """Serialise those fields of a message whose numbers are wanted."""
    part = type(message)()
    part.CopyFrom(message)
    for field, _ in message.ListFields():
        if not wanted(field.number):
            part.ClearField(field.name)
    data: bytes = part.SerializeToString(deterministic=True)
    return data


def _streamed_tag(number: int, length: int) -> bytes:
    """Return what comes before a field's content: its number and wire type, and its length."""
    tag, rest = bytearray([number << 3 | LENGTH_DELIMITED]), length
    while rest > 0x7F:
        tag.append(rest & 0x7F | 0x80)
        rest >>= 7
    tag.append(rest)
    return bytes(tag)


def _streamed_size(part: bytes | onnx_ir.TensorProtocol) -> int:
    return len(part) if isinstance(part, bytes) else part.nbytes
