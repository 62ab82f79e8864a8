"""Write code that loads the chosen artifact in an app, for the model's real inputs.

The templates are `*.kt.j2` and `*.swift.j2`; names come from files and are quoted here, never pasted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from exporter.records import (
    ONNX_FOLDER_NOTE,
    ONNX_GRAPH,
    ONNX_WEIGHTS,
    Artifact,
    Preprocessing,
    Report,
    TensorSpec,
)
from exporter.report import templates, text
from exporter.verify.contract import classified_by_contract


@dataclass(frozen=True)
class Snippet:
    title: str
    file: str
    status: str
    """The artifact's status in words: code may be shown for an artifact that could not run here."""
    code: str


@dataclass(frozen=True)
class Tensor:
    """One input or output, in the templates' terms."""

    identifier: str
    kotlin_name: str
    swift_name: str
    shape: str
    elements: int
    kotlin: str
    """The "Float" of FloatArray and FloatBuffer."""
    swift: str


TYPES = {
    "float32": ("Float", "Float"),
    "float64": ("Double", "Double"),
    "int32": ("Int", "Int32"),
    "int64": ("Long", "Int64"),
    "uint8": ("Byte", "UInt8"),
}
"""NumPy dtype -> its names in Kotlin and Swift."""
ANDROID = {"executorch": "executorch.kt.j2", "onnx": "onnx.kt.j2", "torchscript": "torchscript.kt.j2"}
IOS = {"executorch": "executorch.swift.j2", "coreml": "coreml.swift.j2"}
TITLES = {
    "executorch.kt.j2": "Android · Kotlin · ExecuTorch",
    "onnx.kt.j2": "Android · Kotlin · ONNX Runtime",
    "torchscript.kt.j2": "Android · Kotlin · PyTorch Mobile lite interpreter",
    "executorch.swift.j2": "iOS · Swift · ExecuTorch",
    "coreml.swift.j2": "iOS · Swift · Core ML",
}


@dataclass(frozen=True)
class Libraries:
    """Where a release keeps the model; empty where the app has the bare file."""

    asset: str = ""
    """The path below an Android library's assets."""
    module: str = ""
    """The name of a Swift package."""


def make_snippets(report: Report, libraries: Libraries = Libraries()) -> tuple[Snippet, ...]:
    """Return a snippet per platform that can load the chosen artifact; and Core ML where that was also made.

    Empty when nothing was chosen, or when an app language has no array for a tensor's dtype.
    """
    chosen = text.choice_text(report)
    if chosen is None:
        return ()
    tables = [(chosen, ANDROID), (chosen, IOS)]
    apple = [a for a in report.artifacts if a.variant.format == "coreml" and a.file]
    usable = [a for a in apple if a.status in {"passed", "not_run"}]
    if chosen.variant.format != "coreml" and usable:
        tables.append((usable[0], IOS))
    made = [_make_snippet(report, artifact, table, libraries) for artifact, table in tables]
    return tuple(snippet for snippet in made if snippet)


def _make_snippet(
    report: Report, artifact: Artifact, table: dict[str, str], libraries: Libraries
) -> Snippet | None:
    template = table.get(artifact.variant.format)
    inputs, outputs = _snippet_tensors(report, artifact)
    coreml = artifact.variant.format == "coreml"
    picture = coreml and report.image_input is not None
    if picture:
        inputs = [replace(spec, dtype="float32") for spec in inputs]  # a picture in the file
    if template is None or not artifact.file or not all(s.dtype in TYPES for s in (*inputs, *outputs)):
        return None
    if artifact.variant.backend == "vulkan" and table is IOS:
        return None
    taken: set[str] = set()
    code = (
        # The page escapes this program text as a whole.
        templates.template_environment("exporter.report", autoescape=False)
        .get_template(template)
        .render(
            file=artifact.file,
            backend=artifact.variant.backend,
            versions=report.tools,
            inputs=[_snippet_tensor(spec, taken) for spec in inputs],
            outputs=[_snippet_tensor(spec, taken) for spec in outputs],
            photo=None if picture else _snippet_photo(report.preprocessing, inputs),
            picture=picture,
            parts=(ONNX_GRAPH, ONNX_WEIGHTS) if ONNX_FOLDER_NOTE in artifact.notes else (),
            classified=coreml and classified_by_contract(report.outputs, report.labels) is not None,
            library=libraries.asset if table is ANDROID else libraries.module,
        )
    )
    return Snippet(
        TITLES[template], artifact.file, text.status_text(artifact.status, artifact.executor), code.strip()
    )


def _snippet_tensors(report: Report, artifact: Artifact) -> tuple[Sequence[TensorSpec], Sequence[TensorSpec]]:
    """List the tensors with the file's own names, where it was read: a converter may rename the model's."""
    structure = artifact.structure
    if structure is None:
        return report.inputs, report.outputs
    return (
        _snippet_specs(structure.inputs, report.inputs),
        _snippet_specs(structure.outputs, report.outputs),
    )


def _snippet_specs(specs: Sequence[TensorSpec], example: Sequence[TensorSpec]) -> Sequence[TensorSpec]:
    """Return the file's tensors; the example's shape stands for sizes that the file leaves open."""
    if len(specs) != len(example):
        return specs or example
    return [
        replace(spec, shape=given.shape) if min(spec.shape, default=0) < 0 else spec
        for spec, given in zip(specs, example, strict=True)
    ]


def _snippet_photo(how: Preprocessing | None, inputs: Sequence[TensorSpec]) -> Preprocessing | None:
    """Return the photo when the model takes one RGB photo exactly as `preprocessing` prepares it."""
    if how is None or how.photo_sizes or len(inputs) != 1 or not len(how.mean) == len(how.std) == 3:
        return None
    taken = (1, *how.crop, len(how.pixels)) if how.pixels else (1, 3, *how.crop)
    dtype = "uint8" if how.pixels else "float32"
    return how if (inputs[0].shape, inputs[0].dtype) == (taken, dtype) else None


def _snippet_tensor(spec: TensorSpec, taken: set[str]) -> Tensor:
    elements = 1
    for size in spec.shape:
        elements *= size
    return Tensor(
        _snippet_identifier(spec.name, taken),
        _snippet_string(spec.name, "\\u{:04x}"),
        _snippet_string(spec.name, "\\u{{{:x}}}"),
        ", ".join(str(size) for size in spec.shape),
        elements,
        *TYPES[spec.dtype],
    )


def _snippet_identifier(name: str, taken: set[str]) -> str:
    """Return an identifier; its ending distinguishes it from keywords and the templates' names."""
    base = re.sub(r"[^A-Za-z0-9_]", "_", name).lstrip("_0123456789") or "tensor"
    unique, number = f"{base}Values", 2
    while unique in taken:
        unique, number = f"{base}Values{number}", number + 1
    taken.add(unique)
    return unique


def _snippet_string(name: str, escape: str) -> str:
    """Return a string literal; all but plain characters are escaped as UTF-16 units."""
    units = name.encode("utf-16-be", "replace")
    codes = (int.from_bytes(units[i : i + 2]) for i in range(0, len(units), 2))
    plain = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 _-./:")
    return '"' + "".join(chr(c) if c in plain else escape.format(c) for c in codes) + '"'
