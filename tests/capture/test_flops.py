from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from exporter.capture import flops


def test_two_per_multiply_accumulate() -> None:
    """A product of [2, 3] with [3, 5] is 2 * 3 * 5 multiply-accumulates: 60 FLOPs."""
    assert flops.count_flops(nn.Linear(3, 5), (torch.rand(2, 3),)) == 60


def test_grouped_convolution() -> None:
    """A depthwise 3x3 over 4 channels of 6x6 is 9 multiply-accumulates for each of 144 outputs."""
    assert (
        flops.count_flops(nn.Conv2d(4, 4, 3, padding=1, groups=4), (torch.rand(1, 4, 6, 6),)) == 2 * 9 * 144
    )


@pytest.mark.parametrize("training", [False, True])
def test_attention_is_counted(training: bool) -> None:
    """Attention over 5 tokens of width 8 counts its projections and both products, fused or not."""
    layer = nn.MultiheadAttention(8, 2, batch_first=True).requires_grad_(False).train(training)
    tokens = torch.rand(1, 5, 8)
    projections, products = 4 * 5 * 8 * 8, 2 * 5 * 5 * 8
    assert flops.count_flops(layer, (tokens, tokens, tokens)) == 2 * (projections + products)


def test_fused_attention_is_counted() -> None:
    """Scaled dot product attention (2 heads, 5 tokens, width 4) counts both products, though CPUs fuse it."""

    class Attention(nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)

    assert flops.count_flops(Attention(), (torch.rand(1, 2, 5, 4),)) == 2 * 2 * (2 * 5 * 5 * 4)


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers_are_counted(kind: Any, gates: int) -> None:
    """Each step multiplies the input and the state once for each gate, though CPUs fuse them."""
    layer = kind(5, 6).eval()
    assert flops.count_flops(layer, (torch.rand(7, 2, 5),)) == 2 * 7 * 2 * gates * 6 * (5 + 6)
    assert torch.backends.mkldnn.enabled


def test_counting_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """PyTorch's counter has a table of its own, which no command asks for."""
    flops.count_flops(nn.Linear(3, 5), (torch.rand(2, 3),))
    assert capsys.readouterr() == ("", "")


def test_torchscript_counts_the_same() -> None:
    """TorchScript's operators are counted like eager ones."""
    net, example = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), (torch.rand(1, 3, 8, 8),)
    assert flops.count_flops(torch.jit.script(net), example) == flops.count_flops(net, example) > 0


@pytest.mark.parametrize("enabled", [True, False])
def test_fast_attention_is_restored(enabled: bool) -> None:
    """Counting leaves torch's global switches as they were, even when the network fails."""
    before = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(enabled)
        with pytest.raises(RuntimeError):
            flops.count_flops(nn.Linear(3, 5), (torch.rand(2, 4),))
        assert torch.backends.mha.get_fastpath_enabled() is enabled
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
