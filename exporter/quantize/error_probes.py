"""Estimate to first order how much an error at a tensor inside a network costs its outputs.

An error e at a tensor moves the output by J e. For random signs v, the mean of ((J' v) . e)^2 is |J e|^2
(Hutchinson's estimator; Avron & Toledo, "Randomized Algorithms for Estimating the Trace", 2011), and J' v is
one backward pass for all tensors at once. Squared error at the tensor itself, which most calibration uses,
takes every value for equally important; that costs MobileNetV2 several dB.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from exporter.quantize.graphs import GraphWalk, graph_outputs

SIGNS = 2
"""Backward passes per sample."""


@dataclass(frozen=True, eq=False)
class Probe:
    """A tensor in one call of the network, and its gradients."""

    value: Tensor
    gradients: Tensor
    """Gradients [SIGNS, elements]: a row per random combination of the outputs, each on its own scale."""

    def cost(self, error: Tensor) -> float:
        """Return the energy that `error`, shaped like `value`, adds to the outputs, as a share of theirs."""
        return float((self.gradients @ error.flatten()).square_().mean())


def make_error_probes(
    module: fx.GraphModule,
    tensors: Collection[fx.Node],
    samples: Sequence[tuple[Tensor, ...]],
) -> Iterator[dict[fx.Node, Probe]]:
    """Yield, for each sample, a probe of every tensor that the outputs depend on.

    Args:
        module: A float graph, perhaps with observers, which are skipped.
        tensors: Nodes whose values are tensors.
        samples: Samples of one call each.
    """
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.requires_grad_(True)  # so that a network of token numbers has gradients too
    for sample in samples:
        yield _make_error_probe(module, tensors, sample, generator)
    for parameter in module.parameters():
        parameter.requires_grad_(False)


def _make_error_probe(
    module: fx.GraphModule,
    tensors: Collection[fx.Node],
    sample: tuple[Tensor, ...],
    generator: torch.Generator,
) -> dict[fx.Node, Probe]:
    walk = GraphWalk(module, _error_probe_past_observers, keep=True)
    with torch.enable_grad():
        inputs = (x.clone().requires_grad_() if x.is_floating_point() else x for x in sample)
        outputs = [o for o in graph_outputs(walk.run(*inputs)) if o.requires_grad]
        outputs = [torch.view_as_real(o) if o.is_complex() else o for o in outputs]
    scales = [o.detach().norm().clamp_min(torch.finfo(o.dtype).tiny) for o in outputs]
    values = {n: v for n in tensors if isinstance(v := walk.env.get(n), Tensor) and v.requires_grad}
    rows: dict[fx.Node, list[Tensor]] = {node: [] for node in values}
    for turn in range(SIGNS if outputs and values else 0):
        signs = [torch.randint(0, 2, o.shape, generator=generator) * 2 - 1 for o in outputs]
        weights = [sign / scale for sign, scale in zip(signs, scales, strict=True)]
        gradients = torch.autograd.grad(
            outputs, list(values.values()), weights, retain_graph=turn < SIGNS - 1, allow_unused=True
        )
        for node, gradient in zip(values, gradients, strict=True):
            if gradient is not None:
                rows[node].append(gradient.flatten())
    return {
        n: Probe(values[n].detach(), torch.stack(gradients)) for n, gradients in rows.items() if gradients
    }


def _error_probe_past_observers(walk: GraphWalk, node: fx.Node) -> Any | None:
    if node.op == "call_module" and len(node.args) == 1:
        return walk.env[node.args[0]]  # type: ignore[index]
    return None
