"""Planted faults by the gate that is there for them. To add one, add a line to a table.

A fault is a change of the network's graph or of its stored weights, made in each artifact that can carry it.
`faults.py` plants faults in a whole export; here one file is verified at a time, in the test's own process.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests import nets
from tests.faults import (
    Damage,
    after_output,
    before_input,
    cut_in_half,
    edit_onnx,
    file_of,
    in_package,
    patched,
    scales,
    swap,
    truncated,
    weights,
    zero_points,
)

Graph = Any
Edit = Callable[[Graph], None]
FILE, CONTRACT, REPEAT = "file", "contract", "repeat"
"""What finds a fault outside of the gates: the file's reader, its contract, a second run."""


@dataclass(frozen=True)
class GateFault:
    name: str
    artifact: str
    damage: Damage
    """Called with OUT."""
    gates: tuple[str, ...]
    """Every one of these must have a reason against the artifact."""

    @property
    def title(self) -> str:
        return f"{self.name} ({self.artifact})"


def one_output(change: Callable[[str, str], list[Any]]) -> Edit:
    """Insert nodes between what the graph computes and its output: `change(raw, output)` makes them."""

    def edit(graph: Graph) -> None:
        name = graph.output[0].name
        for node in graph.node:
            node.output[:] = ["raw" if o == name else o for o in node.output]
        graph.node.extend(change("raw", name))

    return edit


def channel(index: int, factor: float, term: float = 0.0, count: int = 10) -> Edit:
    """Multiply one class score and add to it."""
    factors, terms = np.ones(count, np.float32), np.zeros(count, np.float32)
    factors[index], terms[index] = factor, term

    def edit(graph: Graph) -> None:
        graph.initializer.append(numpy_helper.from_array(factors, "factors"))
        graph.initializer.append(numpy_helper.from_array(terms, "terms"))
        one_output(
            lambda raw, out: [
                helper.make_node("Mul", [raw, "factors"], ["scaled"]),
                helper.make_node("Add", ["scaled", "terms"], [out]),
            ]
        )(graph)

    return edit


def exchanged(first: int, second: int, count: int = 10) -> Edit:
    order = np.arange(count)
    order[[first, second]] = second, first
    return after_output("Gather", order, axis=1)


def clipped(low: float, high: float) -> Edit:
    return after_output("Clip", np.float32(low), np.float32(high))


def coarse(steps: float) -> Edit:
    """Round the outputs to a few values."""

    def edit(graph: Graph) -> None:
        graph.initializer.append(numpy_helper.from_array(np.array(steps, np.float32), "steps"))
        one_output(
            lambda raw, out: [
                helper.make_node("Mul", [raw, "steps"], ["fine"]),
                helper.make_node("Round", ["fine"], ["rounded"]),
                helper.make_node("Div", ["rounded", "steps"], [out]),
            ]
        )(graph)

    return edit


def output_type(kind: int) -> Edit:
    def edit(graph: Graph) -> None:
        one_output(lambda raw, out: [helper.make_node("Cast", [raw], [out], to=kind)])(graph)
        graph.output[0].type.tensor_type.elem_type = kind

    return edit


def random(level: float) -> Edit:
    return one_output(
        lambda raw, out: [
            helper.make_node("RandomNormalLike", [raw], ["noise"], scale=level),
            helper.make_node("Add", [raw, "noise"], [out]),
        ]
    )


def constant(graph: Graph) -> None:
    one_output(
        lambda raw, out: [
            helper.make_node("Sub", [raw, raw], ["nothing"]),
            helper.make_node("Add", ["nothing", "level"], [out]),
        ]
    )(graph)
    graph.initializer.append(numpy_helper.from_array(np.linspace(-3, 3, 10, dtype=np.float32), "level"))


def not_a_number(graph: Graph) -> None:
    one_output(lambda raw, out: [helper.make_node("Sqrt", [raw], [out])])(graph)


