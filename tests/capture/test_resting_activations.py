"""Which outputs rest near zero, as the graph tells."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from benchmarks.zoo import Does
from exporter.capture.resting_activations import outputs_of_resting_activations

IMAGE = torch.rand(1, 3, 8, 8)


def resting(forward: Callable[..., object]) -> tuple[bool, ...]:
    """Export a convolution and what is made of its result."""
    conv, other = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
    net = Does(lambda net, x: forward(net.conv(x), net.other(x)), conv=conv, other=other)
    return outputs_of_resting_activations(torch.export.export(net.eval(), (IMAGE,)))


RESTING: dict[str, Callable[..., object]] = {
    "relu": lambda a, b: a.relu(),
    "in place": lambda a, b: a.relu_(),
    "relu6": lambda a, b: functional.relu6(a),
    "silu": lambda a, b: functional.silu(a),
    "silu by hand": lambda a, b: a * a.sigmoid(),
    "hard swish by hand": lambda a, b: functional.hardsigmoid(a) * a,
    "gelu": lambda a, b: functional.gelu(a),
    "hard swish": lambda a, b: functional.hardswish(a),
    "pooled": lambda a, b: functional.adaptive_avg_pool2d(a.relu(), 1).flatten(1),
    "mean": lambda a, b: a.relu().mean((2, 3)),
    "normalised": lambda a, b: functional.normalize(functional.silu(a).mean((2, 3))),
    "gated": lambda a, b: a.relu() * b.sigmoid(),
    "added": lambda a, b: a.relu() + b.relu(),
    "joined": lambda a, b: torch.cat([a.relu(), functional.silu(b)], 1),
    "windows": lambda a, b: functional.max_pool2d(a.relu(), 2),
}
MOVING: dict[str, Callable[..., object]] = {
    "a convolution": lambda a, b: a,
    "a pooled convolution": lambda a, b: a.mean((2, 3)),
    "sigmoid": lambda a, b: a.sigmoid(),
    "boxes and scores": lambda a, b: torch.cat([a.relu(), b.sigmoid()], 1),
    "clamped boxes": lambda a, b: a.clamp(0, 640),
    "hard tanh": lambda a, b: functional.hardtanh(a, -1, 1),
    "gated by another's sigmoid": lambda a, b: a * b.sigmoid(),
    "gated by itself, not by its sigmoid": lambda a, b: a * a.tanh(),
    "a residual": lambda a, b: a.relu() + b,
    "leaky": lambda a, b: functional.leaky_relu(a),
    "a convolution of one": lambda a, b: functional.conv2d(a.relu(), torch.ones(2, 4, 1, 1)),
}


@pytest.mark.parametrize("name", RESTING)
def test_an_activation_is_seen_through_pooling_and_gates(name: str) -> None:
    """What only moves, averages or gates values leaves units at rest where they are."""
    assert resting(RESTING[name]) == (True,)


@pytest.mark.parametrize("name", MOVING)
def test_other_outputs_do_not_rest(name: str) -> None:
    """One part that does not rest is enough: scores beside rectified boxes."""
    assert resting(MOVING[name]) == (False,)


def test_every_output_has_its_own() -> None:
    """In the order of the outputs; a model without a graph has none."""
    assert resting(lambda a, b: (a, b.relu(), a.relu())) == (False, True, True)
    assert outputs_of_resting_activations(None) == ()
