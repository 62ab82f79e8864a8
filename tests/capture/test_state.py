"""State from call to call is found by name, and the reference is a sequence of calls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.capture import captured_program
from exporter.capture.float64_reference import run_float64_reference
from exporter.capture.state import state_changed_by_calls
from exporter.errors import CaptureError
from exporter.records import Model, Sample, TensorSpec


class Keeps(nn.Module):
    """A linear layer over an input and what is left of earlier ones."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.how = nn.Linear(8, 3), how
        self.register_buffer("cache", torch.full((1, 4), 0.5))
        self.register_buffer("calls", torch.zeros(1))
        self.memory = torch.zeros(1, 4)
        self.past: list[Tensor] = [torch.zeros(1, 4)]
        self.table: Tensor | None = None
        self.step = 0

    cache: Tensor
    calls: Tensor

    def forward(self, x: Tensor) -> Tensor:
        before = self.cache.clone()
        match self.how:
            case "copied into a buffer":
                self.cache.copy_(x)
            case "assigned to a buffer":
                self.cache = x.clone()
            case "a part of a buffer":
                self.cache[:, :2] = x[:, 2:]
            case "a running mean":
                self.cache.mul_(0.9).add_(x, alpha=0.1)
            case "an attribute":
                before, self.memory = self.memory, x
            case "a list":
                before = self.past[0]
                self.past = [x]
            case "a step":
                before, self.step = before * self.step, self.step + 1
            case "a counter":
                self.calls += 1
            case "a table":
                self.table = torch.ones(1, 4) if self.table is None else self.table
                before = self.table
        return self.layer(torch.cat([before, x], 1))  # type: ignore[no-any-return]


STATE = {
    "copied into a buffer": ("cache",),
    "assigned to a buffer": ("cache",),
    "a part of a buffer": ("cache",),
    "a running mean": ("cache",),
    "an attribute": ("memory",),
    "a list": ("past.0",),
    "a counter": (),
    "a table": (),
    "nothing": (),
}


def samples(count: int = 6) -> list[Sample]:
    generator = np.random.default_rng(0)
    return [(generator.normal(size=(1, 4)).astype(np.float32),) for _ in range(count)]


def model(how: str) -> Model:
    return Model(Keeps(how).eval(), "tests:net", (TensorSpec("x", (1, 4)),), None, 0)


@pytest.mark.parametrize("how", STATE)
def test_state_is_named(how: str) -> None:
    """State is what changes outputs; a counter and a table made at the first call do not."""
    assert state_changed_by_calls(Keeps(how).eval(), samples()) == STATE[how]


def test_state_that_is_no_tensor_is_refused() -> None:
    """State in a Python number, which would become a constant of the file, is refused."""
    with pytest.raises(CaptureError, match="through step") as caught:
        state_changed_by_calls(Keeps("a step").eval(), samples())
    assert caught.value.code == "EM-STATE"


def test_state_of_submodules_has_its_path() -> None:
    """State of a submodule is named as in the checkpoint."""
    net = nn.Sequential(nn.Linear(4, 4), Keeps("copied into a buffer"))
    assert state_changed_by_calls(net.eval(), samples()) == ("1.cache",)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.zeros(1, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.cache  # type: ignore[operator]
        self.cache.copy_(x)  # type: ignore[operator]
        return y


def test_state_of_torchscript_is_named() -> None:
    """State of a TorchScript module is found in its buffers."""
    assert state_changed_by_calls(torch.jit.script(Small().eval()), samples()) == ("cache",)


@pytest.mark.parametrize("how", [how for how, names in STATE.items() if names == ("cache",)])
def test_what_is_captured_holds_the_checkpoints_state(how: str) -> None:
    """No call of ours, such as the example, leaves state in the module or in the graph."""
    captured = captured_program.capture_program(model(how), samples()[0], others=samples()[1:])
    assert captured.state == ("cache",)
    assert captured.module.get_buffer("cache").tolist() == [[0.5] * 4]
    assert captured.program is not None
    assert captured.program.state_dict["cache"].tolist() == [[0.5] * 4]


@pytest.mark.parametrize("how", [how for how, names in STATE.items() if names])
def test_the_reference_is_a_sequence_from_the_checkpoints_state(how: str) -> None:
    """The reference calls the samples one after the other, and the edges again from the start."""
    given = samples()
    captured = captured_program.capture_program(model(how), given[0], others=given[1:])
    references, _ = run_float64_reference(captured, given, {"first": given[0]})
    assert references.state == STATE[how]
    net = Keeps(how).eval()
    with torch.no_grad():
        expected = [net(torch.from_numpy(x)).numpy() for (x,) in given]
    np.testing.assert_allclose(references.reference[0], np.stack(expected), atol=1e-6)
    np.testing.assert_array_equal(references.edge_reference[0][0], references.reference[0][0])


def test_a_network_without_state_is_exported_as_it_is_warmed() -> None:
    """A table that the first call makes would stop torch.export, which allows no assignments."""
    captured = captured_program.capture_program(model("a table"), samples()[0], others=samples()[1:])
    assert captured.state == ()
    assert captured.program is not None