def other_shape(graph: Graph) -> None:
    graph.output[0].type.tensor_type.shape.dim[1].dim_value = 9


def renamed(which: int) -> Edit:
    """Give the input (0) or the output (1) another name."""

    def edit(graph: Graph) -> None:
        value = (graph.input, graph.output)[which][0]
        for node in graph.node:
            for names in (node.input, node.output):
                names[:] = ["other" if name == value.name else name for name in names]
        value.name = "other"

    return edit


def renamed_operator(graph: Graph) -> None:
    next(
        node for node in graph.node if node.op_type in {"Conv", "QLinearConv", "DequantizeLinear"}
    ).op_type = "Nothing"


def no_bias(graph: Graph) -> None:
    """Zero the last vector of ten numbers: the head's bias."""
    vectors = [t for t in graph.initializer if list(t.dims) == [10]]
    vectors[-1].CopyFrom(
        numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(vectors[-1])), vectors[-1].name)
    )


def other_activation(graph: Graph) -> None:
    """ReLU instead of the first ReLU6."""
    node = next(n for n in graph.node if n.op_type == "Clip")
    node.op_type = "Relu"
    del node.input[1:]


def lost_residual(graph: Graph) -> None:
    node = next(
        n for n in graph.node if n.op_type == "Add" and not {t.name for t in graph.initializer} & set(n.input)
    )
    node.input[1] = node.input[0]


ONNX = ("onnx-fp32", "onnx-fp16", "onnx-int8")
FLOAT = ("onnx-fp32", "onnx-fp16")
GROSS: dict[str, Edit] = {
    "softmax appended": after_output("Softmax", axis=1),
    "outputs reversed": after_output("Gather", np.arange(9, -1, -1), axis=1),
    "outputs negated": after_output("Neg"),
    "outputs halved": after_output("Mul", np.float32(0.5)),
    "outputs rectified": after_output("Relu"),
    "outputs squashed": after_output("Tanh"),
    "outputs in large steps": coarse(0.2),
    "outputs shifted": after_output("Add", np.float32(5)),
    "always the same answer": constant,
    "inputs negated": before_input("Mul", -1),
    "inputs in bytes": before_input("Mul", 16),
    "inputs divided twice": before_input("Mul", 1 / 16),
    "another mean": before_input("Sub", 0.5),
}
"""Found in the output as a whole; int8 may agree in its top class, and is no longer what its program is."""
ONE_CHANNEL: dict[str, Edit] = {
    "a dead class": channel(3, 0.0),
    "a dead class at its mean": channel(3, 0.0, -2.0),
    "the last class dead": channel(9, 0.0),
    "a negated class": channel(5, -1.0),
    "a class at a tenth": channel(2, 0.1),
    "two classes exchanged": exchanged(3, 8),
    "the first and the last class exchanged": exchanged(0, 9),
    "a class three times as loud": channel(4, 3.0),
}
"""Found in the channel, by its name."""
SMALL: dict[str, Edit] = {
    "outputs scaled by 1 %": after_output("Mul", np.float32(1.01)),
    "outputs scaled by -1 %": after_output("Mul", np.float32(0.99)),
    "a small offset on all outputs": after_output("Add", np.float32(0.1)),
    "inputs shifted by a grey level": before_input("Add", 1 / 255),
    "inputs scaled by 255/256": before_input("Mul", 255 / 256),
    "a class scaled by 5 %": channel(6, 1.05),
    "an offset on one class": channel(1, 1.0, 0.3),
    "a dropped bias": no_bias,
}
"""Too small for fp16's fixed limit or near it: what the precision costs tells."""
TYPES: dict[str, Edit] = {
    "output in float64": output_type(TensorProto.DOUBLE),
    "output in float16": output_type(TensorProto.FLOAT16),
    "output in int64": output_type(TensorProto.INT64),
    "output in bytes": output_type(TensorProto.UINT8),
    "output as yes or no": output_type(TensorProto.BOOL),
}


