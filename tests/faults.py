"""Planted faults: ways an artifact can be wrong that `verify` must find. To add one, add a line to `FAULTS`.

Each fault damages a copy of a good export of `TinyCnn`. Unless it says otherwise the manifest is then brought
in line (`rehash`), as if the damage had happened before hashing: numerics and structure must find it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from exporter.files import digest_file_or_folder

Damage = Callable[[Path], None]


@dataclass(frozen=True)
class Fault:
    name: str
    artifact: str
    """The artifact that must fail; empty when OUT as a whole must fail."""
    damage: Damage
    """The function that damages OUT."""
    words: str
    """The words that the reason must contain."""
    rehash: bool = True
    network: str = "cnn"
    """The network of `tests.nets` whose export is damaged."""


def rehash(out: Path) -> None:
    """Make the manifest's hashes fit the current files."""
    path = out / "manifest.json"
    manifest = json.loads(path.read_text())
    for row in [*manifest["artifacts"], *manifest["evidence"]["files"]]:
        if row["file"] and (out / row["file"]).exists():
            row["sha256"] = digest_file_or_folder(out / row["file"])
    path.write_text(json.dumps(manifest))


def file_of(out: Path, artifact: str) -> Path:
    rows = json.loads((out / "manifest.json").read_text())["artifacts"]
    return out / str(next(row["file"] for row in rows if row["name"] == artifact))


def edit_onnx(name: str, edit: Callable[[Any], None]) -> Damage:
    def damage(out: Path) -> None:
        path = file_of(out, name)
        model = onnx.load(path)
        edit(model.graph)
        onnx.save(model, path)

    return damage


def weights(graph: Any, change: Callable[[np.ndarray], np.ndarray], index: int = 0) -> None:
    """Change the index-th weight of two or more dimensions, as stored."""
    matrices = [t for t in graph.initializer if len(t.dims) > 1]
    tensor = matrices[index]
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), tensor.name))


def scales(graph: Any, factor: float, index: int = 0) -> None:
    """Multiply the per-tensor scale of the index-th activation; the first is the input's."""
    names = [n.input[1] for n in graph.node if n.op_type == "QuantizeLinear"]
    tensor = next(t for t in graph.initializer if t.name == names[index])
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), tensor.name))


def zero_points(graph: Any, shift: int) -> None:
    names = {n.input[2] for n in graph.node if n.op_type == "QuantizeLinear"}
    for tensor in graph.initializer:
        if tensor.name in names:
            moved = (numpy_helper.to_array(tensor).astype(int) + shift).clip(0, 120)
            dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
            tensor.CopyFrom(numpy_helper.from_array(moved.astype(dtype), tensor.name))


def largest_off_by_one_percent(w: np.ndarray) -> np.ndarray:
    position = np.unravel_index(np.abs(w).argmax(), w.shape)
    w[position] *= 1.01
    return w


def swap(axis: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(w: np.ndarray) -> np.ndarray:
        order = np.arange(w.shape[axis])
        order[:2] = 1, 0
        return w.take(order, axis=axis)

    return change


def poison(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(w: np.ndarray) -> np.ndarray:
        w.reshape(-1)[0] = value
        return w

    return change


def before_input(op: str, value: float) -> Callable[[Any], None]:
    """Fold other preprocessing into the graph."""

    def edit(graph: Any) -> None:
        name = graph.input[0].name
        for node in graph.node:
            prepared = f"prepared_constant_{len(graph.node)}"
            node.input[:] = [prepared if i == name else i for i in node.input]
        constant = f"constant_{len(graph.node)}"
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), constant))
        graph.node.insert(0, helper.make_node(op, [name, constant], [f"prepared_{constant}"]))

    return edit


def after_output(op: str, *more: Any, **attributes: Any) -> Callable[[Any], None]:
    def edit(graph: Any) -> None:
        name, raw = graph.output[0].name, f"raw_{len(graph.node)}"
        for node in graph.node:
            node.output[:] = [raw if o == name else o for o in node.output]
        extra = [f"extra_{len(graph.node)}_{i}" for i in range(len(more))]
        for label, value in zip(extra, more, strict=True):
            graph.initializer.append(numpy_helper.from_array(np.asarray(value), label))
        graph.node.append(helper.make_node(op, [raw, *extra], [name], **attributes))

    return edit


