"""What a precision costs, simulated, against what its artifacts really cost and what their faults add."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from exporter.capture import calls
from exporter.formats import FORMATS, VARIANTS, simulation
from exporter.pipeline.simulation import simulate_lookalikes
from exporter.records import Captured, Limits, Sample, TensorSpec
from exporter.verify.judge import judge_artifact
from exporter.verify.reference_io import ReferenceIO, stack_reference_io
from exporter.verify.simulation_io import Simulation
from tests import nets

FP16 = VARIANTS["onnx-fp16"]
COUNT = 32
LOOSE = Limits(fp16_min_sqnr_db=0, fp16_min_agreement=0)
"""Nothing but the simulation is left to find anything."""


class Perceptron(nn.Module):
    """Two hidden layers with a norm and an activation of choice."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second, self.last = nn.Linear(64, 128), nn.Linear(128, 128), nn.Linear(128, 10)
        self.norm, self.activation = nn.LayerNorm(128), activation

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.activation(self.norm(self.first(pixels)))
        return self.last(self.activation(self.second(x)))  # type: ignore[no-any-return]


class Around(nn.Module):
    """A network with something done to its input and to its output."""

    def __init__(self, net: nn.Module, shift: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.net, self.shift, self.scale = net, shift, scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x + self.shift) * self.scale  # type: ignore[no-any-return]


class Constants(nn.Module):
    """Normalises its input and scales its output by numbers that float16 cannot hold exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Perceptron(nn.ReLU())

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return 0.250121 * self.net((pixels - 0.3081) / 0.3507)  # type: ignore[no-any-return]


def captured(net: nn.Module, sample: Sample) -> Captured:
    example = tuple(torch.from_numpy(array) for array in sample)
    with torch.no_grad():
        output = net(*example)
    return Captured(
        module=net,
        program=torch.export.export(net, example),
        program_error="",
        example=example,
        inputs=tuple(TensorSpec(f"in_{i}", a.shape) for i, a in enumerate(sample)),
        outputs=(TensorSpec("out", tuple(output.shape)),),
    )


def made_references(net: nn.Module, samples: Sequence[Sample]) -> ReferenceIO:
    exact = calls.call_runner(copy.deepcopy(net).double(), widen=True)
    edges = [zeros(samples[0])]
    return ReferenceIO(
        inputs=stack_reference_io(samples),
        reference=stack_reference_io([exact(sample) for sample in samples]),
        edge_inputs=stack_reference_io(edges),
        edge_reference=stack_reference_io([exact(sample) for sample in edges]),
        edge_names=("zeros",),
        floor=1e-6,
        edge_floor=1e-6,
        reference_dtype="float64",
    )


def zeros(sample: Sample) -> Sample:
    return tuple(np.zeros_like(array) for array in sample)


def simulated(net: nn.Module, samples: Sequence[Sample]) -> Simulation:
    program = captured(net, samples[0]).program
    assert program is not None
    run = simulation.format_simulation_runner(program, "fp16")
    return Simulation(
        stack_reference_io([run(sample) for sample in samples]),
        {"zeros": stack_reference_io([run(zeros(samples[0]))])},
        lookalikes=simulate_lookalikes(program, samples),
    )


def outputs(net: nn.Module, samples: Sequence[Sample], folder: Path) -> tuple[np.ndarray, ...]:
    emission = FORMATS["onnx"].emit(captured(net, samples[0]), FP16, folder)
    run, _ = FORMATS["onnx"].load(emission.path, FP16, 1)
    return stack_reference_io([run(sample) for sample in [*samples, zeros(samples[0])]])


def reason(net: nn.Module, other: nn.Module, samples: Sequence[Sample], folder: Path) -> str:
    """Why a half-precision file of `other` is not one of `net`; empty when it passes for one."""
    actual = outputs(other.eval(), samples, folder)
    references = made_references(net, samples)
    real, edges = (tuple(a[part] for a in actual) for part in (slice(0, -1), slice(-1, None)))
    verdict = judge_artifact(FP16, "rt", references, real, edges, None, LOOSE, (), simulated(net, samples))
    return verdict.reason or ""


def pixels(count: int = COUNT) -> list[Sample]:
    return [(image.reshape(1, 64),) for (image,) in nets.samples("cnn", 1400, count)]


RIGHT: dict[str, Callable[[], tuple[nn.Module, Sequence[Sample]]]] = {
    "constants": lambda: (Constants().eval(), pixels()),
    **{
        name: lambda name=name: (nets.trained(name), nets.samples(name, 1400, COUNT))  # type: ignore[misc]
        for name in ("cnn", "attention", "numbered", "loud", "loud_tokens", "loud_channels")
    },
    **{
        type(activation).__name__: lambda activation=activation: (Perceptron(activation).eval(), pixels())  # type: ignore[misc]
        for activation in (nn.GELU(), nn.SiLU(), nn.Sigmoid(), nn.Softplus(), nn.Mish(), nn.Hardswish())
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RIGHT)
def test_a_right_half_precision_file_costs_what_the_simulation_says(name: str, tmp_path: Path) -> None:
    """The artifact's own noise is no further than the margins from the simulated one."""
    net, samples = RIGHT[name]()
    assert reason(net, net, samples, tmp_path) == ""


