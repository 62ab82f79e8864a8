"""Lets XNNPACK run linear layers with int8 weights and float activations.

XNNPACK has kernels for them (f32-qc8w-gemm) on ARM and x86, and ExecuTorch's serialisation can express it.
But its partitioner takes a dequantised weight as a sign that activations are quantised too, and refuses the
layer when they are not: portable kernels would then dequantise all weights anew at every call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def executorch_weights_only_configs() -> list[Any]:
    """Return ExecuTorch's partitioner configurations for XNNPACK, extended to these layers."""
    from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
    from executorch.backends.xnnpack.partition.config.gemm_configs import LinearConfig
    from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType

    class WeightsOnlyLinear(LinearConfig):  # type: ignore[misc]
        def _get_act_deps(self, node: torch.fx.Node, ep: Any, precision: Any) -> Any:
            return (
                (True, [])
                if _is_executorch_weights_only(node)
                else super()._get_act_deps(node, ep, precision)
            )

        def _get_output_deps(self, node: torch.fx.Node, ep: Any, precision: Any) -> Any:
            wanted = ConfigPrecisionType.FP32 if _is_executorch_weights_only(node) else precision
            return super()._get_output_deps(node, ep, wanted)

    return [WeightsOnlyLinear if config is LinearConfig else config for config in ALL_PARTITIONER_CONFIGS]


def _is_executorch_weights_only(linear: torch.fx.Node) -> bool:
    """Tell whether only the weight is quantised. Kernels would scale a bias: there must be none.

    See `exporter.quantize.weights_only`.
    """
    from executorch.backends.xnnpack.utils.quant_utils import is_dequant

    x, weight, *bias = linear.args
    return is_dequant(weight) and not is_dequant(x) and bias in ([], [None])