def noise(graph: Any) -> None:
    """Leave dropout in training mode, in effect."""
    name = graph.output[0].name
    for node in graph.node:
        node.output[:] = ["raw" if o == name else o for o in node.output]
    graph.node.append(helper.make_node("RandomNormalLike", ["raw"], ["noise"], scale=1e-3))
    graph.node.append(helper.make_node("Add", ["raw", "noise"], [name]))


def other_batch(graph: Any) -> None:
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2


def cast_output(dtype: int) -> Callable[[Any], None]:
    def edit(graph: Any) -> None:
        after_output("Cast", to=dtype)(graph)
        graph.output[0].type.tensor_type.elem_type = dtype

    return edit


def cast_input(dtype: int) -> Callable[[Any], None]:
    def edit(graph: Any) -> None:
        name = graph.input[0].name
        for node in graph.node:
            node.input[:] = ["narrow" if i == name else i for i in node.input]
        graph.node.insert(0, helper.make_node("Cast", [name], ["narrow"], to=TensorProto.FLOAT))
        graph.input[0].type.tensor_type.elem_type = dtype

    return edit


def renamed(values: str, new: str) -> Callable[[Any], None]:
    """Rename the first input or output ("input", "output") wherever it is used."""

    def edit(graph: Any) -> None:
        value = getattr(graph, values)[0]
        old, value.name = value.name, new
        for node in graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]

    return edit


def inputs_exchanged(graph: Any) -> None:
    """The first input takes the second's name, and the second the first's."""
    first, second = graph.input[0], graph.input[1]
    names = {first.name: second.name, second.name: first.name}
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    first.name, second.name = second.name, first.name


