"""Tensors that are filled like another one keep their own type in Core ML, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.formats.coreml import coreml_convert
from exporter.formats.coreml.convertible_graph import convertible_graph
from exporter.formats.coreml.coreml_package import write_coreml_package
from exporter.formats.coreml.interpreter import load_interpreter

FILLED: dict[str, Callable[[Tensor], Tensor]] = {
    "zeros_like": lambda x: torch.zeros_like(x > 0, dtype=torch.float32).masked_fill(x > 0, -3.5),
    "ones_like": lambda x: torch.ones_like(x > 0, dtype=torch.float32).masked_fill(x > 0, 0.25),
    "full_like": lambda x: torch.full_like(x > 0, 0.75, dtype=torch.float32).masked_fill(x < 0, -2.5),
    "new_full": lambda x: (x > 0).new_full((2, 6), 1.5, dtype=torch.float32) * x,
    "of its own type": lambda x: torch.zeros_like(x).masked_fill(x > 0, -3.5),
}


class Filled(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return FILLED[self.name](x) + x


@pytest.mark.parametrize("name", FILLED)
def test_filled_tensors_keep_their_type(name: str, tmp_path: Path) -> None:
    """A float mask that is made like a boolean one has numbers in it."""
    x = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (2, 6)).astype(np.float32))
    net = Filled(name)
    package = coreml_convert._coreml_convert_from_program(
        torch.export.export(net, (x,)), None, [], coreml_convert.DEPLOYMENT_TARGET
    )
    write_coreml_package(package, tmp_path / "filled.mlpackage")
    run, _ = load_interpreter(tmp_path / "filled.mlpackage")
    np.testing.assert_allclose(run((x.numpy(),))[0], net(x).numpy(), atol=4e-3)


def test_the_rewritten_graph_computes_the_same() -> None:
    """Only fills of another type are replaced."""
    x = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (2, 6)).astype(np.float32))
    for name in FILLED:
        net = Filled(name)
        graph = convertible_graph(torch.export.export(net, (x,)))
        assert torch.equal(graph.module()(x), net(x))
        fills = [n for n in graph.graph.nodes if str(n.target) == "aten.full.default"]
        assert bool(fills) == (name != "of its own type")
