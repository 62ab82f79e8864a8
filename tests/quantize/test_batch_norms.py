"""Tests of batch norms whose convolution has other readers, which torchao's fusion would break."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn
from torchao.quantization.pt2e.utils import _fuse_conv_bn_

from exporter.quantize import batch_norms


class Both(nn.Module):
    """The convolution's result is normalised, and also added without the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y).relu() + y  # type: ignore[no-any-return]


class Twice(nn.Module):
    """The convolution's result is normalised in two ways, once without weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(3, 4, 3)
        self.first, self.second = nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.first(y).relu() * self.second(y)  # type: ignore[no-any-return]


class Tied(nn.Module):
    """Two convolutions have one weight, and each has its norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 3, 3, padding=1)
        self.first, self.second = nn.BatchNorm1d(3), nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.conv(self.first(self.conv(x.flatten(2))).relu()))  # type: ignore[no-any-return]


class Plain(Both):
    """The norm can be folded."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu()  # type: ignore[no-any-return]


def captured(kind: type[nn.Module]) -> tuple[fx.GraphModule, Tensor, Tensor]:
    """Return the program, an input, and its output; the norms are far from the identity."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, x = kind(), torch.randn(1, 3, 8, 8)
        for norm in net.modules():
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                norm.running_mean, norm.running_var = (
                    torch.randn(norm.num_features),
                    torch.rand(norm.num_features) + 1,
                )
    net.eval()
    return torch.export.export(net, (x,)).module(), x, net(x).detach()


def operators(module: fx.GraphModule) -> list[str]:
    return [str(node.target) for node in module.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("kind", [Both, Twice, Tied, Plain])
def test_the_fusion_changes_no_answer(kind: type[nn.Module]) -> None:
    """The outputs stay, whatever else reads the convolution or its weight."""
    module, x, expected = captured(kind)
    batch_norms.spell_batch_norms_out(module)
    _fuse_conv_bn_(module)
    torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-5)


def test_what_can_be_folded_still_is() -> None:
    """A folded norm leaves no multiplication."""
    module, _, _ = captured(Plain)
    batch_norms.spell_batch_norms_out(module)
    _fuse_conv_bn_(module)
    assert operators(module) == ["aten.conv2d.default", "aten.relu.default"]


def test_layers_keep_their_place_in_the_users_model() -> None:
    """The report names the norm that an operator comes from."""
    module, _, _ = captured(Both)
    batch_norms.spell_batch_norms_out(module)
    (product,) = [node for node in module.graph.nodes if node.target is torch.ops.aten.mul.Tensor]
    assert "norm" in str(product.meta["nn_module_stack"])
