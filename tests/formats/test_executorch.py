"""ExecuTorch files run like the model, and their readers report true figures."""

from __future__ import annotations

import copy
import dataclasses
import random
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import exporter.formats.executorch as executorch
from exporter.errors import CannotRunHere, LoweringError
from exporter.formats.executorch.operator_work import operator_work
from exporter.formats.executorch.parameter_names import with_usable_parameter_names
from exporter.quantize.int8_recipe import int8_recipe_runner
from exporter.records import Array, Captured, Emission, Sample, Variant
from tests.nets import NETS, captured, captured_for, quantized, samples, trained

VARIANTS: dict[str, Variant] = {v.precision: v for v in executorch.VARIANTS if v.precision != "mixed"}
MACS = {
    # 64 pixels; stem 16 * 9, depthwise 16 * 9, pointwise 16 * 16; head 16 * 10.
    "cnn": 64 * (144 + 144 + 256) + 160,
    "two_in_two_out": 2 * 32 * 24 + 48 * 12,
    # 8 rows; embed, qkv, out; the two products of attention; head.
    "attention": 8 * (8 * 32 + 32 * 96 + 32 * 32) + 2 * 8 * 8 * 32 + 32 * 10,
}
Emitted: TypeAlias = "dict[tuple[str, str], Emission]"


