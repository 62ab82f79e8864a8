"""The parts with which TorchScript becomes a straight network, and state becomes explicit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.capture import explicit_state, scripted
from exporter.errors import CaptureError
from exporter.records import Model, Sample, TensorSpec
from tests.capture.test_state import Keeps, model, samples

X = torch.linspace(-1, 1, 6).reshape(1, 6)


class Inner(nn.Module):
    """Keeps an average from call to call, and an attribute that it makes at the first call."""

    def __init__(self) -> None:
        super().__init__()
        self.average = torch.full((1, 6), 0.5)
        self.made = torch.empty(0)
        self.register_buffer("offset", torch.full((1, 6), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        if len(self.made) == 0:
            self.made = torch.zeros(1, 6)
        self.average = 0.5 * self.average + 0.5 * x
        self.made = self.made + x
        return self.average + self.made + self.offset  # type: ignore[operator]


class Outer(nn.Module):
    """Has its state in a part, a constant of whole numbers, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Inner()
        self.weight = nn.Parameter(torch.full((6,), 3.0))
        self.order = torch.tensor([5, 4, 3, 2, 1, 0])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.part(x * self.weight)
        return y, y[:, self.order]


class Chooses(nn.Module):
    """Branches on a size, and keeps nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.shape[1] > 3 else x


def test_state_of_a_part_starts_as_the_archives() -> None:
    """It has the values before the first call, zeros where that call makes it; both outputs follow."""
    archive, same = (torch.jit.script(Outer().eval()) for _ in range(2))
    straight: Any = scripted.straighten_script(archive, [X])
    assert set(straight.states) == {"part_average", "part_made"}
    assert straight.part_average.tolist() == [[0.5] * 6]
    assert straight.part_made.tolist() == [[0.0] * 6]
    assert not straight.training
    with torch.no_grad():
        for factor in (1, -2, 3):
            outputs, expected = straight(factor * X), same(factor * X)
            assert isinstance(outputs, tuple)
            torch.testing.assert_close(outputs, expected)
    assert archive.part.average.tolist() == [[0.5] * 6]  # the archive itself was never called
    straight.restart({"a": torch.zeros(1, 6), "b": torch.ones(1, 6)})
    assert [getattr(straight, name)[0, 0].item() for name in straight.states] == [0.0, 1.0]


def test_only_weights_are_parameters() -> None:
    """An order of channels is whole numbers, and a number alone is no weight: a quantiser leaves them."""
    straight: Any = scripted.straighten_script(torch.jit.script(Outer().eval()), [X])
    shapes = sorted(tuple(parameter.shape) for parameter in straight.parameters())
    assert shapes == [(1, 6), (6,)]
    assert not any("_tensor_constant" in name for name, _ in straight.named_parameters())


def test_the_note_names_what_is_kept() -> None:
    """A model that needs no straightening is returned itself."""
    specs = (TensorSpec("x", (1, 6)),)
    sample = (X.numpy(),)
    keeps, chooses, plain = (
        Model(net, "net", specs, None, 0, notes=("first",))
        for net in (torch.jit.script(Outer().eval()), torch.jit.script(Chooses()), nn.ReLU())
    )
    straight = scripted.model_without_branches(keeps, sample)
    assert isinstance(straight.module, scripted.StraightScript)
    assert straight.notes[0] == "first"
    kept = ", ".join(straight.module.states)
    assert straight.notes[1].endswith(f"take them; it keeps {kept} from call to call")
    assert (
        scripted.model_without_branches(chooses, sample)
        .notes[1]
        .endswith("branches are taken as these inputs take them")
    )
    assert scripted.model_without_branches(plain, sample) is plain


@pytest.mark.parametrize(
    ("first", "again", "equal"),
    [
        (torch.tensor(1.0), torch.tensor(1.0 + 5e-6), True),
        (torch.tensor(1.0), torch.tensor(1.0 + 5e-5), False),
        (torch.tensor(0.0), torch.tensor(5e-7), True),
        (torch.tensor(0.0), torch.tensor(5e-6), False),
        (torch.tensor(math.nan), torch.tensor(math.nan), True),
        (torch.tensor(math.nan), torch.tensor(0.0), False),
        ((torch.ones(1), torch.ones(1)), (torch.ones(1), torch.zeros(1)), False),
    ],
)
def test_two_calls_of_an_archive_agree_in_the_last_places(first: Any, again: Any, equal: bool) -> None:
    """Every output counts, and NaN is as good as NaN."""
    assert scripted._equal_script_outputs(first, again) is equal


def test_an_archive_that_gives_other_outputs_later_is_refused_with_the_code_of_state() -> None:
    """The way out is the network's own class."""

    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x if self.calls > 1 else x * 3

    with pytest.raises(CaptureError) as caught:
        scripted.straighten_script(torch.jit.script(Counter()), [X])
    assert caught.value.code == "EM-STATE"
    assert "--arch" in caught.value.hint


