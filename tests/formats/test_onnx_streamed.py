"""Models that are written tensor by tensor have the bytes that protobuf writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from torch import Tensor, nn

from exporter.formats.onnx import onnx_export, onnx_external, onnx_float16, onnx_quantized, onnx_streamed
from exporter.records import TensorSpec
from tests import nets
from tests.onnx_bytes import streamed_bytes, whole_onnx


class Tensors(nn.Module):
    """A network with large and small weights, tied ones, half-precision and whole numbers, and a table."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(40, 40), nn.Linear(40, 40)
        self.second.weight = self.first.weight
        self.rows = nn.Embedding(20, 40)
        self.register_buffer("halves", torch.randn(40, 40).half())
        self.register_buffer("places", torch.arange(400) % 20)
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        looked_up = self.rows(self.get_buffer("places")).sum(0) + self.get_buffer("halves").float().sum(0)
        result: Tensor = self.second(torch.relu(self.first(x))) * self.scale + looked_up
        return result


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x)


class Normed(nn.Module):
    """A network with a large table that only a norm reads, and a constant that both precisions read."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.table, self.shift = nn.Parameter(torch.randn(40, 40)), nn.Parameter(torch.randn(600, 40) * 1e6)
        self.linear = nn.Linear(40, 40)

    def forward(self, x: Tensor) -> Tensor:
        moved = torch.softmax(self.linear(x) @ self.table + self.shift.mean(0), -1)
        result: Tensor = moved + (self.shift @ self.table).mean(0)
        return result


def translated(net: nn.Module) -> onnx_ir.Model:
    program = torch.export.export(net.eval(), (torch.randn(1, 40),))
    shape = (TensorSpec("x", (1, 40)),), (TensorSpec("y", (1, 40)),)
    model = onnx_export.export_to_onnx(program, *shape)
    onnx_export.clean_onnx_export(model)
    return model


def float16_bytes(net: Callable[[], nn.Module]) -> bytes:
    """Return the file that a network of the same random weights becomes each time."""
    torch.manual_seed(0)
    return streamed_bytes(onnx_float16.onnx_float16_model(onnx_streamed.streamed_onnx(translated(net())))[0])


@pytest.mark.parametrize("net", [Tensors, Nothing, lambda: nn.Linear(40, 40)])
@pytest.mark.parametrize("properties", [{}, {"author": "Ada", "classes": "[]"}])
def test_a_streamed_file_has_protobufs_bytes(
    net: Callable[[], nn.Module], properties: dict[str, str], tmp_path: Path
) -> None:
    """Tensors, graph and metadata are where protobuf's own writer puts them."""
    model = translated(net())
    whole = onnx.load_model_from_string(whole_onnx(model))
    for key, text in properties.items():
        whole.metadata_props.add(key=key, value=text)
    streamed = onnx_streamed.streamed_onnx(model)
    streamed.add_metadata(properties)
    streamed.check()
    streamed.write_file(tmp_path / "model.onnx")
    written = (tmp_path / "model.onnx").read_bytes()
    assert written == whole.SerializeToString(deterministic=True)
    assert streamed.size_bytes == len(written)


@pytest.mark.parametrize("net", [Tensors, Nothing, lambda: nn.Linear(40, 40), Normed])
def test_half_precision_has_the_bytes_of_a_whole_conversion(
    net: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors that are converted as they are written become what ONNX Runtime's converter makes of all."""
    streamed = float16_bytes(net)
    monkeypatch.setattr(onnx_external, "LARGE_TENSOR_BYTES", 1 << 40)  # all tensors are in the message
    assert streamed == float16_bytes(net)


@pytest.mark.parametrize("name", ["cnn", "attention"])
def test_int8_has_the_bytes_of_a_model_with_all_tensors_inside(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors that are only referred to are turned, biased and made unsigned as the others are."""

    def written() -> tuple[bytes, bytes]:
        captured = replace(nets.captured_int8(name))  # another object: translations are kept for each
        signed = onnx_quantized.make_onnx_quantized_model(captured)
        return streamed_bytes(signed), streamed_bytes(onnx_quantized.unsigned_onnx_quantized(signed))

    monkeypatch.setattr(onnx_external, "LARGE_TENSOR_BYTES", 64)
    streamed = written()
    monkeypatch.setattr(onnx_external, "LARGE_TENSOR_BYTES", 1 << 40)
    assert streamed == written()
    assert streamed[0] != streamed[1]


def test_nothing_is_converted_before_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model in half precision holds references to the float32 weights."""
    from onnxruntime.transformers import float16

    converted: list[int] = []
    convert = float16.convert_np_to_float16

    def counted(values: np.ndarray, *limits: float) -> np.ndarray:
        converted.append(values.size)
        halves: np.ndarray = convert(values, *limits)
        return halves

    monkeypatch.setattr(float16, "convert_np_to_float16", counted)
    model, _ = onnx_float16.onnx_float16_model(onnx_streamed.streamed_onnx(translated(nn.Linear(40, 40))))
    assert max(converted, default=0) <= 40
    streamed_bytes(model)
    assert max(converted) == 1600


def test_large_tensors_are_converted_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block's end does not show in the values, extremes among them."""
    values = np.array([1e-9, -1e-9, 0, 1e6, -1e6, np.inf, np.nan, 1 / 3] * 5, np.float32).reshape(8, 5)
    whole = onnx_float16._halved_onnx_tensor(onnx_ir.tensor(values)).numpy()
    monkeypatch.setattr(onnx_float16, "BLOCK", 7)
    np.testing.assert_array_equal(onnx_float16._halved_onnx_tensor(onnx_ir.tensor(values)).numpy(), whole)
    assert whole.dtype == np.float16
    assert whole.shape == (8, 5)


def test_streaming_leaves_the_model(tmp_path: Path) -> None:
    """The model that other precisions are made from keeps its tensors."""
    model = translated(Tensors())
    before = whole_onnx(model)
    onnx_streamed.streamed_onnx(model).write_folder(tmp_path / "folder")
    assert whole_onnx(model) == before


def test_a_wrong_graph_is_found_without_its_weights() -> None:
    """The check needs the shapes of the weights only."""
    streamed = onnx_streamed.streamed_onnx(translated(Tensors()))
    next(t for t in streamed.proto.graph.initializer if len(t.dims) == 2).dims[0] += 1
    with pytest.raises(Exception, match="ShapeInferenceError"):
        streamed.check()
