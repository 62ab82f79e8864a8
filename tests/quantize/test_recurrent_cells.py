"""A recurrent cell that is written out keeps its state in float, and its weights in int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.formats import FORMATS, VARIANTS
from exporter.quantize import int8_recipe
from exporter.quantize.recurrent_cells import recurrent_cells
from exporter.records import Captured, Sample, TensorSpec

INPUTS, WIDTH = 12, 16
QUIET = 1e-3
"""How much less the second half of a state's channels varies than the first."""


class Cell(nn.Module):
    """A layer, and a step of a recurrent one whose state comes and goes; half of its channels are quiet."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.before = nn.Linear(INPUTS, INPUTS)
        gates = 4 if kind == "lstm" else 3
        self.of_input, self.of_state = nn.Linear(INPUTS, gates * WIDTH), nn.Linear(WIDTH, gates * WIDTH)
        self.head = nn.Linear(WIDTH, 4)
        self.register_buffer(
            "loudness", torch.cat([torch.ones(WIDTH // 2), torch.full((WIDTH // 2,), QUIET)])
        )

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        x = self.before(x).relu()
        if self.kind == "lstm":
            hidden, cell = state[0], state[1]
            i, f, g, o = (self.of_input(x) + self.of_state(hidden)).chunk(4, 1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh() * self.loudness
            hidden = o.sigmoid() * cell.tanh()
            return self.head(hidden), torch.stack([hidden, cell])
        r, z, n = self.of_input(x).chunk(3, 1)
        of_r, of_z, of_n = self.of_state(state).chunk(3, 1)
        new = (n + (r + of_r).sigmoid() * of_n).tanh() * self.loudness
        state = (state - new) * (z + of_z).sigmoid() + new
        return self.head(state), state


class Gated(nn.Module):
    """No cell: the input is added, or passes a gate and then a layer, or loses its shape."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "residual":
            return x + self.last(self.first(x).relu())  # type: ignore[no-any-return]
        gated = x * self.first(x).sigmoid()
        return self.last(gated) if self.kind == "layer after" else gated.mean((2, 3))  # type: ignore[no-any-return]


def calls(kind: str, seed: int, count: int = 16) -> list[Sample]:
    """Return calls that follow one another."""
    chance, net = np.random.default_rng(seed), Cell(kind).eval()
    state = np.zeros((2, 1, WIDTH) if kind == "lstm" else (1, WIDTH), np.float32)
    samples: list[Sample] = []
    for _ in range(count):
        samples.append((chance.normal(size=(1, INPUTS)).astype(np.float32), state))
        with torch.no_grad():
            state = net(*map(torch.from_numpy, samples[-1]))[1].numpy()
    return samples


def exported(kind: str) -> tuple[nn.Module, torch.export.ExportedProgram]:
    net = Cell(kind).eval()
    return net, torch.export.export(net, tuple(map(torch.from_numpy, calls(kind, 0, 1)[0])))


def decibels(expected: np.ndarray, actual: np.ndarray) -> float:
    error = np.square(expected - actual).sum()
    return float(10 * np.log10(np.square(expected - expected.mean(0)).sum() / error))


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("name", ["", "onnx-int8", "executorch-xnnpack-int8"])
def test_quiet_channels_of_a_state_stay_alive(kind: str, name: str, tmp_path: Path) -> None:
    """The program and both runtimes' files keep the quiet half of the state, with all weights in int8."""
    net, program = exported(kind)
    quantized = int8_recipe.quantize_by_int8_recipe(program, calls(kind, 0))
    stored = int8_recipe.stored_weights_of_int8_recipe(quantized.module)
    assert stored == sum(p.numel() for p in net.parameters() if p.dim() > 1)
    run, judged = int8_recipe.int8_recipe_runner(quantized.module), calls(kind, 1)
    if name:
        variant, lowered = VARIANTS[name], quantized.program()
        specs = tuple(TensorSpec(n, a.shape) for n, a in zip(("x", "state"), judged[0], strict=True))
        outputs = (TensorSpec("y", (1, 4)), TensorSpec("state_out", judged[0][1].shape))
        captured = Captured(net, lowered, "", lowered.example_inputs[0], specs, outputs)
        FORMATS[variant.format].emit(captured, variant, tmp_path)
        run = FORMATS[variant.format].load(tmp_path / (name + variant.suffix), variant, 1)[0]
    actual = np.stack([run(sample)[1] for sample in judged])[..., WIDTH // 2 :]
    with torch.no_grad():
        states = [net(*map(torch.from_numpy, sample))[1].numpy() for sample in judged]
    assert decibels(np.stack(states)[..., WIDTH // 2 :], actual) > 20


@pytest.mark.parametrize("kind", ["residual", "layer after", "pooled"])
def test_other_networks_have_no_cells(kind: str) -> None:
    """A residual connection, a gate before a layer and one that leads elsewhere are quantised as ever."""
    program = torch.export.export(Gated(kind).eval(), (torch.zeros(1, 3, 8, 8),))
    assert not recurrent_cells(program.module()).operators
