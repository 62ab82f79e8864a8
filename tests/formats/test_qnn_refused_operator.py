"""Where Qualcomm's compiler fails without a name, the operator that it cannot take is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from exporter.errors import LoweringError
from exporter.formats.qnn.refused_operator import refused_operator
from tests import proof


def graph_of(kinds: list[str]) -> bytes:
    """Return a model of one chain of these operators, whose first result is an output too."""
    nodes = [
        helper.make_node(kind, [f"t{i}"], [f"t{i + 1}"], name=f"node_{kind}_{i}")
        for i, kind in enumerate(kinds)
    ]
    names = "t0", "t1", f"t{len(kinds)}"
    first, second, last = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in names)
    made: bytes = helper.make_model(
        helper.make_graph(nodes, "g", [first], [second, last])
    ).SerializeToString()
    return made


class Compiler:
    """Fails for one kind of operator, as Qualcomm's does: without its name."""

    def __init__(self, refused: str) -> None:
        self.refused, self.calls = refused, 0

    def __call__(self, path: Path) -> None:
        self.calls += 1
        model = onnx.load(path)
        if not model.graph.node:
            raise LoweringError("It takes none of its operators.")
        if self.refused in {node.op_type for node in model.graph.node}:
            raise RuntimeError("Failed to finalize graph.")


@pytest.mark.parametrize("place", [0, 1, 7, 40, 63])
def test_the_first_operator_that_is_refused_is_named(place: int, tmp_path: Path) -> None:
    """Wherever it is, with few compilations."""
    kinds = ["Relu", "Neg", "Abs", "Exp"] * 16
    kinds[place] = "Erf"
    compiler = Compiler("Erf")
    assert refused_operator(graph_of(kinds), tmp_path, compiler) == f"Erf (node_Erf_{place})"
    assert compiler.calls <= 7
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_compilers_failure_names_gelus_operator(tmp_path: Path) -> None:
    """The compiler's own words are of memory; the reason names what GELU is made of, and stays an error."""
    pytest.importorskip("onnxruntime_qnn", reason="the qnn extra is not installed")
    from torch import nn

    generator = np.random.default_rng(0)
    samples = [(generator.normal(size=(1, 8)).astype(np.float32),) for _ in range(24)]
    net = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4))
    captured = proof.capture(net, samples[:12], tmp_path)
    quantized = proof.quantize(captured, samples[12:], tmp_path)
    verdict = proof.prove(quantized, "onnx-qnn-v73-int8", tmp_path)
    assert verdict.status == "error"
    assert any(f"refuses the operator {kind} (" in str(verdict.reason) for kind in ("Div", "Erf"))
