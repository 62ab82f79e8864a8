"""Inputs that are no tensors become constants, of a network and of a TorchScript archive."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from exporter.architectures.input_values import with_input_values
from exporter.architectures.network_inputs import forward_network_input_names
from exporter.capture import captured_program
from exporter.errors import UsageError
from exporter.records import Model, TensorSpec


class Detector(torch.nn.Module):
    """A voice detector that takes its sampling rate, as Silero's does."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = torch.nn.Linear(4, 2)
        self.fast = torch.nn.Linear(8, 2)

    def forward(
        self, x: torch.Tensor, sr: int, h: torch.Tensor, scale: float = 1.0, flip: bool = False
    ) -> torch.Tensor:
        if sr == 8000:
            y = self.slow(x[:, :4])
        elif sr == 16000:
            y = self.fast(x)
        else:
            raise ValueError("another rate")
        y = y * scale + h
        if flip:
            y = -y
        assert isinstance(y, torch.Tensor)
        return y


@pytest.mark.parametrize("scripted", [False, True])
@pytest.mark.parametrize("values", [{"sr": 8000}, {"sr": 16000, "scale": 0.5, "flip": True}])
def test_values_are_constants_and_the_rest_are_inputs(scripted: bool, values: dict[str, Any]) -> None:
    """The outputs are those of the network called with the values, and only tensors are asked for."""
    own = Detector().eval()
    given = with_input_values(torch.jit.script(own) if scripted else own, values)
    names, _ = forward_network_input_names(given)
    assert names is not None
    assert names == ("x", "h") if scripted else names[:2] == ("x", "h")
    x, h = torch.rand(1, 8), torch.rand(1, 2)
    assert torch.equal(given(x, h), own(x, h=h, **values))


def test_a_network_with_a_value_is_captured() -> None:
    """The graph has the branch that the value chooses, and two inputs."""
    own = Detector().eval()
    specs = (TensorSpec("x", (1, 8)), TensorSpec("h", (1, 2)))
    model = Model(with_input_values(own, {"sr": 16000}), "own", specs, None, 1)
    x, h = torch.rand(1, 8), torch.rand(1, 2)
    captured = captured_program.capture_program(model, (x.numpy(), h.numpy()))
    assert captured.program is not None, captured.program_error
    assert torch.allclose(captured.program.module()(x, h), own(x, 16000, h))


@pytest.mark.parametrize("scripted", [False, True])
@pytest.mark.parametrize(
    ("values", "words"), [({"rate": 8000}, "inputs are x, sr, h"), ({"sr": [1, 2]}, "is a list")]
)
def test_wrong_values_are_refused(scripted: bool, values: dict[str, Any], words: str) -> None:
    """An unknown name and a value of another kind are named."""
    own = Detector().eval()
    with pytest.raises(UsageError, match=words):
        with_input_values(torch.jit.script(own) if scripted else own, values)


def test_an_archive_refuses_a_value_of_another_type() -> None:
    """A text where TorchScript declares a number is refused when forward is defined."""
    with pytest.raises(UsageError, match="does not fit"):
        with_input_values(torch.jit.script(Detector()), {"sr": "fast"})
