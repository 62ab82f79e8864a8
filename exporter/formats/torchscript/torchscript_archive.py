"""Reads a `.ptl` archive without running it: its bytecode is a pickle, unpickled here into inert records."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter import files
from exporter.capture.lowering_errors import shorten_lowering_error
from exporter.checkpoints import torchscript_operators
from exporter.errors import LoweringError
from exporter.records import Structure, TensorSpec, Variant

SIGNATURE = "signature.json"
"""The extra file that we write: names, shapes and dtypes of inputs and outputs, which the bytecode lacks."""

MAX_CODE_BYTES = 16 << 20
NO_WEIGHTS = ("int64", "int32", "int16", "bool")
"""Positions, lookup tables and masks, not weights: those are floats, or 8 bits and fewer."""

_STORAGES: dict[str, tuple[str, int]] = {
    "FloatStorage": ("float32", 4),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "DoubleStorage": ("float64", 8),
    "ComplexFloatStorage": ("complex64", 8),
    "ComplexDoubleStorage": ("complex128", 16),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
    "QInt8Storage": ("int8", 1),
    "QUInt8Storage": ("uint8", 1),
    "QInt32Storage": ("int32", 4),
}


@dataclass(frozen=True)
class _ArchiveTensor:
    record: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    elements: int
    """Elements of the whole record, of which this may be a part, as one of attention's projections is."""


def check_torchscript_archive(path: Path) -> None:
    """Check that the archive is whole: every record's checksum, and no tensor or bytecode compressed.

    Raises:
        LoweringError: It is damaged, or it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_torchscript_archive_record(archive, path)
    except (OSError, zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        raise LoweringError(
            f"{path.name} is not a whole TorchScript archive: {shorten_lowering_error(error)}"
        ) from error


def torchscript_archive_structure(path: Path, variant: Variant) -> Structure:
    """Read operators, weights, inputs and outputs of a `.ptl` file.

    Args:
        path: The file.
        variant: One of this format's variants.

    Returns:
        Operators as the bytecode calls them, counted per call site ("aten::add.Tensor"). Inputs and outputs
        are empty in files without our signature. Bytecode does not tell what a tensor is used for: those that
        are only added count as weights too.

    Raises:
        LoweringError: It is not a whole, well-formed file for the lite interpreter.
    """
    check_torchscript_archive(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _torchscript_archive_structure(archive)
    except LoweringError:
        raise
    except Exception as error:
        # A hostile pickle can raise anything at all.
        raise LoweringError(f"{path.name} has malformed bytecode: {shorten_lowering_error(error)}") from error


def _check_torchscript_archive_record(archive: zipfile.ZipFile, path: Path) -> None:
    # PyTorch compresses source code only: PyTorch wrote nothing else that unpacks to more bytes.
    packed = (i for i in archive.infolist() if i.compress_type != zipfile.ZIP_STORED)
    if any("/code/" not in i.filename or i.file_size > MAX_CODE_BYTES for i in packed):
        raise LoweringError(f"{path.name} has compressed records, which PyTorch never writes.")
    if problem := files.duplicate_files(archive.infolist()):
        raise LoweringError(f"{path.name}: {problem}.")
    damaged = archive.testzip()
    if damaged is not None:
        raise LoweringError(f"{path.name} is damaged: the checksum of its record {damaged} is wrong.")
    bytecodes = sum(name.lower().endswith("/bytecode.pkl") for name in archive.namelist())
    if bytecodes != 1 or not any(name.endswith("/bytecode.pkl") for name in archive.namelist()):
        raise LoweringError(f"{path.name} holds no bytecode: the lite interpreter cannot run it.")


def _torchscript_archive_structure(archive: zipfile.ZipFile) -> Structure:
    root = next(n for n in archive.namelist() if n.endswith("/bytecode.pkl")).removesuffix("bytecode.pkl")
    tensors: list[_ArchiveTensor] = []
    bytecode = _unpickle_from_torchscript_archive(archive, root, "bytecode.pkl", "constants", tensors)
    _unpickle_from_torchscript_archive(archive, root, "data.pkl", "data", tensors)
    methods = list(_torchscript_archive_methods(bytecode))
    named = {name for _, method in methods for name, *_ in method["operators"]}
    if refused := torchscript_operators.refused_torchscript_operators(named):
        raise LoweringError(f"Its code {torchscript_operators.torchscript_operators_complaint(refused)}")
    inputs, outputs = _torchscript_archive_signature(archive, root)
    arguments = next(len(m["arguments"]) for name, m in methods if name.endswith(".forward")) - 1
    if inputs and len(inputs) != arguments:
        raise LoweringError(f"Its signature names {len(inputs)} inputs, its bytecode takes {arguments}.")
    # Tensors that share a record (tied weights) are stored once.
    weights = {
        tensor.record: tensor
        for tensor in tensors
        if len(tensor.shape) >= 2 and tensor.dtype not in NO_WEIGHTS
    }.values()
    elements: Counter[str] = Counter()
    for tensor in weights:
        elements[tensor.dtype] += tensor.elements
    return Structure(
        inputs=inputs,
        outputs=outputs,
        operators=_torchscript_archive_operators(method for _, method in methods),
        weight_bytes=sum(tensor.size_bytes for tensor in weights),
        weight_elements=dict(elements),
    )


def _torchscript_archive_methods(bytecode: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each method's name, and its code and schema in one table: (version, (name, code, schema), …)."""
    for name, code, schema in bytecode[1:]:
        yield name, dict(code) | dict(schema)


