"""No two operators share a dequantised value or a bias: XNNPACK's compiler loses what they share."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from exporter.capture import captured_program
from exporter.formats import FORMATS, VARIANTS
from exporter.quantize import int8_recipe
from exporter.quantize.graphs import DEQUANTIZE, LAYERS
from exporter.records import Captured, Model, Sample, TensorSpec
from exporter.verify.compare_outputs import compare_sqnr_db

WIDTH = 16
SPECS = (TensorSpec("x", (1, WIDTH), "float32"),)


class Twice(nn.Module):
    """A layer that is called twice, as a detector's head is on every level."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.shared(x * 20))
        return self.head(torch.sigmoid(self.shared(y))) + self.head(y)  # type: ignore[no-any-return]


class State(nn.Module):
    """A recurrent cell that returns its state, and gives it to a layer that is no linear one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head = nn.Conv1d(WIDTH, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        cell = torch.tanh(self.first(x))
        hidden = cell * torch.sigmoid(self.second(cell))
        answer = self.head(hidden.unsqueeze(-1).relu()).sigmoid().squeeze(1).mean(1)
        return answer, torch.stack([hidden, cell])


NETS = {"a layer called twice": Twice, "a state that is returned": State}


def quantized(name: str) -> tuple[int8_recipe.Int8Program, list[Sample], Captured]:
    torch.manual_seed(0)
    net = NETS[name]().eval()
    samples: list[Sample] = [
        (np.random.default_rng(i).normal(size=(1, WIDTH)).astype(np.float32),) for i in range(6)
    ]
    captured = captured_program.capture_program(Model(net, "tests:net", SPECS, None, 0), samples[0])
    assert captured.program is not None
    tensors = [int8_recipe.int8_recipe_tensors(sample) for sample in samples]
    return int8_recipe.quantize_by_static_int8_recipe(captured.program, tensors), samples, captured


def shared(module: fx.GraphModule) -> list[str]:
    """Return the dequantisers with several readers, and the biases of several layers."""
    nodes = list(module.graph.nodes)
    read = [node.name for node in nodes if node.target is DEQUANTIZE and len(node.users) > 1]
    biases = Counter(str(node.args[2].target) for node in nodes if node.target in LAYERS)
    return read + [name for name, count in biases.items() if count > 1]


@pytest.mark.parametrize("name", NETS)
def test_nothing_is_shared(name: str) -> None:
    """Every operator reads a dequantiser and a bias of its own."""
    program, _, _ = quantized(name)
    assert shared(program.module) == []


@pytest.mark.parametrize("name", NETS)
def test_executorch_computes_what_the_program_does(name: str, tmp_path: Path) -> None:
    """The second call has its own bias, and the returned state its own values."""
    program, samples, captured = quantized(name)
    variant = VARIANTS["executorch-xnnpack-int8"]
    path = FORMATS["executorch"].emit(replace(captured, program=program.program()), variant, tmp_path).path
    run, expected = (
        FORMATS["executorch"].load(path, variant, 1)[0],
        int8_recipe.int8_recipe_runner(program.module),
    )
    for sample in samples:
        for y, a in zip(expected(sample), run(sample), strict=True):
            assert compare_sqnr_db(y, a) > 60