def test_the_reason_that_nothing_is_recorded_is_one_line() -> None:
    """A branch on values ends the recording with the framework's own words."""

    class OnValues(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if bool(x.sum() > 1):
                return x
            return -x

    with pytest.raises(CaptureError, match=r"cannot be written out as a straight graph: .") as caught:
        scripted.straighten_script(torch.jit.script(OnValues()), [X])
    assert "\n" not in caught.value.message
    assert "--arch" in caught.value.hint


@pytest.mark.parametrize(
    ("taken", "name"), [(set(), "a"), ({"a"}, "a_state"), ({"a", "a_state"}, "a_state_state")]
)
def test_a_state_has_a_name_of_its_own(taken: set[str], name: str) -> None:
    """An input of that name has it already; the next state may not have it either."""
    assert explicit_state._free_explicit_name("a", taken) == name
    assert name in taken


def given(count: int, seed: int) -> list[Sample]:
    generator = np.random.default_rng(seed)
    return [(generator.normal(size=(1, 4)).astype(np.float32),) for _ in range(count)]


def test_each_kind_of_sample_is_a_sequence_from_the_start() -> None:
    """Calibration, verification and choice begin with the checkpoint's state, whatever their number."""
    kinds = given(2, 1), given(3, 2), given(4, 3)
    explicit = explicit_state.make_state_explicit(model("copied into a buffer"), *kinds)
    for threaded, plain in zip(
        (explicit.calibration, explicit.verification, explicit.choice), kinds, strict=True
    ):
        assert [sample[0].tolist() for sample in threaded] == [sample[0].tolist() for sample in plain]
        states = [sample[1].tolist() for sample in threaded]
        assert states == [[[0.5] * 4], *(sample[0].tolist() for sample in plain[:-1])]
    assert explicit.choice
    assert not explicit.model.module.training
    still = explicit_state.make_state_explicit(model("nothing"), *kinds)
    assert [still.calibration, still.verification, still.choice] == [tuple(kind) for kind in kinds]
    assert explicit_state.make_state_explicit(model("nothing"), *kinds[:2]).choice == ()


def test_a_call_leaves_no_state_behind() -> None:
    """The network and the caller's tensors are as before, also where the network's code raises."""
    net = nn.Sequential(nn.Linear(4, 4), Keeps("a running mean"))
    named = Model(net.eval(), "tests:net", (TensorSpec("1_cache", (1, 4)),), None, 0)
    explicit = explicit_state.make_state_explicit(named, samples()[:2], samples())
    assert [spec.name for spec in explicit.model.inputs] == ["1_cache", "1_cache_state"]
    assert explicit.model.inputs[1] == TensorSpec("1_cache_state", (1, 4), "float32")
    assert "1_cache_state [1, 4]" in explicit.model.notes[-1]
    module: Any = explicit.model.module
    state = torch.ones(1, 4)
    with torch.no_grad():
        outputs = module(torch.zeros(1, 4), state)
        assert list(outputs) == ["logits", "1_cache_state"]
        assert state.tolist() == [[1.0] * 4]
        assert outputs["1_cache_state"].tolist() != [[1.0] * 4]
        with pytest.raises(RuntimeError):
            module(torch.zeros(1, 5), state)
    assert module.wrapped[1].cache is None
    assert net[1].get_buffer("cache").tolist() == [[0.5] * 4]  # the model that was given is as it was