@pytest.fixture(scope="module")
def emitted(tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    """Lower every variant of every small network once."""
    return {
        (net, precision): executorch.emit(
            captured_for(net, variant), variant, tmp_path_factory.mktemp(f"{net}-{precision}")
        )
        for net in NETS
        for precision, variant in VARIANTS.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("precision", VARIANTS)
def test_bytes_are_reproducible(emitted: Emitted, precision: str, tmp_path: Path) -> None:
    """A second lowering writes the same bytes: no dates, no random ids."""
    again = executorch.emit(captured_for("cnn", VARIANTS[precision]), VARIANTS[precision], tmp_path)
    assert again.path.read_bytes() == emitted["cnn", precision].path.read_bytes()


def _float64(net: str, sample: Sample) -> tuple[Array, ...]:
    module = copy.deepcopy(trained(net)).double()
    with torch.no_grad():
        outputs = module(*(torch.from_numpy(array).double() for array in sample))
    return tuple(o.numpy() for o in (outputs if isinstance(outputs, tuple) else (outputs,)))


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
def test_float_files_run_like_the_model(emitted: Emitted, net: str) -> None:
    """Every output of the file in ExecuTorch's runtime is within 1e-5 of scale of float64 eager."""
    run, runtime = executorch.load(emitted[net, "fp32"].path, VARIANTS["fp32"], threads=1)
    assert runtime == "executorch 1.4.1"
    for sample in samples(net, 1400, 8):
        for actual, expected in zip(run(sample), _float64(net, sample), strict=True):
            assert actual.dtype == np.float32
            assert actual.shape == expected.shape
            assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
def test_int8_files_run_like_their_quantized_program(emitted: Emitted, net: str) -> None:
    """Lowering keeps every value, but for rounding ties behind the operators that stay float kernels."""
    emission = emitted[net, "int8"]
    run, _ = executorch.load(emission.path, VARIANTS["int8"], threads=1)
    program = int8_recipe_runner(quantized(net).module)
    pairs = [
        (actual, expected)
        for sample in samples(net, 1400, 16)
        for actual, expected in zip(run(sample), program(sample), strict=True)
    ]
    noise = sum(float(((a - e) ** 2).sum()) for a, e in pairs) / sum(float((e**2).sum()) for _, e in pairs)
    assert noise <= (1e-12 if net == "two_in_two_out" else 1e-4)


@pytest.mark.slow
def test_outputs_survive_the_next_call(emitted: Emitted) -> None:
    """Outputs are copies, not views of the runtime's arena."""
    run, _ = executorch.load(emitted["cnn", "fp32"].path, VARIANTS["fp32"], threads=1)
    first, second = samples("cnn", 1400, 2)
    first_output = run(first)[0]
    before = first_output.copy()
    assert not np.array_equal(run(second)[0], before)
    assert np.array_equal(first_output, before)


@pytest.mark.slow
def test_transposed_inputs_give_the_same_outputs(emitted: Emitted) -> None:
    """An array that went through numpy's transpose is made contiguous before the runtime reads it."""
    run, _ = executorch.load(emitted["cnn", "fp32"].path, VARIANTS["fp32"], threads=1)
    (image,) = samples("cnn", 1400, 1)[0]
    transposed = np.asfortranarray(image)
    assert not transposed.flags.c_contiguous
    assert np.array_equal(run((transposed,))[0], run((image,))[0])


def test_transposed_examples_are_refused(tmp_path: Path) -> None:
    """A transposed example, of which ExecuTorch would make a file that fails for every input, is refused."""
    example = (torch.from_numpy(samples("cnn", 0, 1)[0][0]).to(memory_format=torch.channels_last),)
    assert example[0].is_contiguous()
    net = dataclasses.replace(captured("cnn"), program=torch.export.export(trained("cnn"), example))
    with pytest.raises(LoweringError, match="contiguous"):
        executorch.emit(net, VARIANTS["fp32"], tmp_path)


@pytest.mark.slow
def test_vulkan_says_why_it_cannot_run_here(emitted: Emitted) -> None:
    """A Vulkan artifact is not run, because the Python runtime has no Vulkan, and the reason says so."""
    with pytest.raises(CannotRunHere, match="VulkanBackend"):
        executorch.load(emitted["cnn", "fp16"].path, VARIANTS["fp16"], threads=1)


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(("precision", "dtype"), [("fp32", "float32"), ("int8", "int8"), ("fp16", "float16")])
def test_structure_counts_weights_in_their_stored_type(
    emitted: Emitted, net: str, precision: str, dtype: str
) -> None:
    """Every matrix and filter of the model is found in the file, in the type that the precision promises."""
    structure = executorch.structure(emitted[net, precision].path, VARIANTS[precision])
    stored = _fused_weights(net)
    assert dict(structure.weight_elements) == {dtype: stored}
    assert structure.quantized_weight_fraction == (1.0 if precision == "int8" else 0.0)
    assert structure.weight_bytes >= stored * {"fp32": 4, "fp16": 2, "int8": 1}[precision]


def _fused_weights(net: str) -> int:
    """Count the elements with two or more dimensions, except the position embedding, which is only added."""
    named = trained(net).named_parameters()
    return sum(p.numel() for name, p in named if p.dim() >= 2 and name != "position")


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("precision", VARIANTS)
def test_structure_tells_signature_operators_and_delegation(
    emitted: Emitted, net: str, precision: str
) -> None:
    """The file has the captured shapes, and all multiplications inside the delegate, by name."""
    structure = executorch.structure(emitted[net, precision].path, VARIANTS[precision])
    model = captured(net)
    assert [(s.shape, s.dtype) for s in structure.inputs] == [(s.shape, s.dtype) for s in model.inputs]
    assert [(s.shape, s.dtype) for s in structure.outputs] == [(s.shape, s.dtype) for s in model.outputs]
    assert structure.delegated_fraction == 1.0
    linear = "aten.linear.default" if precision == "fp16" else "XNNFullyConnected"
    assert structure.operators[linear] == {"cnn": 1, "two_in_two_out": 4, "attention": 4}[net]


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
def test_undelegated_work_is_counted(tmp_path: Path, net: str) -> None:
    """A file for no backend does exactly the model's multiplications in kernels, all undelegated."""
    from executorch.exir import to_edge

    from exporter.formats.executorch import pte

    program = captured(net).program
    assert program is not None
    path = tmp_path / "portable.pte"
    path.write_bytes(to_edge(program).to_executorch().buffer)
    structure = pte.read_pte(path, VARIANTS["fp32"])
    assert structure.delegated_fraction == 0.0
    assert _kernel_macs(path) == MACS[net]
    assert dict(structure.weight_elements) == {"float32": _fused_weights(net)}


def _kernel_macs(path: Path) -> int:
    from exporter.formats.executorch import pte

    plan = pte.read_pte_program(path.read_bytes()).program.execution_plan[0]
    return sum(work.macs for _, work in pte._pte_kernels(plan) if work)


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("precision", VARIANTS)
def test_delegated_work_is_the_models(emitted: Emitted, net: str, precision: str) -> None:
    """The multiplications read from a delegate's own graph are the model's, by hand."""
    from exporter.formats.executorch import pte

    program = pte.read_pte_program(emitted[net, precision].path.read_bytes()).program
    graphs = pte._pte_delegate_graphs(program.execution_plan[0], program)
    assert sum(graph.work.macs for graph in graphs) == MACS[net]


@pytest.mark.parametrize(
    ("name", "tensors", "transposed", "macs"),
    [
        ("aten::convolution", [(1, 3, 8, 8), (16, 3, 3, 3), (1, 16, 4, 4)], False, 16 * 16 * 27),
        ("aten::convolution", [(1, 4, 8), (4, 1, 3), (1, 4, 8)], False, 8 * 12),
        ("aten::convolution", [(1, 3, 4, 4), (3, 8, 2, 2), (1, 8, 8, 8)], True, 16 * 96),
        ("aten.linear.default", [(2, 5), (7, 5), (7,), (2, 7)], False, 70),
        ("aten::addmm", [(7,), (2, 5), (5, 7), (2, 7)], False, 70),
        ("aten::bmm", [(3, 2, 5), (3, 5, 7), (3, 2, 7)], False, 210),
        ("aten::add", [(3, 2), (3, 2), (3, 2)], False, 0),
        ("prim::nothing", [], False, 0),
    ],
)
def test_operators_multiply_accumulates(
    name: str, tensors: list[tuple[int, ...]], transposed: bool, macs: int
) -> None:
    """Each kind of operator costs what its formula gives by hand."""
    assert operator_work(name, tensors, transposed).macs == macs


@pytest.mark.slow
@pytest.mark.parametrize("precision", VARIANTS)
def test_damaged_files_are_refused(emitted: Emitted, tmp_path: Path, precision: str) -> None:
    """The reader and the runtime refuse a file that is cut anywhere, and neither crashes."""
    data = emitted["cnn", precision].path.read_bytes()
    for share in (0.0, 0.001, 0.1, 0.5, 0.9, 0.99):
        damaged = tmp_path / "damaged.pte"
        damaged.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(LoweringError, match=r"damaged\.pte"):
            executorch.structure(damaged, VARIANTS[precision])
        if precision != "fp16":
            with pytest.raises(LoweringError):
                executorch.load(damaged, VARIANTS[precision], threads=1)


def test_random_bytes_are_refused(tmp_path: Path) -> None:
    """Noise, with and without the right identifier, is not an ExecuTorch program."""
    noise = random.Random(0)
    path = tmp_path / "noise.pte"
    for identifier in (b"", b"ET12", b"ET12eh00"):
        for _ in range(20):
            path.write_bytes(noise.randbytes(4) + identifier + noise.randbytes(3000))
            with pytest.raises(LoweringError, match=r"noise\.pte"):
                executorch.structure(path, VARIANTS["fp32"])


def test_parameters_keep_names_that_the_compiler_can_use() -> None:
    """The user's names stay in the file, except those that cannot become identifiers."""
    program = captured("cnn").program
    assert program is not None
    assert with_usable_parameter_names(program) is program
    numbered = captured("numbered").program
    assert numbered is not None
    before = set(numbered.state_dict)
    names = set(with_usable_parameter_names(numbered).graph_signature.parameters)
    assert names == {"p_" + name.replace(".", "_") for name in numbered.graph_signature.parameters}
    assert names <= set(with_usable_parameter_names(numbered).state_dict)
    assert set(numbered.state_dict) == before


def test_networks_without_a_program_say_why(tmp_path: Path) -> None:
    """The cause is the message of torch.export."""
    without = dataclasses.replace(captured("cnn"), program=None, program_error="branches on data at net.py:3")
    with pytest.raises(LoweringError, match=r"branches on data at net\.py:3"):
        executorch.emit(without, VARIANTS["fp32"], tmp_path)


class Decomposing(nn.Module):
    def forward(self, matrix: Tensor) -> Tensor:
        values: Tensor = torch.linalg.svd(matrix)[1]
        return values


@pytest.mark.slow
def test_unsupported_operators_name_the_users_line(tmp_path: Path) -> None:
    """ExecuTorch names an operator only; the report says which line of the model used it."""
    example = (torch.eye(3),)
    model = Captured(Decomposing(), torch.export.export(Decomposing(), example), "", example, (), ())
    with pytest.raises(LoweringError, match="svd") as raised:
        executorch.emit(model, VARIANTS["fp32"], tmp_path)
    assert raised.value.source == f"{__file__}:{Decomposing.forward.__code__.co_firstlineno + 1}"
    assert not list(tmp_path.iterdir())