def without_bias(net: nn.Module) -> None:
    layers = [m for m in net.modules() if isinstance(m, nn.Linear) and m.bias is not None]
    nn.init.zeros_(layers[-1].bias)


def other_epsilon(net: nn.Module) -> None:
    for module in net.modules():
        if hasattr(module, "eps"):
            setattr(module, "eps", 1e-3)  # noqa: B010 - not every kind of module has one


def changed(change: Callable[[nn.Module], None]) -> Callable[[nn.Module], nn.Module]:
    def damage(net: nn.Module) -> nn.Module:
        other = copy.deepcopy(net)
        change(other)
        return other

    return damage


DAMAGE: dict[str, Callable[[nn.Module], nn.Module]] = {
    "a dropped bias": changed(without_bias),
    "another epsilon": changed(other_epsilon),
    "inputs shifted by one grey level": lambda net: Around(net, shift=1 / 255),
    "outputs scaled by 1 %": lambda net: Around(net, scale=1.01),
    "outputs scaled by 0.5 %": lambda net: Around(net, scale=0.995),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", DAMAGE)
@pytest.mark.parametrize("name", ["cnn", "attention", "numbered"])
def test_a_small_fault_in_half_precision_is_found(name: str, fault: str, tmp_path: Path) -> None:
    """Each of them is far above 35 dB or near it, where a fixed limit sees nothing."""
    net, samples = RIGHT[name]()
    assert "a simulation puts at" in reason(net, DAMAGE[fault](net), samples, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "other"),
    [
        (nn.SiLU(), nn.Hardswish()),
        (nn.LeakyReLU(0.01), nn.LeakyReLU(0.02)),
        (nn.GELU(), nn.SiLU()),
        (nn.Sigmoid(), nn.Hardsigmoid()),
        (nn.Softplus(), nn.Softplus(1.02)),
    ],
    ids=repr,
)
def test_another_activation_in_half_precision_is_found(
    activation: nn.Module, other: nn.Module, tmp_path: Path
) -> None:
    """Functions that are drawn over one another in textbooks differ by more than half precision does."""
    net = Perceptron(activation).eval()
    replaced = copy.deepcopy(net)
    replaced.activation = other
    assert reason(net, replaced, pixels(), tmp_path) != ""


@pytest.mark.slow
@pytest.mark.parametrize(("form", "other"), [("none", "tanh"), ("tanh", "none")])
def test_the_other_form_of_gelu_is_found_by_its_direction(form: str, other: str, tmp_path: Path) -> None:
    """The two differ by a quarter of half precision's noise: its size says nothing on 64 samples."""
    net = Perceptron(nn.GELU(form)).eval()
    replaced = copy.deepcopy(net)
    replaced.activation = nn.GELU(other)
    assert reason(net, net, pixels(64), tmp_path) == ""
    assert "is that of a network with GELU in its other form" in reason(net, replaced, pixels(64), tmp_path)


def test_what_stays_in_float32_does_not_overflow_in_the_simulation() -> None:
    """Squares beyond 65504 that an artifact keeps in float32 are kept so here too."""
    net, samples = RIGHT["loud"]()
    assert all(np.isfinite(stacked).all() for stacked in simulated(net, samples[:4]).outputs)


@pytest.mark.parametrize(("precision", "values"), [("w8", 255), ("w4", 16)])
def test_compressed_weights_have_few_values(precision: str, values: int) -> None:
    """The simulated weights are those that the format can store, and cost more the fewer they are."""
    program = nets.captured("attention").program
    assert program is not None
    module = copy.deepcopy(program.module())
    simulation.store_simulated_weights(module, precision)  # type: ignore[arg-type]
    largest = max(module.parameters(), key=lambda tensor: tensor.numel()).detach().numpy()
    parts = largest if precision == "w8" else largest[None]
    assert max(len(np.unique(part)) for part in parts) <= values


def test_a_program_is_not_changed_by_its_simulation() -> None:
    """Folding batch norms happens to a copy: the artifacts are made from the program afterwards."""
    program = nets.captured("cnn").program
    assert program is not None
    before = program.graph_module.code
    simulation.format_simulation_runner(program, "fp16")(nets.samples("cnn", 0, 1)[0])
    assert program.graph_module.code == before


class WritesIntoViews(nn.Module):
    """Builds a mask by writing numbers into slices of zeros, as windowed attention does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = x.new_zeros(4, 4)
        for i in range(4):
            mask[i, : i + 1] = i + 1
        return x @ mask


def test_what_is_written_through_views_arrives() -> None:
    """Rounding keeps a tensor that needs none: a copy would not see what is written into its base later."""
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    run = simulation.format_simulation_runner(torch.export.export(WritesIntoViews(), (x,)), "fp16")
    (output,) = run((x.numpy(),))
    np.testing.assert_allclose(output, WritesIntoViews()(x).numpy(), rtol=2e-2, atol=2e-2)
