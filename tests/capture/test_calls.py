"""Calls leave their inputs, and where asked the network, as they were."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from exporter.capture import calls, captured_program
from exporter.capture.float64_reference import run_float64_reference
from exporter.errors import CaptureError
from exporter.records import Model, Sample, TensorSpec


class InPlace(nn.Module):
    """A network that writes to its input before it reads it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.how = nn.Linear(6, 3), how

    def forward(self, x: Tensor) -> Tensor:
        match self.how:
            case "arithmetic":
                x.sub_(0.3).div_(0.35)
            case "relu":
                nn.functional.relu(x, inplace=True)
            case "index":
                x[:, 0] = 1.0
            case "view":
                x[:, 1:3].mul_(2.0)
            case "cast":
                return self.layer(x.sub_(0.5).double().float())  # type: ignore[no-any-return]
        return self.layer(x)  # type: ignore[no-any-return]


HOW = ["arithmetic", "relu", "index", "view", "cast"]


def samples_of(shape: tuple[int, ...] = (1, 6), count: int = 6) -> list[Sample]:
    generator = np.random.default_rng(0)
    return [(generator.normal(size=shape).astype(np.float32),) for _ in range(count)]


def model(net: nn.Module, shape: tuple[int, ...] = (1, 6)) -> Model:
    return Model(net.eval(), "tests:net", (TensorSpec("x", shape),), None, 0)


