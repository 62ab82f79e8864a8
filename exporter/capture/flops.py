"""Counts the arithmetic of one inference."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def count_flops(module: torch.nn.Module, example: tuple[torch.Tensor, ...]) -> int:
    """Count the floating-point operations of one call, by running it once.

    Only convolutions, matrix products, recurrent layers and attention are counted, as is usual: everything
    else is negligible.

    Args:
        module: In eval mode.
        example: The inputs of one call, in forward's order.

    Returns:
        FLOPs: two per multiply-accumulate (so MobileNetV2's "300 M MACs" are 600 million here).
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # Fused attention is one opaque operator that the counter does not know; unfused it is matrix products.
    # So is oneDNN's LSTM.
    fused, onednn = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled
    torch.backends.mha.set_fastpath_enabled(False)
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            module(*example)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        torch.backends.mkldnn.enabled = onednn
    return int(counter.get_total_flops())
