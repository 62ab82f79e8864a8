"""Tests of dividing an estimate over the operators of a graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exporter.estimate import operator_split
from exporter.estimate.graph_work import work_of_graph
from exporter.estimate.operator_split import GraphOperator
from exporter.records import EstimatedLatency
from exporter.report import html, text
from tests.report import sample

SHARES = {
    "arithmetic": 0.5,
    "loads": 0.1,
    "other instructions": 0.25,
    "starting threads": 0.1,
    "the call itself": 0.05,
}


def estimate(**shares: float) -> EstimatedLatency:
    return EstimatedLatency(4, 20.0, 10.0, 40.0, 0.9, "counts", shares or SHARES)


def graph(path: Path) -> Path:
    """Write a convolution, its activation, a product of two values, and a linear layer."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(np.zeros(shape, np.float32), name)

    def value(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes = [
        helper.make_node("Conv", ["x", "stem.0.weight", "stem.0.bias"], ["c"], group=2),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MatMul", ["r", "r"], ["m"]),
        helper.make_node("Gemm", ["m", "head.weight"], ["y"], transB=1),
    ]
    written = helper.make_graph(
        nodes, "net", [value("x", 1, 4, 10, 10)], [value("y", 8, 5)],
        [weight("stem.0.weight", 6, 2, 3, 3), weight("stem.0.bias", 6), weight("head.weight", 5, 8)],
        value_info=[value("c", 1, 6, 8, 8), value("r", 1, 6, 8, 8), value("m", 1, 6, 8, 8)],
    )  # fmt: skip
    onnx.save(helper.make_model(written), path)
    return path


def test_a_graphs_operators_have_their_sizes(tmp_path: Path) -> None:
    """Multiply-accumulates, values and weights follow from the shapes, in groups and transposed ones too."""
    conv, relu, product, linear = operator_split.operators_to_split(graph(tmp_path / "net.onnx"))
    sizes = (6 * 8 * 8 * 2 * 9, 4 * 100 + 6 * 64, 6 * 2 * 9 + 6)
    assert conv == GraphOperator("stem.0", "Conv", *sizes, patches=8 * 8 * 4 * 9)
    assert conv.touched == (("x", 400), ("stem.0.weight", 108), ("stem.0.bias", 6), ("c", 384))
    assert not conv.depthwise  # each of its two groups has two input channels
    assert relu == GraphOperator("stem.0", "Relu", 0, 0, 0)  # the convolution computes it
    assert product == GraphOperator("stem.0", "MatMul", 6 * 64 * 8, 3 * 6 * 64, 0)
    assert linear == GraphOperator("head", "Gemm", 8 * 5 * 8, 6 * 64 + 40, 40)


def test_a_linear_layers_module_is_that_of_its_bias(tmp_path: Path) -> None:
    """Exporters transpose the weight under a name of their own; a product of two values stays where it is."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(np.zeros(shape, np.float32), name)

    nodes = [
        helper.make_node("LayerNormalization", ["x", "blocks.0.norm.weight"], ["n"]),
        helper.make_node("MatMul", ["n", "val_7"], ["m"]),
        helper.make_node("Add", ["m", "blocks.0.qkv.bias"], ["q"]),
        helper.make_node("MatMul", ["q", "q"], ["s"]),
        helper.make_node("MatMul", ["s", "val_9"], ["o"]),
        helper.make_node("Add", ["o", "blocks.0.out.bias"], ["p"]),
        helper.make_node("MatMul", ["p", "val_11"], ["y"]),
    ]
    made = ["n", "m", "q", "s", "o", "p"]
    value = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, (8, 8)) for name in ["x", "y", *made]
    }
    weights = [weight(f"val_{index}", 8, 8) for index in (7, 9, 11)]
    weights += [weight(f"blocks.0.{name}", 8) for name in ("norm.weight", "qkv.bias", "out.bias")]
    written = helper.make_graph(
        nodes, "net", [value["x"]], [value["y"]], weights, value_info=[value[name] for name in made]
    )
    onnx.save(helper.make_model(written), tmp_path / "net.onnx")
    modules = [operator.module for operator in operator_split.operators_to_split(tmp_path / "net.onnx")]
    norm, qkv, out = (f"blocks.0.{name}" for name in ("norm", "qkv", "out"))
    assert modules == [norm, qkv, qkv, qkv, out, out, out]  # without a bias, nothing names the last one


@pytest.mark.parametrize("kind", operator_split.FUSED)
@pytest.mark.parametrize(
    ("source", "read_twice", "values"),
    [("c", False, 0), ("c", True, 2 * 384), ("m", False, 2 * 384), ("x", False, 2 * 384)],
    ids=["of a convolution", "whose input another reads", "of a product", "of an input"],
)
def test_an_activation_costs_values_unless_its_convolution_computes_it(
    kind: str, source: str, read_twice: bool, values: int, tmp_path: Path
) -> None:
    """Runtimes fuse an activation with a convolution or Gemm that nothing else reads."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 6, 8, 8))

    nodes = [
        helper.make_node("Conv", ["x", "conv.weight"], ["c"]),
        helper.make_node("MatMul", ["x", "x"], ["m"]),
        helper.make_node(kind, [source], ["r"]),
        helper.make_node("Add", ["r", "c" if read_twice else "x"], ["y"]),
    ]
    weight = numpy_helper.from_array(np.zeros((6, 6, 1, 1), np.float32), "conv.weight")
    inner = [value(name) for name in ("c", "m", "r")]
    written = helper.make_graph(nodes, "net", [value("x")], [value("y")], [weight], value_info=inner)
    onnx.save(helper.make_model(written), tmp_path / "net.onnx")
    activation = operator_split.operators_to_split(tmp_path / "net.onnx")[2]
    assert (activation.kind, activation.values) == (kind, values)


@pytest.mark.parametrize("content", [None, b"", b"no ONNX file"])
def test_without_a_graph_nothing_is_divided(content: bytes | None, tmp_path: Path) -> None:
    """The estimate stays whole."""
    path = tmp_path / "net.onnx"
    if content is not None:
        path.write_bytes(content)
    assert operator_split.operators_to_split(path) == ()


OPERATORS = (
    GraphOperator("stem", "Conv", 3000, 100, 30),
    GraphOperator("stem", "Relu", 0, 300, 0),
    GraphOperator("head", "Gemm", 1000, 100, 90),
)


def test_each_part_is_divided_by_what_it_follows() -> None:
    """Arithmetic follows multiply-accumulates, other instructions values; the call itself stays apart."""
    split = {
        (item.module, item.kind): item.ms
        for item in operator_split.operator_split_of_estimate(estimate(), OPERATORS)
    }
    assert split == pytest.approx(
        {
            ("stem", "Conv"): 20 * (0.6 * 0.75 + 0.25 * 0.2 + 0.1 / 2),
            ("head", "Gemm"): 20 * (0.6 * 0.25 + 0.25 * 0.2 + 0.1 / 2),
            ("stem", "Relu"): 20 * 0.25 * 0.6,
            ("the call itself", "the call itself"): 1.0,
        }
    )
    memory = operator_split.operator_split_of_estimate(estimate(memory=1.0), OPERATORS)
    assert [(item.module, item.ms) for item in memory] == [("head", 15.0), ("stem", pytest.approx(5.0))]


def test_the_rest_of_a_deep_network_is_one_entry_for_each_kind() -> None:
    """A manifest does not grow with the layers, no time is lost, and each kind of operator keeps its own."""
    deep = [
        GraphOperator(f"layer.{i}", kind, macs + i, 1, 1)
        for i in range(500)
        for kind, macs in (("Conv", 100), ("Add", 0))
    ]
    split = operator_split.operator_split_of_estimate(estimate(), deep)
    rest = {item.kind: item.ms for item in split if item.module == "others"}
    assert (len(split), set(rest)) == (operator_split.SHOWN + 2, {"Conv", "Add"})
    assert sum(item.ms for item in split) == pytest.approx(20.0)
    by_kind = {kind: sum(item.ms for item in split if item.kind == kind) for kind in ("Conv", "Add")}
    assert by_kind["Conv"] > by_kind["Add"] > 0


def test_the_page_says_that_it_is_a_division() -> None:
    """Modules and operators are listed with their share, never as a measurement."""
    estimated = replace(
        estimate(), operators=operator_split.operator_split_of_estimate(estimate(), OPERATORS)
    )
    report = sample.report()
    first, *others = report.artifacts
    page = html.render_html(
        replace(report, artifacts=(replace(first, estimates=(estimated,)), *others)), sample.outputs()
    )
    assert "Estimated time by module" in page
    assert "stem 14 ms (70%)" in page
    assert "on 4 threads, divided by the graph and not counted" in page


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ((0.4, 0.5, 0.6), "estimated within"),
        ((0.5, 0.9, 1.2), "uncertain"),
        ((1.5, 2.0, 3.0), "estimated over"),
    ],
)
def test_the_page_has_the_verdict_and_why_it_is_uncertain(
    shares: tuple[float, float, float], words: str
) -> None:
    """Beside "not measured" stand the words on the budget; an artifact says why its interval is wide."""
    report = sample.report()
    chosen = text.choice_text(report)
    assert chosen
    low, p50, high = (share * report.budget_ms for share in shares)
    item = replace(
        estimate(),
        p50_ms=p50,
        low_ms=low,
        high_ms=high,
        notes=("No published latency of a Cortex-Z9 is in the fit.",),
    )
    rows = tuple(replace(row, estimates=(item,)) if row is chosen else row for row in report.artifacts)
    page = html.render_html(replace(report, artifacts=rows), sample.outputs())
    assert f": {words} " in page
    assert "only a phone&#39;s measurement meets a budget" in page
    assert "Why its intervals are wide" in page
    assert "Cortex-Z9" in page
    assert words not in html.render_html(report, sample.outputs())


