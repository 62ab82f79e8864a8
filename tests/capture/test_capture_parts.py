"""Small functions of the capture at their boundaries: messages, weights, state, layers, calls."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from exporter.capture import (
    calls,
    captured_program,
    embedded_preprocessing,
    folded_weights,
    lowering_errors,
    state,
)
from exporter.capture.embedded_preprocessing import EmbeddedPreprocessing
from exporter.errors import CaptureError, UsageError
from exporter.records import (
    Captured,
    DynamicSize,
    Model,
    Preprocessing,
    SizeRange,
    TensorSpec,
)

MOST = lowering_errors.MAX_CAUSE_CHARACTERS
FRAME = '  File "{}", line {}, in f\n'


class Uncopyable(nn.Module):
    """Cannot be copied, as a network that holds a file or a lock."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))

    def __deepcopy__(self, memo: object) -> nn.Module:
        raise TypeError("not to be copied")

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("length", "cut"), [(MOST - 1, False), (MOST, False), (MOST + 1, True), (2 * MOST, True)]
)
def test_a_cause_has_at_most_so_many_characters(length: int, cut: bool) -> None:
    """A message that is cut ends with dots in the last place."""
    text = "a b c " + "d" * (length - 6)
    short = lowering_errors.shorten_lowering_error(ValueError(text))
    assert len(short) == min(length, MOST)
    assert short == (text[: MOST - 1] + "…" if cut else text)


def test_pytorchs_operators_have_no_address_in_a_message() -> None:
    """The address differs from run to run."""
    text = "cannot lower <torch._higher_order_ops.cond.CondOp object at 0x7f00ab12> here"
    assert lowering_errors.shorten_lowering_error(ValueError(text)) == "cannot lower torch's cond here"


def test_the_innermost_cause_says_where() -> None:
    """Its own text counts first, then the texts of the errors around it."""
    inner, outer = (
        RuntimeError("it is wrong"),
        ValueError("conversion failed\n" + FRAME.format("/me/a.py", 3)),
    )
    outer.__cause__ = inner
    error = lowering_errors.lowering_error(outer)
    assert (error.cause, error.source) == ("it is wrong", "/me/a.py:3")
    inner = RuntimeError("it is wrong\n" + FRAME.format("/me/b.py", 4))
    outer.__cause__ = inner
    assert lowering_errors.lowering_error(outer).source == "/me/b.py:4"
    assert lowering_errors.lowering_error(RuntimeError("it is wrong")).source is None


@pytest.mark.parametrize(
    ("message", "known"),
    [
        ("no kernel aten.linalg_svd.default", True),
        ("no kernel aten::_linalg_svd", True),
        ("at node linalg_svd", True),
        ("at op __linalg_svd", True),
        ("no kernel aten.linalg_svdvals.default", False),
        ("linalg_svd", False),
        ("nothing of it", False),
    ],
)
def test_an_operator_by_its_name_leads_to_its_line(message: str, known: bool) -> None:
    """The name stands after a library or a node, as a word of its own; underscores before it do not count."""
    nodes = [SimpleNamespace(op="output", target="output")]
    for line, name in ((5, "_linalg_svd"), (6, "linalg_svd")):
        target = SimpleNamespace(_opname=name)
        trace = FRAME.format("/me/c.py", line)
        nodes.append(SimpleNamespace(op="call_function", target=target, stack_trace=trace))
    program: Any = SimpleNamespace(graph=SimpleNamespace(nodes=nodes))
    source = lowering_errors.lowering_error(RuntimeError(message), program).source
    assert source == ("/me/c.py:5" if known else None)


def test_an_operator_without_a_line_has_none() -> None:
    """A graph that was made by hand has no stack traces."""
    target = SimpleNamespace(_opname="svd")
    node = SimpleNamespace(op="call_function", target=target, stack_trace=None)
    program: Any = SimpleNamespace(graph=SimpleNamespace(nodes=[node]))
    assert lowering_errors.lowering_error(RuntimeError("op svd is unknown"), program).source is None


def test_a_network_that_cannot_be_copied_stays_whole() -> None:
    """Its computed weights are not stored, and its state cannot be told."""
    net = Uncopyable()
    assert folded_weights.with_folded_weights(net) is net
    assert calls.copy_module_for_calls(net) is net
    assert state.state_changed_by_calls(net, [(np.ones((1, 2), np.float32),)]) == ()
    assert "layer.parametrizations.weight.original0" in net.state_dict()