@pytest.mark.parametrize("how", HOW)
def test_a_network_that_writes_to_its_inputs_leaves_ours_alone(how: str) -> None:
    """Samples, edges, example and evidence stay unchanged, and outputs are those of fresh inputs."""
    samples = samples_of()
    before = copy.deepcopy(samples)
    edges = {"zeros": (np.zeros((1, 6), np.float32),)}
    captured = captured_program.capture_program(model(InPlace(how)), samples[0], others=samples[1:])
    references, _ = run_float64_reference(captured, samples, edges)
    for (array,), (original,), stored in zip(samples, before, references.inputs[0], strict=True):
        np.testing.assert_array_equal(array, original)
        np.testing.assert_array_equal(stored, original)
    np.testing.assert_array_equal(captured.example[0].numpy(), before[0][0])
    assert not edges["zeros"][0].any()
    with torch.no_grad():
        expected = InPlace(how)(torch.from_numpy(before[3][0].copy()))
    np.testing.assert_allclose(references.reference[0][3], expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", HOW)
def test_the_graph_of_such_a_network_writes_to_no_input(how: str) -> None:
    """Calibration and lowering call the graph on tensors of their own again and again."""
    captured = captured_program.capture_program(model(InPlace(how)), samples_of()[0])
    assert captured.program is not None
    assert captured.program.graph_signature.user_inputs_to_mutate == {}
    x = torch.ones(1, 6)
    captured.program.module()(x)
    assert x.tolist() == [[1.0] * 6]


def test_a_runners_outputs_are_its_own() -> None:
    """A network that returns its input or its buffer gives copies."""

    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("latest", torch.zeros(1, 6))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            assert isinstance(self.latest, Tensor)
            self.latest.copy_(x)
            return x, self.latest

    run = calls.call_runner(Views())
    sample = samples_of()[0]
    first = run(sample)
    run((sample[0] + 1,))
    for output in first:
        np.testing.assert_array_equal(output, sample[0])
    first[0][:] = 7.0
    assert not (sample[0] == 7.0).any()


LAYOUTS: dict[str, tuple[nn.Module, torch.memory_format]] = {
    "channels_last": (nn.Conv2d(4, 5, 3), torch.channels_last),
    "one channel": (nn.Conv2d(1, 5, 1), torch.channels_last),
    "channels_last_3d": (nn.Conv3d(3, 4, 2), torch.channels_last_3d),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parameters_become_contiguous(layout: str) -> None:
    """A weight is contiguous by its strides: is_contiguous() accepts one-channel images in any layout."""
    net, form = LAYOUTS[layout]
    net = net.to(memory_format=form)  # type: ignore[call-overload]
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    calls.settle_for_calls(net)
    for name, parameter in net.named_parameters():
        assert parameter.stride() == torch.empty(parameter.shape, device="meta").stride()
        assert torch.equal(parameter, before[name])
        assert isinstance(parameter, nn.Parameter)


def test_buffers_and_attributes_become_contiguous_and_ties_hold() -> None:
    """A network with an expanded buffer, a transposed table and a weight that two layers share."""
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    net.register_buffer("wide", torch.arange(3.0).expand(5, 3))
    net.table = torch.arange(6.0).reshape(2, 3).t()
    calls.settle_for_calls(net)
    assert net[1].weight is net[0].weight
    assert net.get_buffer("wide").stride() == (3, 1)
    assert isinstance(net.table, Tensor)
    assert net.table.stride() == (2, 1)
    assert net.table.tolist() == [[0, 3], [1, 4], [2, 5]]


def test_old_weight_norm_can_be_copied() -> None:
    """A weight with a history, which cannot be copied, has none once the network is settled."""
    net = nn.utils.weight_norm(nn.Linear(4, 3))
    with pytest.raises(RuntimeError):
        copy.deepcopy(net)
    calls.settle_for_calls(net)
    assert calls.copy_module_for_calls(net) is not net


class Raises(nn.Module):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        raise self.error


class OddError(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}\nand more")


def singular(text: str) -> Exception:
    """Return what torch.linalg raises, with another text."""
    try:
        torch.linalg.inv(torch.zeros(2, 2))
    except RuntimeError as error:
        return type(error)(text)
    raise AssertionError("zeros have an inverse")


RAISE_LINE = Raises.forward.__code__.co_firstlineno + 1


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no such token\ndetails"), "no such token"),
        (IndexError(), "IndexError"),
        (OddError(1, 2), "1 and 2"),
        (SystemExit(3), "3"),
        (AssertionError(), "AssertionError"),
        (RecursionError("too deep"), "too deep"),
        (singular("singular"), "singular"),
    ],
)
def test_what_a_network_raises_has_a_sentence_and_a_line(error: BaseException, text: str) -> None:
    """Any error of the user's own code becomes a CaptureError."""
    with pytest.raises(CaptureError) as caught:
        calls.call_network(Raises(error), [torch.zeros(1, 2)], "My net", ["wave"])
    assert caught.value.message == (
        f"My net does not run on wave [1, 2] float32: {text} (at {__file__}:{RAISE_LINE})"
    )


class Cancels(nn.Module):
    """Gives rounding alone for small inputs: three times x less x is not zero in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * 3 - x - x - x) + (x - 0.5).relu()


def test_an_edge_that_rounding_alone_decides_is_left_out() -> None:
    """Nobody can be held to what float32 itself does not give."""
    edges: dict[str, Sample] = {
        "flat": (np.full((1, 6), 0.1, np.float32) * np.arange(1, 7, dtype=np.float32) / 3,),
        "steep": (np.arange(6, dtype=np.float32)[None],),
    }
    captured = captured_program.capture_program(model(Cancels()), samples_of()[0])
    references, notes = run_float64_reference(captured, samples_of(), edges)
    assert references.edge_names == ("steep",)
    assert "The edge input 'flat' is left out" in notes[0]


def test_a_refused_sample_is_described_by_the_names_of_its_inputs() -> None:
    """A runner that knows the inputs' names says which of them has which shape."""
    net = nn.Bilinear(2, 3, 1)
    sample = np.ones((1, 2), np.float32), np.ones((1, 4), np.float32)
    with pytest.raises(CaptureError, match=r"left \[1, 2\] float32, right \[1, 4\] float32"):
        calls.call_runner(net, names=("left", "right"))(sample)
    with pytest.raises(CaptureError, match=r"on \[1, 2\] float32, \[1, 4\] float32"):
        calls.call_runner(net)(sample)