def head() -> tuple[np.ndarray, np.ndarray]:
    """The trained weight and bias of the small network's last layer."""
    tensors = nets.trained("cnn").state_dict()
    return tensors["head.weight"].numpy(), tensors["head.bias"].numpy()


def row(values: np.ndarray, index: int, factor: float) -> np.ndarray:
    changed = values.copy()
    changed[index] *= factor
    return changed


HEAD: dict[str, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "two classes' weights exchanged": lambda w, b: (w, swap(0)(w)),
    "a class without weights": lambda w, b: (w, row(w, 4, 0.0)),
    "a class's weights negated": lambda w, b: (w, row(w, 7, -1.0)),
    "the head's weights off by 1 %": lambda w, b: (w, (w * np.float32(1.01))),
    "one class's weights off by 1 %": lambda w, b: (w, row(w, 2, 1.01)),
    "a class's bias lost": lambda w, b: (b, row(b, int(np.abs(b).argmax()), 0.0)),
    "all biases lost": lambda w, b: (b, b * 0),
    "biases exchanged": lambda w, b: (b, np.roll(b, 1)),
}
"""What is replaced by what, in files whose format need not be known."""


def in_head(artifact: str, change: Callable[..., tuple[np.ndarray, np.ndarray]]) -> Damage:
    def damage(out: Path) -> None:
        old, new = change(*head())
        patched(artifact, old, new.astype(np.float32))(out)

    return damage


def in_archive(artifact: str, change: Callable[..., tuple[np.ndarray, np.ndarray]]) -> Damage:
    """Replace a tensor in a zip of records, whose checksums are made anew."""

    def damage(out: Path) -> None:
        old, new = change(*head())
        path = file_of(out, artifact)
        with zipfile.ZipFile(path) as archive:
            entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
        before, after = old.tobytes(), new.astype(np.float32).tobytes()
        assert any(before in data for _, data in entries), f"{artifact} does not hold that weight as such"
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for entry, data in entries:
                archive.writestr(entry.filename, data.replace(before, after))
        path.write_bytes(buffer.getvalue())

    return damage


def _rows(edits: dict[str, Edit], artifacts: Sequence[str], *gates: str) -> Iterator[GateFault]:
    for name, edit in edits.items():
        for artifact in artifacts:
            yield GateFault(name, artifact, edit_onnx(artifact, edit), gates)


WEIGHT_FILES: dict[str, Callable[[Path], None]] = {
    "weights cut in half": cut_in_half,
    "weights gone": Path.unlink,
}
COREML = ("coreml-fp16", "coreml-w8")


def in_model(name: str, change: Callable[[Any], None]) -> Damage:
    """Change the description and program of a Core ML package."""

    def damage(out: Path) -> None:
        from coremltools.proto import Model_pb2

        path = next(file_of(out, name).rglob("model.mlmodel"))
        model = Model_pb2.Model()
        model.ParseFromString(path.read_bytes())
        change(model)
        path.write_bytes(model.SerializeToString())

    return damage


def _renamed(features: Callable[[Any], Any]) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        features(model.description)[0].name = "another"

    return change


def _reshaped(features: Callable[[Any], Any]) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        features(model.description)[0].type.multiArrayType.shape[-1] += 1

    return change