def test_a_weight_of_whole_numbers_is_folded() -> None:
    """It may have no gradient, and becomes a parameter like others; the old network keeps its own."""

    class Twice(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * 2

    part = nn.Module()
    part.weight = nn.Parameter(torch.tensor([1, 2]), requires_grad=False)
    parametrize.register_parametrization(part, "weight", Twice())
    net = nn.Sequential(part)
    folded: Any = folded_weights.with_folded_weights(net)
    assert isinstance(folded[0].weight, nn.Parameter)
    assert folded[0].weight.tolist() == [2, 4]
    assert not hasattr(folded[0], "parametrizations")
    assert parametrize.is_parametrized(net[0])


COUNTER: list[int] = []


class CountsOutside(nn.Module):
    """Counts its calls in a list of the module, which is none of its attributes."""

    def forward(self, x: Tensor) -> Tensor:
        COUNTER.append(1)
        return x * len(COUNTER)


def test_state_outside_the_network_is_refused_without_a_name() -> None:
    """What is neither a tensor nor an attribute cannot be named."""
    with pytest.raises(CaptureError, match="through something that is not a tensor") as caught:
        state.state_changed_by_calls(CountsOutside(), [(np.ones((1, 2), np.float32),)])
    assert caught.value.code == "EM-STATE"
    assert "register_buffer" in caught.value.hint


class Remembers(nn.Module):
    """Adds up the fourth, but not the fifth, of the inputs of its calls."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("sum", torch.zeros(()))
        self.at = at

    calls: Tensor
    sum: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.sum += x.sum() * (self.calls == self.at)
        return x + self.sum


@pytest.mark.parametrize(("at", "names"), [(4, ("calls", "sum")), (7, ())])
def test_four_samples_are_called_before_the_first_again(at: int, names: tuple[str, ...]) -> None:
    """More calls show more, and cost more."""
    given = [(np.full((1, 2), value, np.float32),) for value in range(1, 8)]
    assert state.state_changed_by_calls(Remembers(at), given) == names


@pytest.mark.parametrize(
    ("layer", "pads"),
    [
        ({"kernel_size": 3}, False),
        ({"kernel_size": 3, "padding": 1}, True),
        ({"kernel_size": 3, "padding": (0, 1)}, True),
        ({"kernel_size": 3, "padding": 1, "padding_mode": "reflect"}, False),
        ({"kernel_size": 1, "padding": "same"}, False),
        ({"kernel_size": (1, 3), "padding": "same"}, True),
        ({"kernel_size": 2, "padding": "same"}, True),
        ({"kernel_size": 3, "padding": "valid"}, False),
    ],
)
def test_which_convolutions_pad_zeros(layer: dict[str, Any], pads: bool) -> None:
    """Another mode pads pixels of the photo, and a kernel of one place pads nothing."""
    assert embedded_preprocessing._embedded_layer_pads_zeros(nn.Conv2d(3, 2, **layer)) is pads


HOW = Preprocessing(mean=(0.5, 0.25, 0.125), std=(0.5, 2.0, 4.0), scale=255.0, pixels="rgba")


@pytest.mark.parametrize("steps", ["normalise", "shift", "none"])
def test_pixels_are_prepared_in_steps(steps: str) -> None:
    """A step does all of the normalisation, the mean alone, or nothing; alpha never counts."""
    net = EmbeddedPreprocessing(nn.Identity(), HOW)
    net.steps = steps
    pixels = torch.tensor([[[[10, 20, 40, 255], [0, 100, 200, 0]]]], dtype=torch.uint8)
    planes = net(pixels)
    assert (planes.shape, planes.dtype) == ((1, 3, 1, 2), torch.float32)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (HOW.mean, HOW.std))
    plain = pixels[..., :3].permute(0, 3, 1, 2).float()
    expected = {"normalise": (plain - mean) / std, "shift": plain - mean, "none": plain}[steps]
    torch.testing.assert_close(planes, expected)
    assert planes.is_contiguous()


@pytest.mark.parametrize(
    ("shape", "pixels", "taken", "how"),
    [
        ((2, 3, 4, 6), "rgb", (2, 4, 6, 3), "rgb"),
        ((2, 3, 4, 6), "rgba", (2, 4, 6, 4), "rgba"),
        ((2, 1, 4, 6), "rgb", (2, 4, 6, 1), "gray"),
    ],
)
def test_bytes_have_their_channels_last(
    shape: tuple[int, ...], pixels: Any, taken: tuple[int, ...], how: str
) -> None:
    """Height and width stay in order; the note and the preprocessing say what the bytes are."""
    planes = Preprocessing(mean=(0.5,) * shape[1], std=(0.5,) * shape[1])
    model = Model(nn.Identity(), "net", (TensorSpec("photo", shape),), planes, 0, notes=("first",))
    embedded = embedded_preprocessing.embed_preprocessing(model, pixels)
    assert embedded.inputs == (TensorSpec("photo", taken, "uint8"),)
    assert embedded.preprocessing is not None
    assert embedded.preprocessing.pixels == how
    assert embedded.notes[0] == "first"
    sizes = "x".join(map(str, taken))
    assert f"photo is uint8 {sizes}, the {how} bytes" in embedded.notes[1]
    assert not embedded.module.training


@pytest.mark.parametrize(
    ("inputs", "planes", "pixels"),
    [
        ((TensorSpec("a", (1, 3, 4, 4)), TensorSpec("b", (1,))), HOW, "rgb"),
        ((TensorSpec("a", (1, 3, 4, 4)),), None, "rgb"),
        ((TensorSpec("a", (1, 1, 4, 4)),), HOW, "rgba"),
    ],
)
def test_networks_of_other_inputs_embed_nothing(inputs: Any, planes: Any, pixels: Any) -> None:
    """Two inputs, an unknown photo and alpha of a grey one are refused; the hint has an option."""
    model = Model(nn.Identity(), "net", inputs, planes, 0)
    with pytest.raises(UsageError) as caught:
        embedded_preprocessing.embed_preprocessing(model, pixels)
    assert caught.value.code == "EM-EMBED-PREPROCESSING"
    assert "--" in caught.value.hint


def test_the_place_of_the_normalisation_is_found() -> None:
    """It is the module itself, or lies within another one; a network without it has none."""
    net = EmbeddedPreprocessing(nn.Identity(), HOW)
    place = embedded_preprocessing.place_of_embedded_preprocessing
    assert (place(net), place(nn.Sequential(nn.ReLU(), net)), place(nn.ReLU())) == ("", "1", None)
    assert embedded_preprocessing.fold_embedded_preprocessing(net, None) == (net, "")


class FirstLayer(nn.Module):
    """Gives the planes to a function, beside a layer."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.does = nn.Conv2d(3, 3, 1), forward

    def forward(self, x: Tensor) -> Tensor:
        return self.does(self.layer, x)


FIRST: dict[str, tuple[Callable[[Any, Tensor], Tensor], bool]] = {
    "a layer": (lambda layer, x: layer(x), True),
    "a function of torch": (lambda layer, x: nn.functional.conv2d(x, torch.ones(2, 3, 1, 1)), False),
    "planes as a weight": (lambda layer, x: nn.functional.conv2d(layer.weight, x), False),
    "a weight that something else reads": (lambda layer, x: layer(x) + layer.weight.sum(), False),
    "a linear layer": (lambda layer, x: nn.functional.linear(x.flatten(1), torch.ones(2, 3)), False),
    "no layer": (lambda layer, x: x.relu(), False),
}


@pytest.mark.parametrize("name", FIRST)
def test_only_a_plain_first_layer_is_folded_into(name: str) -> None:
    """Its weight is its own, and what it convolves are the planes."""
    forward, folds = FIRST[name]
    net = EmbeddedPreprocessing(FirstLayer(forward), HOW).eval()
    pixels = torch.tensor([[[[10, 20, 40, 0]]]], dtype=torch.uint8)
    program = torch.export.export(net, (pixels,))
    folded, note = embedded_preprocessing.fold_embedded_preprocessing(net, program)
    assert (folded is net, bool(note)) == (not folds, folds)
    assert not folds or "(layer)" in note
    with torch.no_grad():
        torch.testing.assert_close(folded(pixels), net(pixels))


def test_a_call_has_tensors_of_its_own() -> None:
    """The tensors are contiguous copies; only floats are widened."""
    arrays = np.ones((2, 3), np.float32).T, np.arange(3), np.ones(2, bool)
    plain, wide = calls.call_arguments(arrays), calls.call_arguments(arrays, widen=True)
    assert [t.dtype for t in plain] == [torch.float32, torch.int64, torch.bool]
    assert [t.dtype for t in wide] == [torch.float64, torch.int64, torch.bool]
    assert plain[0].stride() == (2, 1)
    plain[1].add_(5)
    assert arrays[1].tolist() == [0, 1, 2]


def test_outputs_become_arrays() -> None:
    """NumPy has no bfloat16; lazy conjugates and signs are computed; no later call changes an array."""
    value = torch.tensor([1.5], dtype=torch.bfloat16)
    assert calls.call_array(value).dtype == np.float32
    assert calls.call_array(torch.tensor([1j]).conj()).tolist() == [-1j]
    assert calls.call_array(torch.tensor([1j]).conj().imag).tolist() == [-1.0]
    kept = torch.ones(2, requires_grad=True)
    array = calls.call_array(kept)
    with torch.no_grad():
        kept += 1
    assert array.tolist() == [1.0, 1.0]


def test_nested_outputs_have_paths() -> None:
    """A path joins keys, fields and positions; a place that holds nothing is left out."""
    nested = {"a": (1, None, [2]), "b": {"c": 3}}
    assert list(calls.call_leaves(nested)) == [("a_0", 1), ("a_2_0", 2), ("b_c", 3)]
    assert list(calls.call_leaves(7)) == [("", 7)]
    tensor = torch.ones(1)
    assert calls.call_output_names([("0", tensor), ("1_x", tensor)]) == ["output_0", "1_x"]
    assert calls.call_output_names([("", torch.ones(1, 2))]) == ["logits"]


@pytest.mark.parametrize(("forward", "mutates"), [(lambda x: x.add_(1), True), (lambda x: x + 1, False)])
def test_writing_to_an_input_is_noticed(forward: Callable[[Tensor], Tensor], mutates: bool) -> None:
    """One input of several is enough; the caller's stay as they are."""

    class Net(nn.Module):
        def forward(self, first: Tensor, x: Tensor) -> Tensor:
            return first + forward(x)

    inputs = [torch.ones(1), torch.ones(1)]
    assert calls.call_mutates_inputs(Net(), inputs) is mutates
    assert [t.item() for t in inputs] == [1.0, 1.0]


def test_wrappers_are_taken_off() -> None:
    """Both kinds are taken off, in any order; the user's own module may hold one deeper."""
    own = nn.Sequential(calls.FlatCallOutputs(nn.ReLU()))
    assert calls.unwrapped_call(calls.FlatCallOutputs(calls.OwnCallInputs(own))) is own
    assert calls.unwrapped_call(own) is own


@pytest.mark.parametrize(
    ("name", "words"),
    [("layout", "returns a sparse_coo tensor"), ("quantised", "returns a quantised tensor (b)")],
)
def test_outputs_that_cannot_be_compared_are_refused(name: str, words: str) -> None:
    """The message has their kind, and their name where they have one."""
    model = Model(nn.ReLU(), "My net", (), None, 0)
    sparse, integer = torch.eye(2).to_sparse(), torch.quantize_per_tensor(torch.ones(1), 1.0, 0, torch.qint8)
    outputs = {"layout": sparse, "quantised": {"a": torch.ones(1), "b": integer}}[name]
    with pytest.raises(CaptureError) as caught:
        captured_program._captured_program_outputs(model, outputs)
    assert f"My net {words}, expected dense ones" in caught.value.message
    assert "--arch" in caught.value.hint


def test_an_archive_has_one_size() -> None:
    """TorchScript with ranges has no graph, and the reason says so."""
    scripted = torch.jit.script(nn.ReLU())
    size = DynamicSize(SizeRange("n", 1, 4), ((0, 0),))
    program, problem = captured_program._export_captured_program(scripted, (torch.ones(2, 2),), (size,))
    assert program is None
    assert problem is not None
    assert "has fixed sizes" in problem.cause
    program, problem = captured_program._export_captured_program(scripted, (torch.ones(2, 2),), ())
    assert (program is not None, problem) == (True, None)


def test_a_network_without_a_graph_counts_its_matrices() -> None:
    """Every parameter of two or more dimensions counts, whether it is used or not."""
    net = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Conv1d(2, 2, 3))
    captured = Captured(net, None, "", (), (), ())
    assert captured_program.captured_program_matrix_weights(captured) == 15 + 12


def test_a_weight_is_stored_as_one_element_of_its_kind() -> None:
    """A parameter stays one, with or without a gradient, and a buffer stays none; the type is kept."""
    one = captured_program._one_element_of_captured_program
    for weight in (nn.Parameter(torch.ones(3, 2).half()), nn.Parameter(torch.ones(3), requires_grad=False)):
        element = one(weight)
        assert isinstance(element, nn.Parameter)
        assert (element.shape, element.dtype) == ((1,), weight.dtype)
        assert element.requires_grad is weight.requires_grad
    buffer = one(torch.ones(3, dtype=torch.int8))
    assert type(buffer) is Tensor
    assert buffer.dtype == torch.int8
