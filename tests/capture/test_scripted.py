"""TorchScript with branches and state becomes a straight network that computes the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from exporter.capture import scripted
from exporter.capture.captured_program import capture_program, load_captured_program, save_captured_program
from exporter.errors import CaptureError
from exporter.records import Model, TensorSpec


class Recurrent(nn.Module):
    """Branches on a number and a size, loops over its layers, and makes its state at the first call."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
        self.state = torch.empty(0)
        self.calls = 0

    def forward(self, x: Tensor, rate: int = 16) -> Tensor:
        if self.calls == 0 or len(self.state) == 0:
            self.state = torch.zeros(x.shape[0], 6)
        self.calls = self.calls + 1
        x = x * 2 if rate > 8 else x[:, ::2]
        for layer in self.layers:
            x = torch.tanh(layer(x + self.state))
        self.state = x
        return x


class OnValues(nn.Module):
    """Branches on what a tensor holds."""

    def forward(self, x: Tensor) -> Tensor:
        if bool(x.sum() > 0):
            return x * 2
        return x - 1


class Counter(nn.Module):
    """Counts its calls in a number, which its output depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        if self.calls > 1:
            x = x * 3
        return x


def test_a_straight_network_computes_the_same_from_call_to_call() -> None:
    """Its state starts as the archive's does, and follows it."""
    torch.manual_seed(0)
    archive = torch.jit.script(Recurrent().eval())
    calls = [torch.randn(1, 6) for _ in range(4)]

    straight = scripted.straighten_script(archive, calls[:1])

    assert isinstance(straight, scripted.StraightScript)
    assert straight.states == ("state",)
    assert len(list(straight.parameters())) == 4
    with torch.no_grad():
        for x in calls:
            assert torch.allclose(straight(x), archive(x))


def test_it_keeps_its_weights_and_state_in_an_exported_program() -> None:
    """`torch.export` takes the straight network, without any branch."""
    torch.manual_seed(0)
    archive = torch.jit.script(Recurrent().eval())
    straight = scripted.straighten_script(archive, [torch.randn(1, 6)])

    program = torch.export.export(straight, (torch.randn(1, 6),)).run_decompositions()

    assert len(program.graph_signature.parameters) == 4
    assert list(program.graph_signature.buffers_to_mutate.values()) == ["state"]


@pytest.mark.parametrize("network", [OnValues(), Counter()], ids=["values", "counter"])
def test_what_no_straight_graph_computes_is_refused(network: nn.Module) -> None:
    """A branch on a tensor's values, or on the number of calls, would be taken as the example took it."""
    archive = torch.jit.script(network.eval())

    with pytest.raises(CaptureError, match=r"straight graph|first call"):
        scripted.straighten_script(archive, [torch.randn(1, 6)])


class Nested(nn.Module):
    """Returns tensors in a dictionary, a list or nested tuples, and branches nowhere."""

    def __init__(self, nest: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.table, self.nest = nn.Linear(6, 3), nn.Embedding(4, 3), nest

    def forward(self, x: Tensor) -> Any:
        return self.nest(self.layer(x) + self.table(torch.zeros(1, dtype=torch.int64)))


@pytest.mark.parametrize(
    "nest",
    [lambda x: {"a": x, "b": x * 2}, lambda x: [x, x * 2], lambda x: (x, (x * 2, x * 3))],
    ids=["dictionary", "list", "tuples"],
)
def test_nested_outputs_become_a_graph(nest: Callable[[Tensor], Any], tmp_path: Path) -> None:
    """A traced archive with nested outputs is captured, though no wrapper around an archive is converted."""
    traced = torch.jit.trace(Nested(nest).eval(), torch.randn(1, 6), strict=False)  # type: ignore[no-untyped-call]
    torch.jit.save(traced, tmp_path / "archive.pt")
    archive = torch.jit.load(tmp_path / "archive.pt")  # type: ignore[no-untyped-call]
    sample = (torch.randn(1, 6).numpy(),)
    spec = TensorSpec("x", (1, 6))
    model = Model(archive, "archive", (spec,), None, 33)
    captured = capture_program(scripted.model_without_branches(model, sample), sample)
    assert captured.program is not None
    save_captured_program(captured, tmp_path)
    assert load_captured_program(tmp_path).module is not None


class LoopsByValue(nn.Module):
    """Repeats a step as often as a tensor says."""

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(int(x.abs().max())):
            x = x * 2
        return x


class OtherWidth(nn.Module):
    """Has a branch on a number, and takes another width than its inputs have."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 2:
            return self.linear(x)  # type: ignore[no-any-return]
        return x


@pytest.mark.parametrize(
    ("network", "reason", "code"),
    [
        (OnValues(), "a branch depends on a tensor's values", "if bool(x.sum() > 0):"),
        (LoopsByValue(), "a branch depends on a tensor's values", "for _ in range(int(x.abs().max())):"),
        (OtherWidth(), "shapes cannot be multiplied", "self.linear(x)"),
    ],
    ids=["branch", "loop", "width"],
)
def test_a_refusal_names_the_line_of_the_archive_and_the_reason(
    network: nn.Module, reason: str, code: str
) -> None:
    """The message has what failed and where in the author's code, instead of TorchScript's first line."""
    archive = torch.jit.script(network.eval())
    with pytest.raises(CaptureError) as caught:
        scripted.straighten_script(archive, [torch.randn(1, 6) + 3])
    assert reason in str(caught.value)
    assert code in str(caught.value)
    assert "test_scripted.py" in caught.value.message


def test_other_networks_stay_as_they_are() -> None:
    """Neither a network of Python nor TorchScript without branches is recorded."""
    plain = nn.Linear(6, 6)
    traced = torch.jit.trace(nn.Linear(6, 6), torch.zeros(1, 6))  # type: ignore[no-untyped-call]

    assert scripted.straighten_script(plain, [torch.zeros(1, 6)]) is plain
    assert scripted.straighten_script(traced, [torch.zeros(1, 6)]) is traced
