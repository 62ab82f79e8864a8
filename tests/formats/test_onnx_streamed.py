"""Models that are written tensor by tensor have the bytes that protobuf writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import onnx_ir
import pytest
import torch
from torch import Tensor, nn

from exporter.formats.onnx import onnx_export, onnx_streamed
from exporter.records import TensorSpec


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


def translated(net: nn.Module) -> onnx_ir.Model:
    program = torch.export.export(net.eval(), (torch.randn(1, 40),))
    shape = (TensorSpec("x", (1, 40)),), (TensorSpec("y", (1, 40)),)
    model = onnx_export.export_to_onnx(program, *shape)
    onnx_export.clean_onnx_export(model)
    return model


@pytest.mark.parametrize("net", [Tensors, Nothing, lambda: nn.Linear(40, 40)])
@pytest.mark.parametrize("properties", [{}, {"author": "Ada", "classes": "[]"}])
def test_a_streamed_file_has_protobufs_bytes(
    net: Callable[[], nn.Module], properties: dict[str, str], tmp_path: Path
) -> None:
    """Tensors, graph and metadata are where protobuf's own writer puts them."""
    model = translated(net())
    whole = onnx.load_model_from_string(onnx_export.finish_onnx_export(model))
    for key, text in properties.items():
        whole.metadata_props.add(key=key, value=text)
    streamed = onnx_streamed.streamed_onnx(model)
    streamed.add_metadata(properties)
    streamed.check()
    streamed.write_file(tmp_path / "model.onnx")
    written = (tmp_path / "model.onnx").read_bytes()
    assert written == whole.SerializeToString(deterministic=True)
    assert streamed.size_bytes == len(written)


def test_streaming_leaves_the_model(tmp_path: Path) -> None:
    """The model that other precisions are made from keeps its tensors."""
    model = translated(Tensors())
    before = onnx_export.finish_onnx_export(model)
    onnx_streamed.streamed_onnx(model).write_folder(tmp_path / "folder")
    assert onnx_export.finish_onnx_export(model) == before


def test_a_wrong_graph_is_found_without_its_weights() -> None:
    """The check needs the shapes of the weights only."""
    streamed = onnx_streamed.streamed_onnx(translated(Tensors()))
    next(t for t in streamed.proto.graph.initializer if len(t.dims) == 2).dims[0] += 1
    with pytest.raises(Exception, match="ShapeInferenceError"):
        streamed.check()
