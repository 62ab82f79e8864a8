"""A file whose norms have another epsilon fails, however little its outputs show of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.capture.epsilons import program_epsilons
from exporter.formats import FORMATS, VARIANTS
from exporter.formats.executorch.pte import _pte_epsilons
from exporter.records import Captured, Precision, Sample, Structure
from exporter.verify.contract import check_epsilons_by_contract
from tests import proof

EPSILONS = (1e-5, 2e-5, 4e-5)
"""What the model's norms of a layer, of a group and of a root mean square add."""
NORMS = ("layer", "group", "rms")
FORMATS_WITH_NORMS = {
    "onnx-fp16": NORMS,
    "ort-fp32": NORMS,
    "coreml-fp16": NORMS,
    # Here the sum of a norm that is written out is an operator of XNNPACK's: outputs must tell.
    "executorch-xnnpack-fp32": NORMS[:2],
    "executorch-vulkan-fp16": NORMS[:2],
}
"""Format -> the norms whose epsilon its files show."""


class RmsNorm(nn.Module):
    """As language models write it: no operator of its own."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


class Norms(nn.Module):
    """Norms of most kinds, none of which follows a convolution that it could be folded into."""

    def __init__(self, layer: float, group: float, rms: float) -> None:
        super().__init__()
        self.layer, self.group = nn.LayerNorm(8, eps=layer), nn.GroupNorm(2, 4, eps=group)
        self.rms, self.batch = RmsNorm(rms), nn.BatchNorm1d(4)
        self.mix = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.group(self.mix(self.layer(x)))
        x = self.rms(self.mix(x).tanh())
        mixed: Tensor = self.mix(self.batch(x.relu()).sigmoid())
        return mixed


def network(layer: float = EPSILONS[0], group: float = EPSILONS[1], rms: float = EPSILONS[2]) -> nn.Module:
    torch.manual_seed(0)
    return Norms(layer, group, rms).eval()


def samples(count: int) -> list[Sample]:
    generator = np.random.default_rng(0)
    return [(generator.normal(size=(1, 4, 8)).astype(np.float32),) for _ in range(count)]


OTHER = tuple(3 * epsilon for epsilon in EPSILONS)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Captured:
    """Capture the network with three times its epsilons."""
    return proof.capture(network(*OTHER), samples(2), tmp_path_factory.mktemp("other"))


@pytest.mark.parametrize("variant", FORMATS_WITH_NORMS)
def test_another_epsilon_is_found_in_the_file(variant: str, other: Captured, tmp_path: Path) -> None:
    """A file has the epsilons of its own program, by each norm, and not those of the model."""
    how = VARIANTS[variant]
    module = FORMATS[how.format]
    structure = module.structure(module.emit(other, how, tmp_path).path, how)
    assert check_epsilons_by_contract(structure, how.precision, program_epsilons(other.program)) == ""
    assert "to the variance of a norm" in check_epsilons_by_contract(structure, how.precision, EPSILONS)
    for norm, epsilon in zip(NORMS, OTHER, strict=False):
        read = any(number == pytest.approx(epsilon, rel=0.01) for number in structure.epsilons)
        assert read == (norm in FORMATS_WITH_NORMS[variant]), norm


@pytest.mark.parametrize(
    ("read", "precision", "reason"),
    [
        ((1e-5, 2e-5), "fp32", ""),
        ((2e-5,), "fp32", ""),  # converters fold norms into weights
        ((), "fp32", ""),
        ((1.0005e-5,), "fp32", ""),
        (
            (1.002e-5,),
            "fp32",
            "adds 1e-05 to the variance of a norm; the model's own numbers are 1e-05, 2e-05",
        ),
        ((1.002e-5,), "fp16", ""),  # float16's steps are that large
        ((2e-5, 2e-5), "fp32", "adds 2e-05"),  # one layer's epsilon is no excuse for another's
        ((3e-5,), "fp16", "adds 3e-05"),
        ((0.0,), "fp32", "adds 0"),
        ((1.0, -0.3), "fp32", ""),  # a distance, a hyperbola: no epsilons
    ],
)
def test_each_number_is_one_of_the_programs(
    read: tuple[float, ...], precision: Precision, reason: str
) -> None:
    """A number may be in a file as often as in the program, as exactly as its precision stores it."""
    structure = Structure((), (), {}, 0, {}, epsilons=read)
    problem = check_epsilons_by_contract(structure, precision, (1e-5, 2e-5))
    assert reason in problem
    assert bool(problem) == bool(reason)
    assert check_epsilons_by_contract(structure, precision, None) == ""


def test_verification_reads_the_epsilons(other: Captured, tmp_path: Path) -> None:
    """A float16 file of the other network fails by them; the model's own passes."""
    captured = proof.capture(network(), samples(12), tmp_path)
    assert proof.prove(captured, "onnx-fp16", tmp_path).status == "passed"
    path = FORMATS["onnx"].emit(other, VARIANTS["onnx-fp16"], tmp_path).path
    assert "to the variance of a norm" in (proof.judge(captured, path, "onnx-fp16").reason or "")


def test_a_norm_of_a_flat_input_is_right_in_another_order_of_sums(tmp_path: Path) -> None:
    """On a flat edge input a norm amplifies the rounding of a mean, of which eager float32 may have none."""
    captured = proof.capture(network(), samples(12), tmp_path)
    verdict = proof.prove(captured, "executorch-xnnpack-fp32", tmp_path)
    assert verdict.status == "passed", verdict.reason


class Root(nn.Module):
    """A root of a sum: of a number in the code, of a stored one, or of one that parameters give."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("stored", torch.tensor(2e-5))
        self.learned = nn.Parameter(torch.tensor([-10.0]))
        self.mix = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        square = self.mix(x).square()
        numbers = {"code": 1e-5, "large": 1.0, "stored": self.stored, "learned": self.learned.exp()}
        mixed: Tensor = self.mix((square + numbers[self.kind]).sqrt())
        return mixed


@pytest.mark.parametrize(
    ("kind", "own"), [("code", (1e-5, 2e-5)), ("large", (2e-5,)), ("stored", (2e-5,)), ("learned", None)]
)
def test_numbers_under_a_root_are_the_programs(
    kind: str, own: tuple[float, ...] | None, tmp_path: Path
) -> None:
    """A right file passes, also where its number is none that the graph shows."""
    captured = proof.capture(Root(kind).eval(), samples(12), tmp_path)
    epsilons = program_epsilons(captured.program)
    assert epsilons is None if own is None else epsilons == pytest.approx(own)
    assert proof.prove(captured, "onnx-fp32", tmp_path).status == "passed"


@pytest.mark.parametrize(("name", "numbers"), [("logit", ()), ("native_layer_norm", (2e-5,)), ("sqrt", ())])
def test_an_operator_without_its_epsilon_is_no_damage(name: str, numbers: tuple[float, ...]) -> None:
    """ExecuTorch stores nothing in the place of an argument that is left out."""

    class KernelCall(SimpleNamespace):
        """ExecuTorch's record of this name."""

    call = KernelCall(op_index=0, args=range(8))
    stored = SimpleNamespace(val=SimpleNamespace(double_val=2e-5) if numbers else None)
    plan: Any = SimpleNamespace(
        chains=[SimpleNamespace(instructions=[SimpleNamespace(instr_args=call)])],
        operators=[SimpleNamespace(name=f"aten::{name}", overload="out")],
        values=[stored] * 8,
    )
    assert tuple(_pte_epsilons(plan)) == numbers
