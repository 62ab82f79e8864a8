"""Products of matrices. Products are summed in float32 and rounded once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from exporter.formats.coreml.interpreter.mil_call import Call, mil_call_tensor


def matrix_product(call: Call) -> Tensor:
    """Compute `matmul`, of vectors too."""
    x, y = call.tensor("x"), call.tensor("y")
    x = x.transpose(-1, -2) if call.flag("transpose_x") and x.dim() > 1 else x
    y = y.transpose(-1, -2) if call.flag("transpose_y") and y.dim() > 1 else y
    return torch.matmul(x, y)


def matrix_product_linear(call: Call) -> Tensor:
    """Compute `linear`: x times the transposed weight, plus the bias."""
    return functional.linear(call.tensor("x"), call.tensor("weight"), call.optional("bias"))


def matrix_product_einsum(call: Call) -> Tensor:
    """Compute `einsum`."""
    return torch.einsum(call.text("equation"), *(mil_call_tensor(v) for v in call.members("values")))


def matrix_products_of_attention(call: Call) -> Tensor:
    """Compute `scaled_dot_product_attention`; the mask is one of truth values, or is added."""
    query, key, value = (call.tensor(name) for name in ("query", "key", "value"))
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    mask = call.optional("attn_mask")
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    attended: Tensor = scores.softmax(-1) @ value
    return attended