@pytest.mark.parametrize(
    ("shape", "name"), [((1, 10), "logits"), ((1, 1), "output"), ((10,), "output"), ((1, 2, 3), "output")]
)
def test_one_output_is_named_by_what_it_looks_like(shape: tuple[int, ...], name: str) -> None:
    """A row of scores is called logits; a key of the network's own stays."""
    assert calls.call_output_names([("", torch.zeros(shape))]) == [name]
    assert calls.call_output_names([("scores", torch.zeros(shape))]) == ["scores"]


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (functional.normalize(torch.randn(2, 64, generator=torch.Generator().manual_seed(0))), "embedding"),
        (functional.normalize(torch.rand(1, 64, generator=torch.Generator().manual_seed(0))), "embedding"),
        (torch.eye(64)[:1], "logits"),
        (functional.normalize(torch.ones(1, 4)), "logits"),
        (torch.cat([functional.normalize(torch.ones(1, 64)), torch.ones(1, 64)]), "logits"),
        (torch.ones(1, 64).to(torch.int64), "logits"),
    ],
    ids=["any sign", "after a ReLU", "sure probabilities", "short", "one row of two", "integers"],
)
def test_one_output_of_unit_vectors_is_an_embedding(values: torch.Tensor, name: str) -> None:
    """A row of length one is no row of scores, but for probabilities that are all 0 and 1."""
    assert calls.call_output_names([("", values)]) == [name]


def test_tensors_are_found_beside_a_part_in_torchscript() -> None:
    """The parts after a scripted one have tensors, too."""
    scripted = torch.jit.script(nn.Linear(2, 2))
    net = nn.Sequential(scripted, nn.Linear(2, 3))
    shapes = sorted(tuple(tensor.shape) for _, _, tensor in calls.tensors_for_calls(net))
    assert shapes == [(2,), (2, 2), (3,), (3, 2)]


def network_of_memory(memory: str) -> nn.Linear:
    """Return a network whose weight lies in memory of PyTorch's own, of an array, or of a larger tensor."""
    net = nn.Linear(300, 300)
    values = {
        "own": torch.ones(300, 300),
        "an array": torch.from_numpy(np.ones((300, 300), np.float32)),
        "a larger tensor": torch.ones(2, 300, 300)[1],
    }
    net.weight = nn.Parameter(values[memory])
    calls.settle_for_calls(net)
    return net


def weight_of_copy(net: nn.Linear) -> Tensor:
    copied = calls.copy_module_for_calls(net)
    assert isinstance(copied, nn.Linear)
    return copied.weight


MEMORIES = ("own", "an array", "a larger tensor")


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("write", [lambda p: p.data.add_(1), lambda p: p.detach().numpy().fill(2)])
def test_writes_to_a_copy_leave_the_network(memory: str, write: Callable[[Tensor], object]) -> None:
    """A write to a copy's weight, however it is made, changes neither the network nor another copy."""
    net = network_of_memory(memory)
    first, second = weight_of_copy(net), weight_of_copy(net)
    write(first)
    with torch.no_grad():
        net.weight.mul_(3)
    assert [set(weight.flatten().tolist()) for weight in (first, second, net.weight)] == [{2}, {1}, {3}]


@pytest.mark.parametrize("memory", MEMORIES)
def test_copies_share_memory_until_a_write(memory: str) -> None:
    """Copies of a settled network take no memory for its weights, wherever these came from."""
    copied = calls.copy_module_for_calls(network_of_memory(memory))
    copied(torch.zeros(1, 300))
    assert torch._C._is_cow_tensor(copied.weight)  # type: ignore[attr-defined]


def test_copies_of_tied_weights_stay_tied() -> None:
    """A weight that two layers share is one weight in a copy too, and not the network's."""
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    first, second = calls.copy_module_for_calls(net).children()
    assert first.weight is second.weight
    assert first.weight is not net[0].weight
