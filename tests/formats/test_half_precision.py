"""Half-precision artifacts keep float32 by the rules, and a network that needs them is exact."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes import common
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import Tensor, nn

import exporter.formats.coreml as coreml
import exporter.formats.onnx as onnx_format
from exporter import export
from exporter.formats import half_precision
from exporter.formats.coreml.coreml_compress import (
    coreml_operations_to_compress,
    load_coreml_program_to_compress,
)
from exporter.formats.coreml.coreml_convert import convert_to_coreml
from exporter.formats.onnx.onnx_export import translate_fp32_to_onnx
from exporter.formats.onnx.onnx_float16 import onnx_float16_model
from exporter.formats.onnx.onnx_streamed import streamed_onnx
from exporter.records import Array, Captured, TensorSpec
from exporter.verify.compare_outputs import compare_agreement, compare_sqnr_db
from tests import exports, nets
from tests.onnx_bytes import streamed_bytes, whole_onnx

Node = half_precision.HalfNode


def inside(*nodes: Node, external: tuple[str, ...] = ()) -> str:
    """Return the operators that stay in float32, in order."""
    return " ".join(
        nodes[i].operator for i in sorted(half_precision.nodes_not_in_half_precision(nodes, external))
    )


def chain(*operators: str) -> list[Node]:
    """Make nodes, each of which reads the output of the node before."""
    return [Node(op, (f"v{i}",), (f"v{i + 1}",)) for i, op in enumerate(operators)]


def test_a_norm_that_was_written_out_is_one_group() -> None:
    """The square, the mean, the root and both products around them stay in float32, not the layers around."""
    operators = inside(
        Node("MatMul", ("in",), ("x",), weights=True),
        Node("Square", ("x",), ("squares",)),
        Node("ReduceMean", ("squares",), ("mean",)),
        Node("Add", ("mean",), ("variance",)),
        Node("Sqrt", ("variance",), ("deviation",)),
        Node("Div", ("x", "deviation"), ("normal",)),
        Node("Relu", ("normal",), ("relu",)),
        Node("MatMul", ("relu",), ("out",), weights=True),
    )
    assert operators == "Square ReduceMean Add Sqrt Div"


def test_shapes_between_do_not_part_a_group() -> None:
    """Reshape and Transpose between the square and the mean stay in float32 with them."""
    assert inside(*chain("Conv", "Square", "Reshape", "Transpose", "ReduceSum", "Conv")) == (
        "Square Reshape Transpose ReduceSum"
    )


def test_what_is_read_elsewhere_too_stays_half() -> None:
    """A residual sum that a layer reads as well as the norm does not join the norm."""
    nodes = [
        Node("Add", ("a", "b"), ("x",)),
        Node("LayerNormalization", ("x",), ("n",)),
        Node("MatMul", ("x",), ("y",)),
    ]
    assert inside(*nodes) == "LayerNormalization"
    assert inside(*nodes[:2]) == "Add LayerNormalization"
    assert inside(*nodes[:2], external=("x",)) == "LayerNormalization"


def test_cheap_operators_between_two_norms_join() -> None:
    """A sum that a layer reads too joins where that saves casts: one in and one out."""
    layer = Node("MatMul", ("v2",), ("y",))
    assert inside(*chain("LayerNormalization", "Add", "LayerNormalization"), layer) == (
        "LayerNormalization Add LayerNormalization"
    )
    assert inside(*chain("LayerNormalization", "Conv", "LayerNormalization")) == (
        "LayerNormalization LayerNormalization"
    )


def test_large_values_are_followed_until_they_are_bounded() -> None:
    """The tanh form of GELU stays in float32 from the cube to the tanh that ends it."""
    assert inside(*chain("Pow", "Mul", "Add", "Tanh", "Add", "MatMul")) == "Pow Mul Add Tanh"


def test_weights_stay_half() -> None:
    """A position embedding that only a norm reads is not brought into float32; a value per channel is."""
    embedding, norm = Node("Add", ("x",), ("y",), weights=True), Node("layer_norm", ("y",), ("z",))
    assert inside(embedding, norm) == "layer_norm"
    assert [
        half_precision.is_half_precision_matrix(shape) for shape in ((1, 8, 32), (1, 32, 1, 1), (32,), ())
    ] == [True] + 3 * [False]


def test_every_name_of_the_table_is_an_operator() -> None:
    """Every name of the table is an operator of ONNX or Core ML, or Square, a product with itself."""
    import coremltools  # noqa: F401 - registers them
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    operators = {schema.name for schema in onnx.defs.get_all_schemas()} | {"Square"}
    operators |= set(SSAOpRegistry.core_ops)
    assert [name for name in half_precision.FLOAT32 if name not in operators] == []


def float16_bytes(model: onnx_ir.Model) -> bytes:
    """Return the file that a float32 model becomes."""
    return streamed_bytes(onnx_float16_model(streamed_onnx(model))[0])


@functools.cache
def loud() -> tuple[bytes, bytes, Array]:
    """Convert the loud network to plain float16 and to ours; get float64 outputs on 32 held-out digits."""
    net = nets.captured("loud")
    whole = whole_onnx(translate_fp32_to_onnx(net))
    plain = convert_float_to_float16(onnx.load_model_from_string(whole), keep_io_types=True)
    sorted_plain = onnx_ir.from_proto(plain)
    common.TopologicalSortPass()(sorted_plain)
    with torch.no_grad():
        rows = torch.from_numpy(np.concatenate([s[0] for s in nets.samples("loud", 1400, 32)]))
        exact = net.module.double()(rows.double()).numpy()
    net.module.float()
    return (
        onnx_ir.to_proto(sorted_plain).SerializeToString(),
        float16_bytes(translate_fp32_to_onnx(net)),
        exact[:, None],
    )


def quality(actual: list[Array]) -> tuple[float, float]:
    stacked, exact = np.stack(actual), loud()[2]
    shares = compare_agreement(exact, stacked)
    assert shares is not None
    return compare_sqnr_db(exact, stacked), float(shares.mean())


def in_onnxruntime(model: bytes) -> tuple[float, float]:
    run = onnx_format._onnx_runner(onnx_format._onnx_session(model, 1))
    return quality([run(sample)[0] for sample in nets.samples("loud", 1400, 32)])


def in_true_half(model: bytes) -> tuple[float, float]:
    """ONNX's own evaluator rounds every value to its type, as a phone's half-precision kernels do."""
    evaluator = ReferenceEvaluator(onnx.load_model_from_string(model))
    with np.errstate(over="ignore", invalid="ignore"):
        outputs = [
            cast("list[Array]", evaluator.run(None, {"rows": sample[0]}))
            for sample in nets.samples("loud", 1400, 32)
        ]
    return quality([output[0] for output in outputs])


def test_plain_float16_loses_the_loud_network() -> None:
    """Plain float16 fails in both runtimes: squares overflow, and every digit gives the same answer."""
    for measure in (in_onnxruntime, in_true_half):
        decibels, share = measure(loud()[0])
        assert decibels < 1
        assert share < 0.5


def test_ours_keeps_the_loud_network() -> None:
    """Our float16 is 60 dB from float64 in both runtimes."""
    assert min(in_onnxruntime(loud()[1])[0], in_true_half(loud()[1])[0]) > 60


def test_a_group_is_cast_once_on_each_side() -> None:
    """The loud network's ten float32 operators cost one cast before and one after; the model's ends, two."""
    model = onnx.load_model_from_string(loud()[1])
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    assert len(casts) == 4
    types = {
        v.name: v.type.tensor_type.elem_type
        for v in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    stay = ("ReduceMean", "Sqrt", "Reciprocal", "Transpose", "Unsqueeze")
    output_types = {types[node.output[0]] for node in model.graph.node if node.op_type in stay}
    assert output_types == {onnx.TensorProto.FLOAT}


def test_constants_of_float32_operators_are_not_rounded() -> None:
    """An epsilon of 1e-8 stays one in float32, although a float16 operator reads it too, as 6e-8."""
    value, floats = helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("Mul", ["x", "epsilon"], ["scaled"]),
        helper.make_node("Relu", ["scaled"], ["half"]),
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Add", ["sum", "epsilon"], ["whole"]),
    ]
    outputs = [value("half", floats, [1, 4]), value("whole", floats, [])]
    constants = [helper.make_tensor("epsilon", floats, [], [1e-8])]
    graph = helper.make_graph(nodes, "g", [value("x", floats, [1, 4])], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    run = onnx_format._onnx_runner(onnx_format._onnx_session(float16_bytes(onnx_ir.from_proto(model)), 1))
    assert run((np.zeros((1, 4), np.float32),))[1] == np.float32(1e-8)


@pytest.mark.slow
def test_the_pipeline_passes_the_loud_network(tmp_path: Path) -> None:
    """`export` makes it in half precision within the fp16 limits, and says what stayed in float32."""
    out = tmp_path / "out"
    formats = ("onnx-fp16",)
    report = export(
        exports.checkpoint("loud"),
        "snapdragon865",
        out=out,
        cache=False,
        formats=formats,
        **exports.options("loud"),
    )
    (artifact,) = report.artifacts
    assert artifact.status == "passed", artifact.reason
    assert "compute in float32: Add, Mul, Reciprocal, ReduceMean" in artifact.notes[0]
    assert artifact.structure is not None
    assert set(artifact.structure.weight_elements) == {"float16"}


class Unfolded(nn.Module):
    """A batch norm that nothing can absorb, between a product and a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 8)
        self.norm.running_var = torch.full((8,), 1e6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.head(self.norm(x.relu())), -1)


