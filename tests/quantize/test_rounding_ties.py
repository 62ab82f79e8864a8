"""How far a quantised program is from itself is measured, and a faulty lowering is further."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from exporter.capture import captured_program
from exporter.capture.float64_reference import run_float64_reference
from exporter.pipeline.int8_stage import run_program_in_int8_stage
from exporter.quantize import int8_recipe, rounding_ties
from exporter.quantize.graphs import DEQUANTIZE, DEQUANTIZE_CHANNELS, graph_attribute
from exporter.records import Limits, Model, Runner, Sample, TensorSpec, Verdict
from exporter.verify.gates.lowering_gate import lowering_gate_limit
from exporter.verify.judge import judge_artifact
from exporter.verify.reference_io import Lowering, ReferenceIO, stack_reference_io
from tests.variants import INT8

SAMPLES = 12
WIDTH = 32
Change = Callable[[fx.GraphModule, int], None]


class Tokens(nn.Module):
    """A network of token ids, whose layers amplify a rounding that falls on the other side."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.rows = nn.Embedding(100, WIDTH)
        layers = (
            [nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH, elementwise_affine=False)] for _ in range(depth)
        )
        self.layers = nn.ModuleList([layer for pair in layers for layer in pair])
        self.head = nn.Linear(WIDTH, 8)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.rows(ids)
        for linear, norm in zip(self.layers[::2], self.layers[1::2], strict=True):
            x = norm(x + nn.functional.gelu(linear(x)))
        return self.head(x)  # type: ignore[no-any-return]


class Pictures(nn.Module):
    """A network of convolutions, which integers decide."""

    def __init__(self) -> None:
        super().__init__()
        layers = (layer for _ in range(3) for layer in (nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()))
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), *layers)
        self.head = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Made:
    """A network, its quantised program, and what that is judged by."""

    module: fx.GraphModule
    samples: list[Sample]
    references: ReferenceIO
    lowering: Lowering

    def verdict(self, run: Runner, lowering: Lowering | None = None) -> Verdict:
        outputs = stack_reference_io([run(sample) for sample in self.samples])
        references, program = self.references, lowering or self.lowering
        return judge_artifact(INT8, "rt", references, outputs, references.edge_reference, program, Limits())


@cache
def made(kind: str) -> Made:
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    if kind == "pictures":
        net: nn.Module = Pictures()
        samples: list[Sample] = [
            (random.normal(size=(1, 3, 12, 12)).astype(np.float32),) for _ in range(2 * SAMPLES)
        ]
    else:
        net = Tokens(int(kind))
        samples = [(random.integers(0, 100, (1, 6)),) for _ in range(2 * SAMPLES)]
    spec = TensorSpec("x", samples[0][0].shape, samples[0][0].dtype.name)
    captured = captured_program.capture_program(
        Model(net.eval(), "tests:net", (spec,), None, 0), samples[0], others=samples[1:3]
    )
    assert captured.program is not None
    judged, calibration = samples[:SAMPLES], samples[SAMPLES:]
    references, _ = run_float64_reference(captured, judged, {})
    quantized = int8_recipe.quantize_by_static_int8_recipe(
        captured.program, [int8_recipe.int8_recipe_tensors(sample) for sample in calibration]
    )
    return Made(quantized.module, judged, references, run_program_in_int8_stage(quantized.module, judged, {}))


SHALLOW, DEEP = "1", "8"
LOUD_DB = 27.0
"""all-MiniLM-L6-v2 is as far from itself."""


@pytest.mark.parametrize("kind", [SHALLOW, DEEP])
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_another_right_kernel_passes(kind: str, seed: int) -> None:
    """Its sums are rounded otherwise, and nothing else."""
    verdict = made(kind).verdict(rounding_ties.rounding_ties_runner(made(kind).module, seed))
    assert "own quantised program" not in str(verdict.reason)


