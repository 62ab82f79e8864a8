"""Reads and writes an `.mlpackage` folder: its manifest, model description and weights."""

from __future__ import annotations

import json
import logging
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from exporter.errors import LoweringError

AUTHOR = "com.apple.CoreML"
NAMES_KEY = "export-mobile.names"
"""Our metadata key for the model's own input and output names, which Core ML's rules may have changed."""

_MODEL = Path("Data", AUTHOR, "model.mlmodel")
WEIGHTS = Path("Data", AUTHOR, "weights", "weight.bin")
# coremltools draws random ones, so that no two exports are alike. Any constant will do: they only link the
# root to its item within the one file.
_MODEL_ID = "9b1c5f3a-6c1e-5d0b-9c57-0e6f6f3f6a01"
_WEIGHTS_ID = "9b1c5f3a-6c1e-5d0b-9c57-0e6f6f3f6a02"

# MILBlob storage: a 64-byte header, then blobs, each a 64-byte record that says where its bytes are.
_FILE_HEADER = struct.Struct("<II56x")
_BLOB = struct.Struct("<IIQQ40x")
_BLOB_MARK = 0xDEADBEEF
_STORAGE_VERSION = 2


@dataclass(frozen=True, eq=False)
class Package:
    """A model before it is written, or after it is read."""

    spec: Any
    """The `Model` message of Core ML's protobuf."""
    weights: bytes


def coremltools_quietly_for_package() -> ModuleType:
    """Import coremltools; silence its warnings about versions it wasn't tested with."""
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    import coremltools

    return coremltools  # type: ignore[no-any-return]


def coreml_package_names(inputs: Sequence[str], outputs: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return names that Core ML accepts (letters, digits, underscores), all different."""
    taken: set[str] = set()
    names = []
    for wanted in (*inputs, *outputs):
        name = re.sub(r"[^A-Za-z0-9_]", "_", wanted)
        name = name if re.match(r"[A-Za-z_]", name) else f"_{name}"
        while name in taken:
            name += "_"
        taken.add(name)
        names.append(name)
    return names[: len(inputs)], names[len(inputs) :]


def write_coreml_package(package: Package, path: Path) -> None:
    """Write the folder; the same package gives the same bytes."""
    items = {_MODEL_ID: _coreml_package_item("CoreML Model Specification", "model.mlmodel")}
    (path / WEIGHTS).parent.mkdir(parents=True)
    if package.weights:
        items[_WEIGHTS_ID] = _coreml_package_item("CoreML Model Weights", "weights")
        (path / WEIGHTS).write_bytes(package.weights)
    (path / _MODEL).write_bytes(package.spec.SerializeToString(deterministic=True))
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": items, "rootModelIdentifier": _MODEL_ID}
    (path / "Manifest.json").write_text(json.dumps(manifest, indent=4))


def _coreml_package_item(description: str, name: str) -> dict[str, str]:
    return {"author": AUTHOR, "description": description, "name": name, "path": f"{AUTHOR}/{name}"}


def read_coreml_package(path: Path) -> Package:
    """Read a folder made by `write_coreml_package` or coremltools, and check that each weight is in its file.

    Raises:
        LoweringError: It is not a whole package with one ML Program.
    """
    _check_coreml_package_manifest(path)
    ct = coremltools_quietly_for_package()
    spec = ct.proto.Model_pb2.Model()
    spec.ParseFromString(_read_coreml_package_file(path, _MODEL))
    if spec.WhichOneof("Type") != "mlProgram":
        raise LoweringError(f"{path.name} holds no ML Program but {spec.WhichOneof('Type') or 'nothing'}.")
    weights = _read_coreml_package_file(path, WEIGHTS) if (path / WEIGHTS).exists() else b""
    package = Package(spec, weights)
    _check_coreml_package_blobs(package)
    return package


def _check_coreml_package_manifest(path: Path) -> None:
    manifest = json.loads(_read_coreml_package_file(path, Path("Manifest.json")))
    root = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]
    if root["path"] != f"{AUTHOR}/{_MODEL.name}":
        raise LoweringError(f"{path.name}'s manifest names {root['path']!r} as its model.")


def _read_coreml_package_file(path: Path, name: Path) -> bytes:
    file = path / name
    if file.is_symlink() or not file.is_file():
        raise LoweringError(f"{path.name} is not a Core ML package: it has no file {name.as_posix()}.")
    return file.read_bytes()


def _check_coreml_package_blobs(package: Package) -> None:
    offsets = set(_coreml_package_offsets(package.spec.mlProgram))
    if not offsets:
        return
    size = len(package.weights)
    if size < _FILE_HEADER.size:
        raise LoweringError(f"weight.bin has {size} bytes: its header is cut off.")
    count, version = _FILE_HEADER.unpack_from(package.weights)
    if version != _STORAGE_VERSION or count < len(offsets):
        raise LoweringError(f"weight.bin (version {version}) holds {count} weights of {len(offsets)} used.")
    for offset in offsets:
        if offset + _BLOB.size > size:
            raise LoweringError(
                f"weight.bin is cut off: it has {size} bytes, and a weight starts at {offset}."
            )
        mark, _, length, start = _BLOB.unpack_from(package.weights, offset)
        if mark != _BLOB_MARK:
            raise LoweringError(f"weight.bin is damaged: no weight starts at byte {offset}.")
        if start + length > size:
            raise LoweringError(
                f"weight.bin is cut off: it has {size} bytes, a weight ends at {start + length}."
            )


def _coreml_package_offsets(message: Any) -> Iterator[int]:
    """Yield where each value of a program that is stored in the weight file starts."""
    for field, value in message.ListFields():
        if field.name == "blobFileValue":
            if value.fileName != "@model_path/weights/weight.bin":
                raise LoweringError(f"A weight is stored in an unknown file, {value.fileName!r}.")
            yield value.offset
        elif field.message_type is not None:
            for child in _coreml_package_children(value):
                yield from _coreml_package_offsets(child)


def _coreml_package_children(value: Any) -> list[Any]:
    """List the messages in a message field: a single message, a list, or the values of a map."""
    if hasattr(value, "ListFields"):
        return [value]
    children = list(value.values()) if hasattr(value, "values") else list(value)
    return [child for child in children if hasattr(child, "ListFields")]
