"""Writes ONNX models in ONNX Runtime's own format (.ort) for the CPUs of phones."""

from __future__ import annotations

import mmap
import shutil
import tempfile
from pathlib import Path
from typing import Any

from exporter.formats.onnx.ort_file import ort_file_session_table

ALIGNMENT = 64
"""Bytes of padding that keep every field of the model part aligned as ONNX Runtime wrote it."""
BLOCK = 1 << 20


def convert_to_ort(model: Path, target: Path) -> None:
    """Optimise an ONNX model and write it in ORT format, as ONNX Runtime's convert_onnx_models_to_ort does.

    The settings are those of `--target_platform arm` and the fixed style (all optimisations now, none on the
    phone): no blocked layout (NCHWc, x86 only), int8 activations stay int8. The tool itself is not used,
    because it works on folders and prints.

    Args:
        model: The model's file.
        target: The file to write.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    options.add_session_config_entry("session.disable_prepacking", "1")  # a copy of the weights: nothing runs
    with tempfile.TemporaryDirectory(prefix="export-mobile-") as folder:
        path = Path(folder) / "model.ort"
        options.optimized_model_filepath = str(path)
        ort.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"], disabled_optimizers=["NchwcTransformer"]
        )
        _write_reproducible_ort(path, target)


def _write_reproducible_ort(source: Path, target: Path) -> None:
    """Rewrite the head of a file we just wrote, so that the same model gives the same bytes.

    ONNX Runtime lists its kernels' type constraints in the order of a randomly seeded hash table. They come
    first in the file, the model after them, and the model never points back.
    """
    with source.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        head, body = _reproducible_ort_head(data)
    with source.open("rb") as stream, target.open("wb") as file:
        file.write(head)
        stream.seek(body)
        shutil.copyfileobj(stream, file, BLOCK)


def _reproducible_ort_head(data: mmap.mmap) -> tuple[bytes, int]:
    """Return the new head of a file, and the place from which on the file stays as it is."""
    session = ort_file_session_table(data)
    old_model = session.Model()._tab.Pos
    # A table's own layout may be stored before it.
    body = min(old_model, old_model - _signed_ort_offset(data, old_model))
    head, slot = _convert_ort_head(session)
    padding = (body - len(head)) % ALIGNMENT
    target = len(head) + padding + old_model - body
    head[slot : slot + 4] = (target - slot).to_bytes(4, "little")
    return bytes(head) + bytes(padding), body


def _signed_ort_offset(data: mmap.mmap, position: int) -> int:
    return int.from_bytes(data[position : position + 4], "little", signed=True)


def _convert_ort_head(session: Any) -> tuple[bytearray, int]:
    """Build the session table with its kernels' constraints; return it and where the model's offset goes."""
    import flatbuffers
    from ort_flatbuffers_py.fbs import InferenceSession as Table
    from ort_flatbuffers_py.fbs import KernelTypeStrResolver as Resolver
    from ort_flatbuffers_py.fbs import Model

    builder = flatbuffers.Builder()
    operators = [
        _convert_ort_operator(builder, o)
        for o in _ort_list(session.KernelTypeStrResolver(), "OpKernelTypeStrArgs")
    ]
    entries = _convert_ort_vector(builder, Resolver.StartOpKernelTypeStrArgsVector, operators)
    Resolver.Start(builder)
    Resolver.AddOpKernelTypeStrArgs(builder, entries)
    resolver = Resolver.End(builder)
    version = builder.CreateString(session.OrtVersion())
    Model.Start(builder)
    placeholder = Model.End(builder)
    Table.Start(builder)
    Table.AddOrtVersion(builder, version)
    Table.AddModel(builder, placeholder)
    Table.AddKernelTypeStrResolver(builder, resolver)
    builder.Finish(Table.End(builder), file_identifier=b"ORTM")
    head = builder.Output()
    table = ort_file_session_table(bytes(head))._tab
    return head, table.Pos + table.Offset(6)


def _convert_ort_operator(builder: Any, entry: Any) -> int:
    from ort_flatbuffers_py.fbs import OpIdKernelTypeStrArgsEntry as Entry

    constraints = [_convert_ort_constraint(builder, c) for c in _ort_list(entry, "KernelTypeStrArgs")]
    vector = _convert_ort_vector(builder, Entry.StartKernelTypeStrArgsVector, constraints)
    name = builder.CreateString(entry.OpId())
    Entry.Start(builder)
    Entry.AddOpId(builder, name)
    Entry.AddKernelTypeStrArgs(builder, vector)
    return Entry.End(builder)  # type: ignore[no-any-return]


def _convert_ort_constraint(builder: Any, entry: Any) -> int:
    from ort_flatbuffers_py.fbs import ArgTypeAndIndex as Argument
    from ort_flatbuffers_py.fbs import KernelTypeStrArgsEntry as Entry

    arguments = []
    for argument in _ort_list(entry, "Args"):
        Argument.Start(builder)
        Argument.AddArgType(builder, argument.ArgType())
        Argument.AddIndex(builder, argument.Index())
        arguments.append(Argument.End(builder))
    vector = _convert_ort_vector(builder, Entry.StartArgsVector, arguments)
    name = builder.CreateString(entry.KernelTypeStr())
    Entry.Start(builder)
    Entry.AddKernelTypeStr(builder, name)
    Entry.AddArgs(builder, vector)
    return Entry.End(builder)  # type: ignore[no-any-return]


def _ort_list(owner: Any, field: str) -> list[Any]:
    return [getattr(owner, field)(i) for i in range(getattr(owner, f"{field}Length")())]


def _convert_ort_vector(builder: Any, start: Any, offsets: list[int]) -> int:
    start(builder, len(offsets))
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()  # type: ignore[no-any-return]
