"""Reads what a compiled folder holds, without running it: tensors, weights, generation, share on the NPU."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from exporter.errors import LoweringError
from exporter.formats.onnx.onnx_contents import Contents, structure_of_onnx_contents
from exporter.formats.onnx.onnx_file import read_onnx_file
from exporter.records import Structure, Variant

MODEL, CONTEXT = "model.onnx", "context.onnx"
FILES = (MODEL, CONTEXT)
COMPILED = "EPContext"
"""The operator that stands for what was compiled."""
CONVERSIONS = frozenset({"QuantizeLinear", "DequantizeLinear"})
"""Operators that do not compute: the CPU may keep them, as inputs and outputs of the model are floats."""
GENERATION = re.compile(rb";arch=(\d+);")
"""The place in the compiler's settings, which it writes into the binary, that names the generation."""


def read_qnn_contents(path: Path, variant: Variant) -> Structure:
    """Read a folder: inputs and outputs of the compiled model, weights and operators of the QDQ model.

    Args:
        path: The folder.
        variant: One of this format's variants; the binary must be of its generation.

    Raises:
        LoweringError: It is not a whole folder, refers to other files, or is for another generation.
    """
    check_qnn_contents(path, variant)
    model, compiled = read_onnx_file(path / MODEL), read_onnx_file(path / CONTEXT)
    left = sum(_qnn_contents_left_off_npu(compiled).values())
    total = sum(_qnn_contents_left_off_npu(model).values())
    return replace(
        structure_of_onnx_contents(model),
        inputs=compiled.inputs,
        outputs=compiled.outputs,
        delegated_fraction=max(0.0, 1 - left / total) if total else 0.0,
    )


def qnn_contents_off_npu(path: Path) -> Mapping[str, int]:
    """Count the operators of a folder that the CPU executes, by name; conversions do not count.

    Raises:
        LoweringError: The compiled model is damaged.
    """
    return _qnn_contents_left_off_npu(read_onnx_file(path / CONTEXT))


def _qnn_contents_left_off_npu(contents: Contents) -> Mapping[str, int]:
    names = (node.operator for node in contents.nodes)
    return dict(Counter(name for name in names if name != COMPILED and name not in CONVERSIONS))


def check_qnn_contents(path: Path, variant: Variant) -> None:
    """Check the files, and that the binaries are inside the model and for the variant's generation.

    Raises:
        LoweringError: They are not.
    """
    names = {file.name for file in path.iterdir()} if path.is_dir() else set()
    if names != set(FILES) or any((path / n).is_symlink() or not (path / n).is_file() for n in FILES):
        raise LoweringError(f"{path.name} must be a folder of {' and '.join(FILES)}, alone.")
    binaries = _binaries_in_qnn_contents(path / CONTEXT)
    if not binaries:
        raise LoweringError(f"{CONTEXT} holds nothing for the NPU.")
    wanted = variant.backend.removeprefix("htp-")
    for binary in binaries:
        generations = {f"v{match.decode()}" for match in GENERATION.findall(binary)}
        if generations != {wanted}:
            stated = " and ".join(sorted(generations)) or "no known generation"
            raise LoweringError(f"{CONTEXT} is compiled for Hexagon {stated}, and not for {wanted}.")


def _binaries_in_qnn_contents(path: Path) -> list[bytes]:
    """Return the compiled binaries, which must be stored in the model itself.

    Raises:
        LoweringError: One is in another file.
    """
    import onnx

    read_onnx_file(path)  # refuses what is damaged, or refers to other files
    binaries = []
    for node in onnx.load_model_from_string(path.read_bytes()).graph.node:
        if node.op_type != COMPILED:
            continue
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if "embed_mode" not in attributes or attributes["embed_mode"].i != 1:
            raise LoweringError(f"{path.name} keeps its binary in another file.")
        binaries.append(attributes["ep_cache_context"].s if "ep_cache_context" in attributes else b"")
    return binaries