def _torchscript_archive_operators(methods: Iterator[dict[str, Any]]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for method in methods:
        names = [f"{name}.{overload}" if overload else name for name, overload, *_ in method["operators"]]
        called = [index for code, index, _ in method["instructions"] if code in ("OP", "OPN")]
        counts.update(names[index] for index in called)
    return dict(counts)


def _torchscript_archive_signature(
    archive: zipfile.ZipFile, root: str
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    name = f"{root}extra/{SIGNATURE}"
    if name not in archive.namelist():
        return (), ()
    signature = json.loads(archive.read(name))
    inputs, outputs = (
        tuple(
            TensorSpec(str(s["name"]), tuple(map(int, s["shape"])), str(s["dtype"])) for s in signature[key]
        )
        for key in ("inputs", "outputs")
    )
    return inputs, outputs


def _unpickle_from_torchscript_archive(
    archive: zipfile.ZipFile, root: str, name: str, folder: str, tensors: list[_ArchiveTensor]
) -> Any:
    """Unpickle a record; the tensors it refers to, whose bytes are in `folder`, are added to `tensors`."""
    return _ArchiveUnpickler(archive, f"{root}{folder}/", archive.read(root + name), tensors).load()


class _ArchiveInert:
    """Stands for an object of any class, so that no code of the archive runs."""

    def __new__(cls, *args: object) -> _ArchiveInert:
        return super().__new__(cls)

    def __init__(self, *args: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


class _ArchiveUnpickler(pickle.Unpickler):
    def __init__(
        self, archive: zipfile.ZipFile, folder: str, data: bytes, tensors: list[_ArchiveTensor]
    ) -> None:
        super().__init__(io.BytesIO(data))
        self._archive = archive
        self._folder = folder
        self._tensors = tensors

    def find_class(self, module: str, name: str) -> Any:
        rebuilders: dict[str, Callable[..., Any]] = {
            "torch._utils._rebuild_tensor_v2": self._rebuild,
            "torch._utils._rebuild_qtensor": self._rebuild,
            "collections.OrderedDict": dict,
        }
        if module == "torch" and name.endswith("Storage"):
            return name
        return rebuilders.get(f"{module}.{name}", _ArchiveInert)

    def persistent_load(self, pid: Any) -> tuple[str, str, int, int]:
        _, storage, record, _, elements = pid
        dtype, item_bytes = _STORAGES[storage]
        expected, actual = elements * item_bytes, self._archive.getinfo(self._folder + record).file_size
        if expected != actual:
            raise LoweringError(f"Its record {self._folder}{record} has {actual} bytes, not {expected}.")
        return self._folder + record, dtype, actual, elements

    def _rebuild(
        self, storage: tuple[str, str, int, int], offset: int, shape: Any, *_: object
    ) -> _ArchiveTensor:
        record, dtype, size_bytes, elements = storage
        tensor = _ArchiveTensor(record, dtype, tuple(map(int, shape)), size_bytes, elements)
        self._tensors.append(tensor)
        return tensor
