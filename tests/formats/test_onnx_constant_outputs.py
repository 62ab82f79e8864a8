"""An output that is a stored constant (anchors, priors) is kept in float16 files, too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests import proof


class Anchored(nn.Module):
    """A score, and priors that no input changes: also read by a node, or twice an output."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.layer = kind, nn.Linear(4, 4)
        self.priors: Tensor
        self.register_buffer("priors", torch.linspace(0.05, 0.95, 4)[None])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.layer(x)
        if self.kind == "read as well":
            return y * self.priors, self.priors.clone()
        return y, self.priors.expand(3, -1)


@pytest.mark.parametrize("kind", ["read as well", "expanded"])
@pytest.mark.parametrize("variant", ["onnx-fp32", "onnx-fp16"])
def test_a_constant_output_is_kept(kind: str, variant: str, tmp_path: Path) -> None:
    """The output is compared as a constant, and passes."""
    random = np.random.default_rng(0)
    samples = [(random.normal(size=(1, 4)).astype(np.float32),) for _ in range(8)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        captured = proof.capture(Anchored(kind), samples, tmp_path)
    verdict = proof.prove(captured, variant, tmp_path)
    assert (verdict.status, verdict.reason) == ("passed", None)
