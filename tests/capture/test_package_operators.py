"""A network that calls an operator of a package's own: its graph cannot be read by other processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tests import proof


@torch.library.custom_op("export_mobile_tests::doubled", mutates_args=())
def doubled(x: torch.Tensor) -> torch.Tensor:
    """Return twice the tensor."""
    return x * 2


@doubled.register_fake
def _doubled_shape(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Calls(nn.Module):
    """Calls the operator after a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return doubled(self.layer(x))


def test_a_packages_operator_is_named(tmp_path: Path) -> None:
    """The graph is refused where it is made: other processes ended in an unexpected error as they read it."""
    rows = [(np.random.default_rng(i).normal(size=(1, 4)).astype(np.float32),) for i in range(2)]
    captured = proof.capture(Calls(), rows, tmp_path)
    assert captured.program is None
    assert "export_mobile_tests.doubled" in captured.program_error
    assert "an operator of a package's own" in captured.program_error
