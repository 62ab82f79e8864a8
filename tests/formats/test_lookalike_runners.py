"""The networks that a model is easily mistaken for, against the same change made to its modules."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.formats.lookalike_runners import lookalike_module_runner, lookalike_runners

GELU = "GELU in its other form (tanh for erf, or erf for tanh)"
SAMPLES = [(np.random.default_rng(seed).normal(size=(2, 4, 6)).astype(np.float32),) for seed in range(3)]


def net(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), *layers, nn.Linear(6, 3)).eval()


def exported(module: nn.Module) -> torch.export.ExportedProgram:
    return torch.export.export(module, tuple(map(torch.from_numpy, SAMPLES[0])))


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        ([nn.ReLU()], set()),
        ([nn.GELU()], {GELU}),
        ([nn.GELU("tanh"), nn.LayerNorm(6)], {GELU}),
        ([nn.BatchNorm1d(4)], set()),
    ],
    ids=str,
)
def test_a_network_has_the_others_of_its_layers(layers: list[nn.Module], names: set[str]) -> None:
    """Only GELU has another form."""
    assert set(lookalike_runners(exported(net(*layers)))) == names


@pytest.mark.parametrize("form", ["none", "tanh"])
def test_the_other_networks_are_those_of_changed_modules(form: str) -> None:
    """Every GELU has its other form; the program stays as it was."""
    model = net(nn.GELU(form), nn.LayerNorm(6), nn.GELU(form))
    gelu = copy.deepcopy(model)
    for layer in gelu.modules():
        if isinstance(layer, nn.GELU):
            layer.approximate = "tanh" if form == "none" else "none"
    program = exported(model)
    code = program.graph_module.code
    runners = lookalike_runners(program)
    for runner, module in (
        (runners[GELU], gelu),
        (lookalike_module_runner(program.module()), model),
    ):
        for sample in SAMPLES:
            with torch.no_grad():
                expected = module(torch.from_numpy(sample[0])).numpy()
            np.testing.assert_allclose(runner(sample)[0], expected, atol=1e-6)
    assert program.graph_module.code == code


def test_a_sample_is_left_as_it_is() -> None:
    """A network that writes into its input is given a copy."""

    class Shifts(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x.sub_(1)
            return nn.functional.gelu(x), x

    sample = (np.ones((1, 3), np.float32),)
    program = torch.export.export(Shifts(), (torch.ones(1, 3),))
    for run in (lookalike_module_runner(program.module()), lookalike_runners(program)[GELU]):
        assert [output.tolist() for output in run(sample)][1] == [[0.0] * 3]
    assert sample[0].tolist() == [[1.0] * 3]