def classes(change: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Callable[[Any], None]:
    """Multiply the ten classes' scores, and add to them: `change` gets ones and gives factors and terms."""

    def edit(graph: Any) -> None:
        factors, terms = change(np.ones((1, 10), np.float32))
        after_output("Mul", factors.astype(np.float32))(graph)
        after_output("Add", terms.astype(np.float32))(graph)

    return edit


def dead_class(index: int) -> Callable[[Any], None]:
    def change(ones: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ones[0, index] = 0
        return ones, np.zeros_like(ones)

    return classes(change)


def negated_class(ones: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ones[0, 8] = -1
    return ones, np.zeros_like(ones)


def shifted_class(ones: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    terms = np.zeros_like(ones)
    terms[0, 4] = 9
    return ones, terms


def classes_exchanged(graph: Any) -> None:
    after_output("Gather", np.array([0, 1, 2, 3, 4, 5, 6, 9, 8, 7]), axis=1)(graph)


def classes_rolled(graph: Any) -> None:
    after_output("Gather", np.roll(np.arange(10), 1), axis=1)(graph)


def clipped_class(graph: Any) -> None:
    """One class's score stops where it begins to matter."""
    ceiling = np.full((1, 10), 1e9, np.float32)
    ceiling[0, 6] = -2
    after_output("Min", ceiling)(graph)


def few_values_of_a_class(graph: Any) -> None:
    """One class in steps of twelve, the others as they are."""
    steps = np.full((1, 10), 1e-4, np.float32)
    steps[0, 2] = 12
    after_output("Div", steps)(graph)
    after_output("Round")(graph)
    after_output("Mul", steps)(graph)


def limited_input(low: float, high: float) -> Callable[[Any], None]:
    """The input is cut to the range that real inputs have."""

    def edit(graph: Any) -> None:
        before_input("Max", low)(graph)
        before_input("Min", high)(graph)

    return edit


def replaced_by(name: str, other: str) -> Damage:
    def damage(out: Path) -> None:
        source, target = file_of(out, other), file_of(out, name)
        if target.is_dir():
            shutil.rmtree(target)
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)

    return damage


def truncated(name: str, share: float) -> Damage:
    def damage(out: Path) -> None:
        data = file_of(out, name).read_bytes()
        file_of(out, name).write_bytes(data[: int(len(data) * share)])

    return damage


def random_bytes(name: str) -> Damage:
    def damage(out: Path) -> None:
        file_of(out, name).write_bytes(np.random.default_rng(0).bytes(20_000))

    return damage


def patched(name: str, old: np.ndarray, new: np.ndarray) -> Damage:
    """Replace the bytes of a weight inside a file whose format we need not know."""

    def damage(out: Path) -> None:
        data = file_of(out, name).read_bytes()
        assert old.tobytes() in data, f"{name} does not hold that weight as such"
        file_of(out, name).write_bytes(data.replace(old.tobytes(), new.tobytes()))

    return damage


def stale(name: str) -> Damage:
    """Return the same network with the weights of an earlier epoch."""

    def damage(out: Path) -> None:
        def older(w: np.ndarray) -> np.ndarray:
            return (w * 0.98 + 0.002).astype(w.dtype)

        for index in range(4):
            edit_onnx(name, lambda graph, index=index: weights(graph, older, index))(out)  # type: ignore[misc]

    return damage


def in_package(name: str, change: Callable[[Path], None]) -> Damage:
    def damage(out: Path) -> None:
        change(next(file_of(out, name).rglob("weight.bin")))

    return damage


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def appended_byte(name: str) -> Damage:
    def damage(out: Path) -> None:
        with file_of(out, name).open("ab") as stream:
            stream.write(b"\0")

    return damage


def missing(name: str) -> Damage:
    return lambda out: file_of(out, name).unlink()


def forged_reference(out: Path) -> None:
    path = out / "verification.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["reference/0"] = arrays["reference/0"] * 1.001
    np.savez_compressed(path, **arrays)


def edit_manifest(edit: Callable[[dict[str, Any]], None]) -> Damage:
    def damage(out: Path) -> None:
        manifest = json.loads((out / "manifest.json").read_text())
        edit(manifest)
        (out / "manifest.json").write_text(json.dumps(manifest))

    return damage


def no_evidence(manifest: dict[str, Any]) -> None:
    manifest["evidence"]["files"] = []


FAULTS = (
    Fault(
        "one weight off by 1 %",
        "onnx-fp32",
        edit_onnx("onnx-fp32", lambda g: weights(g, largest_off_by_one_percent)),
        "largest error",
    ),
    Fault(
        "two output channels swapped",
        "onnx-fp32",
        edit_onnx("onnx-fp32", lambda g: weights(g, swap(0))),
        "error",
    ),
    Fault(
        "two classes swapped",
        "onnx-fp16",
        edit_onnx("onnx-fp16", lambda g: weights(g, swap(0), -1)),
        "dB SQNR",
    ),
    Fault("one weight NaN", "onnx-fp32", edit_onnx("onnx-fp32", lambda g: weights(g, poison(np.nan))), "NaN"),
    Fault(
        "one weight infinite",
        "onnx-fp32",
        edit_onnx("onnx-fp32", lambda g: weights(g, poison(np.inf))),
        "NaN",
    ),
    Fault(
        "a layer zeroed",
        "onnx-fp32",
        edit_onnx("onnx-fp32", lambda g: weights(g, np.zeros_like, -1)),
        "error",
    ),
    Fault("inputs scaled twice", "onnx-fp32", edit_onnx("onnx-fp32", before_input("Mul", 1 / 16)), "error"),
    Fault("another mean subtracted", "onnx-fp32", edit_onnx("onnx-fp32", before_input("Sub", 0.01)), "error"),
    Fault("softmax appended", "onnx-fp32", edit_onnx("onnx-fp32", after_output("Softmax", axis=1)), "error"),
    Fault(
        "outputs reordered",
        "onnx-fp32",
        edit_onnx("onnx-fp32", after_output("Gather", np.arange(9, -1, -1), axis=1)),
        "error",
    ),
    Fault("outputs rounded", "onnx-fp32", edit_onnx("onnx-fp32", after_output("Round")), "error"),
    Fault("random at every call", "onnx-fp16", edit_onnx("onnx-fp16", noise), "another order"),
    Fault("another batch size", "onnx-fp32", edit_onnx("onnx-fp32", other_batch), "input shapes"),
    Fault("weights of an earlier epoch", "onnx-fp32", stale("onnx-fp32"), "error"),
    Fault("fp32 named int8 (ONNX)", "onnx-int8", replaced_by("onnx-int8", "onnx-fp32"), "calls itself int8"),
    Fault("fp32 named fp16", "onnx-fp16", replaced_by("onnx-fp16", "onnx-fp32"), "calls itself fp16"),
    Fault("fp16 named fp32", "onnx-fp32", replaced_by("onnx-fp32", "onnx-fp16"), "calls itself fp32"),
    Fault(
        "fp32 named int8 (ExecuTorch)",
        "executorch-xnnpack-int8",
        replaced_by("executorch-xnnpack-int8", "executorch-xnnpack-fp32"),
        "calls itself int8",
    ),
    Fault("int8 named fp32 (ORT)", "ort-fp32", replaced_by("ort-fp32", "ort-int8"), "calls itself fp32"),
    Fault(
        "fp16 named 4-bit",
        "coreml-w4",
        replaced_by("coreml-w4", "coreml-fp16"),
        "calls itself w4",
        network="two_in_two_out",
    ),
    Fault(
        "8-bit named 4-bit",
        "coreml-w4",
        replaced_by("coreml-w4", "coreml-w8"),
        "calls itself w4",
        network="two_in_two_out",
    ),
    Fault(
        "an activation range cut in half",
        "onnx-int8",
        edit_onnx("onnx-int8", lambda g: scales(g, 0.5)),
        "lowering",
    ),
    Fault(
        "zero points shifted", "onnx-int8", edit_onnx("onnx-int8", lambda g: zero_points(g, 9)), "lowering"
    ),
    Fault(
        "an int8 channel swapped",
        "onnx-int8",
        edit_onnx("onnx-int8", lambda g: weights(g, swap(0))),
        "lowering",
    ),
    *(
        Fault(f"{name} truncated", name, truncated(name, share), "")
        for name, share in {
            "onnx-fp32": 0.6,
            "ort-fp32": 0.6,
            "executorch-xnnpack-fp32": 0.7,
            "executorch-xnnpack-int8": 0.3,
            "executorch-vulkan-fp16": 0.5,
            "torchscript-lite-fp32": 0.6,
        }.items()
    ),
    *(
        Fault(f"{name} is random bytes", name, random_bytes(name), "cannot be read")
        for name in ("onnx-fp16", "ort-fp32", "executorch-xnnpack-fp32", "torchscript-lite-fp32")
    ),
    Fault("an empty file", "onnx-fp32", truncated("onnx-fp32", 0), ""),
    Fault(
        "Core ML weights truncated", "coreml-fp16", in_package("coreml-fp16", cut_in_half), "cannot be read"
    ),
    Fault("Core ML weights gone", "coreml-w8", in_package("coreml-w8", Path.unlink), "cannot be read"),
    Fault("one byte appended", "ort-int8", appended_byte("ort-int8"), "sha256 differs", rehash=False),
    Fault("a missing file", "onnx-fp32", missing("onnx-fp32"), "missing", rehash=False),
    Fault("a forged reference", "", forged_reference, "sha256 differs", rehash=False),
    Fault("a reference that is not the model's", "onnx-fp32", forged_reference, "error"),
    *(
        Fault(f"{name}: {what}", name, edit_onnx(name, edit), words)
        for name in ("onnx-fp32", "onnx-fp16", "onnx-int8")
        for what, edit, words in (
            ("an output cast to float64", cast_output(TensorProto.DOUBLE), "output types are float64"),
            ("an output cast to float16", cast_output(TensorProto.FLOAT16), "output types are float16"),
            ("an output cast to int64", cast_output(TensorProto.INT64), "output types are int64"),
            ("an output as yes or no", cast_output(TensorProto.BOOL), "output types are bool"),
            ("an input of another type", cast_input(TensorProto.DOUBLE), "input types are float64"),
            ("an input of half precision", cast_input(TensorProto.FLOAT16), "input types are float16"),
            ("an input of bytes", cast_input(TensorProto.UINT8), "input types are uint8"),
            ("an input renamed", renamed("input", "pixels"), "input names are pixels"),
            ("an output renamed", renamed("output", "scores"), "output names are scores"),
            ("a dead class", dead_class(3), "logits[..., 3] is dead"),
            ("the first class dead", dead_class(0), "logits[..., 0] is dead"),
            ("the last class dead", dead_class(9), "logits[..., 9] is dead"),
            ("all classes one further", classes_rolled, "such channels are wrong"),
            ("a class negated", classes(negated_class), "logits[..., 8] reaches"),
            ("a class shifted", classes(shifted_class), "logits[..., 4] reaches"),
            ("two classes exchanged", classes_exchanged, "2 of 10 such channels are wrong"),
            ("a class clipped", clipped_class, "logits[..., 6] is clipped"),
            ("a class in few steps", few_values_of_a_class, "logits[..., 2] has"),
            ("inputs cut to the range of real ones", limited_input(0, 1), "On the edge input"),
        )
        # The int8 program itself cuts its input to that range: the file would be right.
        if not (name == "onnx-int8" and words == "On the edge input")
    ),
    *(
        Fault(
            f"{name}: two inputs exchanged",
            name,
            edit_onnx(name, inputs_exchanged),
            "input names are",
            network="two_in_two_out",
        )
        for name in ("onnx-fp32", "onnx-fp16", "onnx-int8")
    ),
    Fault("evidence left out", "", edit_manifest(no_evidence), "nothing to verify against"),
)