def _doubled(features: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Add a feature that the model does not have."""

    def change(model: Any) -> None:
        listed = features(model.description)
        listed.add().CopyFrom(listed[0])
        listed[-1].name = "more"

    return change


def _retyped(features: Callable[[Any], Any]) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        kind = features(model.description)[0].type.multiArrayType
        kind.dataType = kind.INT32

    return change


IN_COREML: dict[str, dict[str, Callable[[Any], None]]] = {
    CONTRACT: {
        "a reshaped input": _reshaped(lambda described: described.input),
        "a retyped input": _retyped(lambda described: described.input),
        "a retyped output": _retyped(lambda described: described.output),
    },
    FILE: {
        f"{what} {side}": change(features)
        for side, features in (("input", lambda d: d.input), ("output", lambda d: d.output))
        for what, change in (("a renamed", _renamed), ("a further", _doubled))
    }
    | {"a reshaped output": _reshaped(lambda described: described.output)},
}
"""What finds it -> changes of a Core ML model's description, which its program then contradicts."""


GATE_FAULTS: tuple[GateFault, ...] = (
    *_rows(GROSS, FLOAT, "whole"),
    *_rows(GROSS, ("onnx-int8",), "lowering"),
    *_rows(ONE_CHANNEL, ONNX, "channels"),
    *_rows(SMALL, ("onnx-fp32",), "whole"),
    *_rows(SMALL, ("onnx-fp16",), "simulated"),
    *_rows(TYPES, FLOAT, CONTRACT),
    *_rows({"another activation": other_activation}, ("onnx-fp32",), "edges"),
    *_rows({"another activation": other_activation}, ("onnx-fp16",), "simulated"),
    *_rows({"a lost residual": lost_residual}, FLOAT, "whole"),
    *_rows({"not a number": not_a_number}, ONNX, "comparable"),
    *_rows({"random at every call": random(5e-6)}, ("onnx-fp32",), REPEAT),
    *_rows({"random at every call": random(1e-3)}, ("onnx-fp16",), REPEAT),
    *_rows({"another output shape": other_shape}, ONNX, CONTRACT),
    *_rows({"another input name": renamed(0), "another output name": renamed(1)}, FLOAT, CONTRACT),
    *_rows({"an operator nobody has": renamed_operator}, ONNX, FILE),
    *(
        GateFault(
            f"a weight of layer {index} scaled", "onnx-int8", edit_onnx("onnx-int8", edit), ("lowering",)
        )
        for index in range(3)
        for edit in [lambda g, index=index: weights(g, lambda w: w // 2, index)]
    ),
    GateFault(
        "an activation range halved",
        "onnx-int8",
        edit_onnx("onnx-int8", lambda g: scales(g, 0.5)),
        ("lowering",),
    ),
    GateFault(
        "an activation range made four times as large",
        "onnx-int8",
        edit_onnx("onnx-int8", lambda g: scales(g, 4, 1)),
        ("lowering",),
    ),
    GateFault(
        "the input's range doubled",
        "onnx-int8",
        edit_onnx("onnx-int8", lambda g: scales(g, 2)),
        ("edges",),
    ),
    GateFault(
        "zero points moved", "onnx-int8", edit_onnx("onnx-int8", lambda g: zero_points(g, 9)), ("lowering",)
    ),
    *(
        GateFault(name, artifact, in_head(artifact, change), ("whole",))
        for artifact in ("executorch-xnnpack-fp32", "ort-fp32")
        for name, change in HEAD.items()
    ),
    *(
        GateFault(name, "torchscript-lite-fp32", in_archive("torchscript-lite-fp32", change), ("whole",))
        for name, change in HEAD.items()
    ),
    *(
        GateFault(f"cut at {share:.0%}", artifact, truncated(artifact, share), (FILE,))
        for share in (0.1, 0.9)
        for artifact in (
            "onnx-fp16",
            "onnx-int8",
            "ort-fp32",
            "ort-int8",
            "executorch-xnnpack-fp32",
            "executorch-xnnpack-int8",
            "executorch-vulkan-fp16",
            "torchscript-lite-fp32",
        )
    ),
    *(
        GateFault(name, "coreml-fp16", in_model("coreml-fp16", change), (gate,))
        for gate, changes in IN_COREML.items()
        for name, change in changes.items()
    ),
    *(
        GateFault(name, artifact, in_package(artifact, change), (FILE,))
        for name, change in WEIGHT_FILES.items()
        for artifact in COREML
    ),
)