@functools.cache
def unfolded() -> Captured:
    net, example = Unfolded().eval(), (torch.ones(1, 8),)
    specs = (TensorSpec("x", (1, 8)),), (TensorSpec("y", (1, 8)),)
    return Captured(net, torch.export.export(net, example), "", example, *specs)


def test_core_ml_keeps_the_same_in_float32() -> None:
    """The converted program computes norm and softmax in float32, and the linear layer in float16."""
    assert core_ml_types(unfolded()) == {
        "batch_norm": "fp32",
        "relu": "fp16",
        "linear": "fp16",
        "softmax": "fp32",
        "expand_dims": "fp32",
        "squeeze": "fp16",
    }


def test_core_ml_keeps_the_loud_networks_norm_in_float32() -> None:
    """A norm has no cast inside: product, mean, root and product give float32, the layers around float16."""
    types = core_ml_types(nets.captured("loud"))
    assert {types[op] for op in ("reduce_mean", "rsqrt", "add", "mul")} == {"fp32"}
    assert types["linear"] == "fp16"
    casts = [
        op
        for op in coreml_operations_to_compress(
            load_coreml_program_to_compress(convert_to_coreml(nets.captured("loud"))[0])
        )
        if op.op_type == "cast"
    ]
    assert len(casts) == 4


def core_ml_types(captured: Captured) -> dict[str, str]:
    """Return operator -> the widest type that it computes in, in the converted program."""
    from coremltools.converters.mil.mil.types import builtin_to_string

    widest: dict[str, str] = {}
    for op in coreml_operations_to_compress(load_coreml_program_to_compress(convert_to_coreml(captured)[0])):
        if op.op_type not in {"const", "cast"}:
            kind = builtin_to_string(op.outputs[0].dtype)
            widest[op.op_type] = max(kind, widest.get(op.op_type, ""), key=lambda k: k == "fp32")
    return widest


def test_core_ml_stores_its_weights_in_float16(tmp_path: Path) -> None:
    """The operators in float32 have hardly any weights."""
    variant = next(v for v in coreml.VARIANTS if v.precision == "fp16")
    emission = coreml.emit(nets.captured("loud"), variant, tmp_path)
    assert set(coreml.structure(emission.path, variant).weight_elements) == {"float16"}
