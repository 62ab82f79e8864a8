"""Turn batch norms that cannot be folded into their convolution into a multiplication and an addition.

torchao's fusion asks neither whether the convolution has other readers nor whether its weight has: it would
give them the normalised values, and a second norm those of the first.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from exporter.quantize import graphs


def fold_batch_norms(module: fx.GraphModule) -> None:
    """Fold every batch norm of a captured program into the convolution before it, in place."""
    from torchao.quantization.pt2e.utils import _fuse_conv_bn_

    spell_batch_norms_out(module)
    _fuse_conv_bn_(module)


def spell_batch_norms_out(module: fx.GraphModule) -> None:
    """Replace every such batch norm of a captured program, in place."""
    norms = [node for node in module.graph.nodes if node.target is torch.ops.aten.batch_norm.default]
    for norm in norms:
        if not _can_batch_norm_be_folded(norm):
            _replace_batch_norm(module, norm)
    module.graph.eliminate_dead_code()
    module.recompile()


def _can_batch_norm_be_folded(norm: fx.Node) -> bool:
    from torchao.quantization.pt2e.utils import _is_conv_or_conv_transpose_node

    before = norm.args[0]
    assert isinstance(before, fx.Node)
    if not _is_conv_or_conv_transpose_node(before):
        return True  # into nothing: it is not changed
    weight = before.args[1]
    assert isinstance(weight, fx.Node)
    return len(before.users) == 1 and len(weight.users) == 1


def _replace_batch_norm(module: fx.GraphModule, norm: fx.Node) -> None:
    source = norm.args[0]
    scale, shift = _affine_of_batch_norm(module, norm)
    with module.graph.inserting_before(norm):
        factor = _batch_norm_constant(module, f"{norm.name}_scale", scale)
        term = _batch_norm_constant(module, f"{norm.name}_shift", shift)
        product = module.graph.call_function(torch.ops.aten.mul.Tensor, (source, factor))
        total = module.graph.call_function(torch.ops.aten.add.Tensor, (product, term))
    for node in (product, total):
        node.meta = dict(norm.meta)
    norm.replace_all_uses_with(total)


def _batch_norm_constant(module: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    module.register_buffer(name, value)
    node = module.graph.get_attr(name)
    node.meta["val"] = value
    return node


def _affine_of_batch_norm(module: fx.GraphModule, norm: fx.Node) -> tuple[Tensor, Tensor]:
    """Return the factor and the summand of the norm for each channel, both as [C, 1, …]."""
    weight, bias, mean, variance = (
        graphs.graph_attribute(module, str(node.target)) if isinstance(node, fx.Node) else None
        for node in norm.args[1:5]
    )
    assert mean is not None
    assert variance is not None
    eps = norm.args[7]
    assert isinstance(eps, float)
    scale = (torch.ones_like(mean) if weight is None else weight) / torch.sqrt(variance + eps)
    shift = (torch.zeros_like(mean) if bias is None else bias) - mean * scale
    shape = (-1, *(1 for _ in norm.meta["val"].shape[2:]))
    return scale.detach().reshape(shape), shift.detach().reshape(shape)
