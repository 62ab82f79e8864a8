"""A model becomes a graph with named outputs, and its float64 self the reference."""

from __future__ import annotations

import copy
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.capture import calls, captured_program
from exporter.capture.float64_reference import run_float64_reference
from exporter.capture.reference_floor import MAX_FLOOR
from exporter.errors import CaptureError
from exporter.records import Captured, Model, Sample, TensorSpec
from tests import nets

Pair = namedtuple("Pair", ["mask", "boxes"])


def model(module: nn.Module, *shapes: tuple[int, ...], names: tuple[str, ...] = ("x", "y")) -> Model:
    specs = tuple(TensorSpec(name, shape) for name, shape in zip(names, shapes, strict=False))
    return Model(module.eval(), "tests:net", specs, None, 0)


def example(*shapes: tuple[int, ...]) -> Sample:
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(shape).astype(np.float32) for shape in shapes)


class Returns(nn.Module):
    """A linear layer whose output is given in some container."""

    def __init__(self, arrange: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.arrange = arrange

    def forward(self, x: Tensor) -> Any:
        return self.arrange(self.layer(x))


NAMES: dict[str, tuple[Callable[[Tensor], Any], tuple[str, ...]]] = {
    "classes": (lambda y: y, ("logits",)),
    "one number": (lambda y: y[:, :1], ("output",)),
    "a vector": (lambda y: y[0], ("output",)),
    "tuple": (lambda y: (y, -y), ("output_0", "output_1")),
    "list": (lambda y: [y, -y], ("output_0", "output_1")),
    "dict": (lambda y: {"out": y, "aux": -y}, ("out", "aux")),
    "ordered": (lambda y: OrderedDict(out=y, aux=-y), ("out", "aux")),
    "named tuple": (lambda y: Pair(y, -y), ("mask", "boxes")),
    "nested": (lambda y: {"a": (y, [y + 1, y + 2]), "b": y * 2}, ("a_0", "a_1_0", "a_1_1", "b")),
    "None left out": (lambda y: (y, None), ("output_0",)),
    "an input's name": (lambda y: {"x": y}, ("x_out",)),
}


@pytest.mark.parametrize("case", NAMES)
def test_outputs_are_named(case: str) -> None:
    """Outputs are named by keys, fields or positions; a single one by its shape."""
    arrange, names = NAMES[case]
    captured = captured_program.capture_program(model(Returns(arrange), (1, 4)), example((1, 4)))
    assert tuple(spec.name for spec in captured.outputs) == names


def test_nested_outputs_come_out_flat_and_in_order() -> None:
    """The formats see a tuple of tensors, the program as well as the module."""
    net = Returns(NAMES["nested"][0])
    captured = captured_program.capture_program(model(net, (1, 4)), example((1, 4)))
    y = net.layer(captured.example[0])
    expected = (y, y + 1, y + 2, y * 2)
    assert captured.program is not None
    for outputs in (captured.module(*captured.example), captured.program.module()(*captured.example)):
        torch.testing.assert_close(tuple(outputs), expected)


def test_a_flat_model_is_not_wrapped() -> None:
    """A network that needs no wrapper keeps its own parameter names."""
    net = nets.trained("two_in_two_out")
    captured = captured_program.capture_program(
        model(net, (1, 32), (1, 32)), nets.samples("two_in_two_out", 0, 1)[0]
    )
    assert captured.module is net


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transposed_example_is_made_contiguous(channels: int) -> None:
    """The example's memory layout is baked into some programs, which then refuse every real input."""
    photo = (example((1, 4, 5, channels))[0].transpose(0, 3, 1, 2),)
    captured = captured_program.capture_program(model(nn.Conv2d(channels, 2, 1), (1, channels, 4, 5)), photo)
    assert captured.example[0].stride() == torch.empty(1, channels, 4, 5).stride()
    np.testing.assert_array_equal(captured.example[0].numpy(), photo[0])


def test_specs_come_from_the_example() -> None:
    """Shapes and dtypes are those that really ran."""
    captured = captured_program.capture_program(
        model(nets.trained("cnn"), (1, 1, 8, 8)), nets.samples("cnn", 0, 1)[0]
    )
    assert captured.inputs == (TensorSpec("x", (1, 1, 8, 8), "float32"),)
    assert captured.outputs == (TensorSpec("logits", (1, 10), "float32"),)


def test_a_shape_the_model_does_not_take_is_named() -> None:
    """One message with every input's name, shape and dtype, and torch's words."""
    with pytest.raises(CaptureError) as caught:
        captured_program.capture_program(
            model(nets.trained("two_in_two_out"), (1, 32), (1, 30)), example((1, 32), (1, 30))
        )
    assert "x [1, 32] float32, y [1, 30] float32" in caught.value.message
    assert "mat1 and mat2" in caught.value.message
    assert "--input-shape" in caught.value.hint


@pytest.mark.parametrize("arrange", [lambda y: "text", lambda y: 3.0, lambda y: (), lambda y: (y, 1)])
def test_outputs_that_are_no_tensors_are_refused(arrange: Callable[[Tensor], Any]) -> None:
    """Outputs that are not tensors are refused, because nothing can be compared."""
    with pytest.raises(CaptureError, match="expected tensors"):
        captured_program.capture_program(model(Returns(arrange), (1, 4)), example((1, 4)))


class DependsOnData(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x * 2
        return x - 1


def test_control_flow_leaves_no_graph_but_says_where() -> None:
    """A network without a graph keeps torch's words, so that formats that need the graph can repeat them."""
    captured = captured_program.capture_program(model(DependsOnData(), (1, 4)), example((1, 4)))
    assert captured.program is None
    assert captured.program_error.startswith("torch.export: ")
    assert "test_captured_program.py:" in (captured.program_source or "")
    assert captured_program.captured_program_digest(captured) == ""


def reference_of(name: str) -> tuple[Any, tuple[str, ...], tuple[Sample, ...]]:
    samples = nets.samples(name, 1400, 6)
    zeros = {"zeros": tuple(np.zeros_like(a) for a in samples[0])}
    references, notes = run_float64_reference(nets.captured(name), samples, zeros)
    return references, notes, samples


@pytest.mark.slow
@pytest.mark.parametrize("name", nets.NETS)
def test_the_reference_is_float64(name: str) -> None:
    """The reference equals the same network doubled by hand, on real and edge inputs."""
    references, notes, samples = reference_of(name)
    double = copy.deepcopy(nets.trained(name)).double()
    for index, sample in enumerate(samples):
        with torch.no_grad():
            outputs = double(*(torch.from_numpy(a).double() for a in sample))
        for expected, array in zip(
            outputs if isinstance(outputs, tuple) else (outputs,), references.reference, strict=True
        ):
            assert array.dtype == np.float64
            np.testing.assert_array_equal(array[index], expected.numpy())
    assert (references.reference_dtype, notes) == ("float64", ())
    assert [a.dtype for a in references.inputs] == [a.dtype for a in samples[0]]


def test_the_floor_is_eager_float32s_own_error() -> None:
    """The floor is about 1e-7: neither zero nor the error that an artifact may have."""
    references, _, _ = reference_of("cnn")
    assert 1e-9 < references.floor < 1e-6
    assert 0 < references.edge_floor < 1e-5


def test_making_the_reference_leaves_the_module_alone() -> None:
    """The reference doubles a copy: the exported network stays float32."""
    reference_of("cnn")
    assert {p.dtype for p in nets.captured("cnn").module.parameters()} == {torch.float32}


class InsistsOnFloat32(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.float())  # type: ignore[no-any-return]


class ReturnsFloat32(InsistsOnFloat32):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).float()  # type: ignore[no-any-return]


class HoldsFloat32(InsistsOnFloat32):
    """A tensor that is no buffer stays float32 when the network is widened; it keeps a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.mixed = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x) @ self.mixed
        return y + torch.arange(3, dtype=torch.float32)


@pytest.mark.parametrize("net", [InsistsOnFloat32(), ReturnsFloat32(), HoldsFloat32()])
def test_a_cast_to_float32_does_not_narrow_the_reference(net: nn.Module) -> None:
    """Casts, constants and types that insist on float32 are widened, so that float32's error is measured."""
    inputs = [example((1, 4))]
    captured = captured_program.capture_program(model(net, (1, 4)), inputs[0])
    references, notes = run_float64_reference(captured, inputs, {"zeros": (np.zeros((1, 4), np.float32),)})
    assert (references.reference_dtype, notes) == ("float64", ())
    assert references.reference[0].dtype == np.float64
    with torch.no_grad():
        actual = net(torch.from_numpy(inputs[0][0])).numpy()
    assert 0 < np.abs(references.reference[0][0] - actual).max() < 1e-6
    assert references.floor > 0


class RefusesFloat64(InsistsOnFloat32):
    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float64:
            raise TypeError("float32 expected")
        return self.layer(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("net", [RefusesFloat64()])
def test_a_model_that_refuses_float64_is_judged_by_float32_and_says_so(net: nn.Module) -> None:
    """A reference that only looks like float64 hides its own rounding, which is measured by rounding anew."""
    inputs = [example((1, 4))]
    captured = captured_program.capture_program(model(net, (1, 4)), inputs[0])
    references, notes = run_float64_reference(captured, inputs, {"zeros": (np.zeros((1, 4), np.float32),)})
    assert references.reference_dtype == "float32"
    assert 1e-9 < references.floor < 1e-6
    assert references.eager_errors[0].max() > 0
    assert "not float64" in notes[0]
    with torch.no_grad():
        np.testing.assert_array_equal(references.reference[0][0], net(torch.from_numpy(inputs[0][0])).numpy())


class DividesByZero(nn.Module):
    """A network that gives NaN where its first input is negative."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        positive = (x[:, :1] > 0).float()
        return self.layer(x) * positive / positive  # type: ignore[no-any-return]


def test_a_model_that_gives_nan_on_some_samples_has_a_floor() -> None:
    """The model's error cannot be said; the evidence is whole, so that its gate can refuse it."""
    inputs = [(np.array([[sign, 1, 2, 3]], np.float32),) for sign in (1, -1)]
    captured = captured_program.capture_program(model(DividesByZero(), (1, 4)), inputs[0])
    references, notes = run_float64_reference(captured, inputs, {})
    assert not np.isfinite(references.reference[0]).all()
    assert references.floor == MAX_FLOOR
    assert not any("nan" in note for note in notes)


def outputs_of(captured: Captured) -> tuple[np.ndarray, ...]:
    return calls.call_runner(captured.module)(tuple(t.numpy() for t in captured.example))


def test_a_module_and_its_graph_survive_save_and_load(tmp_path: Path) -> None:
    """A captured model that another worker process reads has the same outputs and digest."""
    before = nets.captured("attention")
    captured_program.save_captured_program(before, tmp_path)
    after = captured_program.load_captured_program(tmp_path)
    assert (after.inputs, after.outputs) == (before.inputs, before.outputs)
    assert after.program is not None
    assert captured_program.captured_program_digest(after) == captured_program.captured_program_digest(before)
    for actual, expected in zip(outputs_of(after), outputs_of(before), strict=True):
        np.testing.assert_array_equal(actual, expected)


class Forgetful(nn.Module):
    """A network that can be pickled, but not unpickled in another process."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)  # type: ignore[no-any-return]

    def __setstate__(self, state: dict[str, object]) -> None:
        raise ImportError("no module named nets")


def test_a_module_that_cannot_be_read_again_comes_from_its_graph(tmp_path: Path) -> None:
    """The graph has all that the builders need."""
    before = captured_program.capture_program(model(Forgetful(), (1, 4)), (np.ones((1, 4), np.float32),))
    captured_program.save_captured_program(before, tmp_path)
    after = captured_program.load_captured_program(tmp_path)
    for actual, expected in zip(outputs_of(after), outputs_of(before), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_a_scripted_module_survives_save_and_load(tmp_path: Path) -> None:
    """TorchScript archives have a format of their own; control flow included."""
    scripted = torch.jit.script(DependsOnData())
    before = captured_program.capture_program(model(scripted, (1, 4)), example((1, 4)))
    captured_program.save_captured_program(before, tmp_path)
    after = captured_program.load_captured_program(tmp_path)
    assert isinstance(after.module, torch.jit.ScriptModule)
    for sign in (1, -1):
        x = torch.full((1, 4), float(sign))
        torch.testing.assert_close(after.module(x), DependsOnData()(x))


def test_a_scripted_modules_reference_is_float64_too() -> None:
    """A TorchScript model cannot be deep-copied, but it can be doubled."""
    scripted = torch.jit.trace(  # type: ignore[no-untyped-call]
        nets.trained("cnn"), nets.captured("cnn").example
    )
    samples = nets.samples("cnn", 1400, 2)
    captured = replace(nets.captured("cnn"), module=scripted)
    references, _ = run_float64_reference(captured, samples, {})
    assert references.reference_dtype == "float64"
    assert {p.dtype for p in scripted.parameters()} == {torch.float32}


def local_net() -> nn.Module:
    class Local(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if x.sum() > 0 else x

    return Local()


def test_a_net_that_can_be_neither_pickled_nor_exported_says_what_to_do(tmp_path: Path) -> None:
    """The refusal of a network that can be neither pickled nor exported says where to define its class."""
    captured = captured_program.capture_program(model(local_net(), (1, 4)), example((1, 4)))
    captured_program.save_captured_program(captured, tmp_path)
    with pytest.raises(CaptureError, match="top of a module"):
        captured_program.load_captured_program(tmp_path)


def digest_of(net: nn.Module) -> str:
    return captured_program.captured_program_digest(
        captured_program.capture_program(model(net, (1, 1, 8, 8)), nets.samples("cnn", 0, 1)[0])
    )


def test_the_digest_is_the_same_for_the_same_network() -> None:
    """The digest of a network that is captured again is the same."""
    assert digest_of(nets.trained("cnn")) == digest_of(copy.deepcopy(nets.trained("cnn")))


def test_one_weights_last_bit_changes_the_digest() -> None:
    """The digest depends on content, not on names and shapes."""
    changed = copy.deepcopy(nets.trained("cnn"))
    weight = changed.get_parameter("head.weight")
    with torch.no_grad():
        weight[3, 5] = torch.nextafter(weight[3, 5], torch.tensor(torch.inf))
    assert digest_of(changed) != digest_of(nets.trained("cnn"))


def test_a_buffers_value_changes_the_digest() -> None:
    """Batch norm's statistics change the digest, as weights do."""
    changed = copy.deepcopy(nets.trained("cnn"))
    changed.get_buffer("stem.1.running_mean")[0] += 1e-3
    assert digest_of(changed) != digest_of(nets.trained("cnn"))


class Scaled(nn.Module):
    """A number in the graph, or a tensor that is not a buffer, changes the digest."""

    def __init__(self, factor: Any) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor  # type: ignore[no-any-return]


@pytest.mark.parametrize("make", [float, torch.tensor], ids=["number", "constant tensor"])
def test_another_graph_changes_the_digest(make: Callable[[float], Any]) -> None:
    """Another computation with the same weights changes the digest."""
    assert digest_of(Scaled(make(2.0))) != digest_of(Scaled(make(2.5)))


def test_only_used_matrices_count_as_weights() -> None:
    """An auxiliary head that the graph drops is not missing from an artifact; biases are not matrices."""
    net = nets.trained("cnn")
    expected = sum(p.numel() for p in net.parameters() if p.dim() > 1)
    assert captured_program.captured_program_matrix_weights(nets.captured("cnn")) == expected
    spare = copy.deepcopy(net)
    spare.add_module("auxiliary", nn.Linear(50, 50))
    captured = captured_program.capture_program(model(spare, (1, 1, 8, 8)), nets.samples("cnn", 0, 1)[0])
    assert captured_program.captured_program_matrix_weights(captured) == expected


def test_a_parameter_that_is_only_added_is_no_matrix() -> None:
    """A position embedding is neither multiplied with nor looked up: readers of artifacts ignore it."""
    named = nets.trained("attention").named_parameters()
    expected = sum(p.numel() for name, p in named if p.dim() > 1 and name != "position")
    assert captured_program.captured_program_matrix_weights(nets.captured("attention")) == expected
