"""Attention over any number of dimensions is translated to ONNX."""

from __future__ import annotations

import numpy as np
import onnx_ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from exporter.formats.onnx import onnx_export
from exporter.records import TensorSpec


class Attention(nn.Module):
    """Attends with a table as mask, where it has one."""

    def __init__(self, mask: Tensor | None, by_name: bool) -> None:
        super().__init__()
        self.mask: Tensor | None
        self.register_buffer("mask", mask)
        self.by_name = by_name

    def forward(self, x: Tensor) -> Tensor:
        if self.by_name:
            return scaled_dot_product_attention(x, 2 * x, x, attn_mask=self.mask, scale=0.3) + 1
        return scaled_dot_product_attention(x, x, x + 1, self.mask) + 1


@pytest.mark.parametrize(
    ("shape", "mask", "by_name"),
    [
        ((5, 8), (), True),
        ((3, 5, 8), (), False),
        ((3, 5, 8), (3, 5, 5), True),
        ((2, 3, 5, 8), (3, 5, 5), False),
        ((1, 2, 3, 5, 8), (), True),
        ((1, 2, 3, 5, 8), (5, 5), False),
        ((1, 2, 3, 5, 8), (3, 5, 5), True),
        ((1, 2, 3, 5, 8), (1, 2, 1, 5, 5), False),
        ((2, 1, 2, 3, 5, 8), (2, 3, 5, 5), True),
    ],
)
def test_attention_of_any_rank(shape: tuple[int, ...], mask: tuple[int, ...], by_name: bool) -> None:
    """ONNX Runtime computes what PyTorch does, with and without a mask that is broadcast."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(mask, generator=generator) if mask else None
    module, x = Attention(table, by_name).eval(), torch.randn(shape, generator=generator)
    program = torch.export.export(module, (x,))
    spec = (TensorSpec("x", shape),), (TensorSpec("y", shape),)
    proto = onnx_ir.to_proto(onnx_export.export_to_onnx(program, *spec))
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    (actual,) = session.run(None, {"x": x.numpy()})
    np.testing.assert_allclose(actual, module(x).numpy(), atol=1e-5)
