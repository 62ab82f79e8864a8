"""State becomes inputs and outputs, and calls with it give the network's own outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.capture import captured_program, explicit_state
from exporter.capture.float64_reference import run_float64_reference
from exporter.errors import CaptureError
from exporter.records import Model, Sample, TensorSpec
from tests.capture.test_state import STATE, Keeps, model, samples

STATEFUL = [how for how, names in STATE.items() if names]


def by_itself(net: nn.Module, given: list[Sample]) -> np.ndarray:
    with torch.no_grad():
        return np.stack([net(torch.from_numpy(x)).numpy() for (x,) in given])


@pytest.mark.parametrize("how", STATEFUL)
def test_a_sequence_of_calls_is_the_same(how: str) -> None:
    """The module and its graph, with the state sent along, equal the network that keeps it."""
    given = samples()
    expected = by_itself(Keeps(how).eval(), given)
    explicit = explicit_state.make_state_explicit(model(how), given, given)
    captured = captured_program.capture_program(
        explicit.model, explicit.verification[0], others=explicit.verification[1:]
    )
    assert captured.state == ()
    assert captured.program is not None
    for run in (captured.module, captured.program.module()):
        state = torch.from_numpy(explicit.verification[0][1])
        for (x,), answer in zip(given, expected, strict=True):
            with torch.no_grad():
                output, state = run(torch.from_numpy(x), state)
            np.testing.assert_allclose(output.numpy(), answer, atol=1e-6)


@pytest.mark.parametrize("how", STATEFUL)
def test_samples_hold_the_state_that_each_call_meets(how: str) -> None:
    """Samples hold the state before each call, as the app will send it."""
    given = samples()
    explicit = explicit_state.make_state_explicit(model(how), given[:3], given)
    assert [len(explicit.calibration), len(explicit.verification)] == [3, 6]
    captured = captured_program.capture_program(
        explicit.model, explicit.verification[0], others=explicit.verification[1:]
    )
    references, _ = run_float64_reference(captured, explicit.verification, {})
    np.testing.assert_allclose(references.reference[0], by_itself(Keeps(how).eval(), given), atol=1e-6)
    for before, after in zip(explicit.verification[1:], references.reference[1], strict=False):
        np.testing.assert_allclose(before[1], after, atol=1e-6)


def test_names_are_the_buffers() -> None:
    """State inputs are named after their buffers, outputs with "_out" after that."""
    explicit = explicit_state.make_state_explicit(model("a running mean"), samples(), samples())
    captured = captured_program.capture_program(explicit.model, explicit.verification[0])
    assert [spec.name for spec in captured.inputs] == ["x", "cache"]
    assert [spec.name for spec in captured.outputs] == ["logits", "cache_out"]
    assert "cache [1, 4]" in explicit.model.notes[-1]


def test_a_network_without_state_stays_as_it_is() -> None:
    """A network without state gets no further inputs."""
    given = model("nothing")
    assert explicit_state.make_state_explicit(given, samples(), samples()).model is given


class Grows(nn.Module):
    """A network that appends every input to its buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("past", torch.zeros(1, 4))

    past: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.past = torch.cat([self.past, x])
        return self.past.mean(0, keepdim=True)


def test_a_state_that_grows_is_refused() -> None:
    """State that grows is refused, because an artifact's shapes are fixed."""
    grows = Model(Grows().eval(), "tests:grows", (TensorSpec("x", (1, 4)),), None, 0)
    with pytest.raises(CaptureError, match=r"\[1, 4\] to \[2, 4\]") as caught:
        explicit_state.make_state_explicit(grows, samples(), samples())
    assert caught.value.code == "EM-STATE"


class Deep(nn.Module):
    """A network whose submodules keep a buffer, a buffer that is not saved, a parameter and a list."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Module()
        self.inner.register_buffer("saved", torch.zeros(2))
        self.inner.register_buffer("scratch", torch.zeros(2), persistent=False)
        self.inner.weight = nn.Parameter(torch.zeros(2))
        self.past = [torch.zeros(2)]
        self.table = {"a": torch.zeros(2)}


@pytest.mark.parametrize("path", ["inner.saved", "inner.scratch", "inner.weight", "past.0", "table.a"])
def test_a_released_state_belongs_to_the_network_no_longer(path: str) -> None:
    """Afterwards any tensor may be put in its place, and the network's own state does not list it."""
    net = Deep()
    others = {name for name, _ in (*net.named_buffers(), *net.named_parameters())} - {path}
    saved = set(net.state_dict()) - {path}
    explicit_state._release_explicit_state(net, path)
    assert {name for name, _ in (*net.named_buffers(), *net.named_parameters())} == others
    assert set(net.state_dict()) == saved
    assert net.inner._non_persistent_buffers_set == ({"scratch"} - {path.removeprefix("inner.")})
    with pytest.raises(CaptureError, match=rf"{path} holds no tensor") as caught:
        explicit_state._explicit_state_tensor(net, path)
    assert caught.value.code == "EM-STATE"
    value = torch.ones(2)
    explicit_state._put_explicit_state(net, path, value)
    assert explicit_state._explicit_state_tensor(net, path) is value