@pytest.mark.parametrize(
    ("weight", "group", "patches"),
    [
        ((6, 4, 1, 1), 1, 0),
        ((6, 4, 3, 3), 1, 8 * 8 * 4 * 9),
        ((6, 2, 3, 3), 2, 8 * 8 * 4 * 9),
        ((4, 1, 3, 3), 4, 0),
        ((6, 4, 5, 1), 1, 8 * 8 * 4 * 5),
    ],
    ids=["1x1", "3x3", "in two groups", "depthwise", "5x1"],
)
def test_a_convolution_copies_its_patches(
    weight: tuple[int, ...], group: int, patches: int, tmp_path: Path
) -> None:
    """Each output pixel has a patch of all input channels; a pixel is none, and depthwise ones copy none."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def value(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], group=group), helper.make_node("Erf", ["c"], ["y"])]
    out = (1, weight[0], 8, 8)
    written = helper.make_graph(
        nodes, "net", [value("x", 1, 4, 8 + weight[2] - 1, 8 + weight[3] - 1)], [value("y", *out)],
        [numpy_helper.from_array(np.zeros(weight, np.float32), "w")], value_info=[value("c", *out)],
    )  # fmt: skip
    onnx.save(helper.make_model(written), tmp_path / "net.onnx")
    conv, erf = operator_split.operators_to_split(tmp_path / "net.onnx")
    assert (conv.patches, conv.functions) == (patches, 0)
    assert (erf.patches, erf.functions) == (0, weight[0] * 64)
    work = work_of_graph([conv, erf], 4, 0)
    assert (work.patches, work.functions) == (patches, weight[0] * 64)
    assert work.conv_values == conv.values
    assert work.depthwise_values == (conv.values if conv.depthwise else 0)