def test_depth_makes_rounding_noise_of_token_ids() -> None:
    """Ids cannot be changed a little: the noise is that of the roundings inside."""
    floors = [made(kind).lowering.rounding_floor_db for kind in (SHALLOW, DEEP)]
    assert floors[0] > floors[1] + 5
    assert 30 < floors[1] < 70


def test_integers_have_hardly_a_tie() -> None:
    """Convolutions sum integers exactly: their files are held to the fixed limit."""
    pictures = made("pictures")
    assert pictures.lowering.rounding_floor_db > 45
    assert lowering_gate_limit(pictures.lowering, Limits(), INT8, pictures.references) == 30


def shifted_zero(module: fx.GraphModule, index: int) -> None:
    node = _nodes(module, DEQUANTIZE)[index]
    node.args = (*node.args[:2], node.args[2] + 12, *node.args[3:])  # type: ignore[operator]


def other_scale(module: fx.GraphModule, index: int) -> None:
    node = _nodes(module, DEQUANTIZE)[index]
    node.args = (node.args[0], node.args[1] * 1.25, *node.args[2:])  # type: ignore[operator]


def doubled_channels(module: fx.GraphModule, index: int) -> None:
    node = _nodes(module, DEQUANTIZE_CHANNELS)[index]
    scales = graph_attribute(module, str(node.args[1].target)).clone()  # type: ignore[union-attr]
    scales[1:4] *= 2
    _replace(module, node, 1, scales)


def rolled_channels(module: fx.GraphModule, index: int) -> None:
    node = _nodes(module, DEQUANTIZE_CHANNELS)[index]
    stored = graph_attribute(module, str(node.args[0].target))  # type: ignore[union-attr]
    _replace(module, node, 0, torch.roll(stored, 1, 0))


def _nodes(module: fx.GraphModule, target: object) -> list[fx.Node]:
    """Return the dequantisers of activations, or of weights, that a layer reads or gives."""
    nodes = [node for node in module.graph.nodes if node.target is target]
    layers = (torch.ops.aten.linear.default, torch.ops.aten.conv2d.default)
    return [node for node in nodes if any(user.target in layers for user in node.users)]


def _replace(module: fx.GraphModule, node: fx.Node, place: int, value: Tensor) -> None:
    module.register_buffer("planted", value)
    with module.graph.inserting_before(node):
        planted = module.graph.get_attr("planted")
    node.args = (*node.args[:place], planted, *node.args[place + 1 :])


FAULTS: tuple[Change, ...] = (shifted_zero, other_scale, doubled_channels, rolled_channels)


@pytest.mark.parametrize("place", range(8))
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_lowering_fails_for_all_the_noise(fault: Change, place: int) -> None:
    """A wrong zero point, scale, channel's scale or order of channels at any layer is louder than ties."""
    module = copy.deepcopy(made(DEEP).module)
    fault(module, place)
    module.recompile()
    lowering = made(DEEP).lowering
    loud = replace(lowering, rounding_floor_db=min(LOUD_DB, lowering.rounding_floor_db))
    verdict = made(DEEP).verdict(int8_recipe.int8_recipe_runner(module), loud)
    assert verdict.status == "failed"
    assert verdict.lowering is not None
    assert "own quantised program" in str(verdict.reason), (verdict.reason, verdict.lowering.sqnr_db)


def test_ties_draw_no_more_than_all_of_the_rounding_anew() -> None:
    """A program that is 5 dB from itself may not be 5 dB from its file: two roundings differ by 3 dB more."""
    deep = made(DEEP)
    y, program = deep.references.reference[0], deep.lowering.outputs[0]
    own = 10 * np.log10((y**2).sum() / ((y - program) ** 2).sum())
    loud = Lowering(deep.lowering.outputs, 5.0)
    limit = lowering_gate_limit(loud, Limits(), INT8, deep.references)
    assert limit == pytest.approx(min(30, own - 10 * np.log10(2)))
