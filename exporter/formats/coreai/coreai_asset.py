"""Writes and reads Core AI assets: a folder of the program, its hash, and metadata."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

from exporter.capture.lowering_errors import shorten_lowering_error
from exporter.errors import LoweringError
from exporter.records import Structure, TensorSpec, Variant

PROGRAM, HASH, METADATA = "main.mlirb", "main.hash", "metadata.json"
FILES = (PROGRAM, HASH, METADATA)
GRAPH = "coreai.graph"
"""The operator that holds a function; the asset's only one is called main."""
CREATED = "20200101T000000Z"
"""Written in place of the day of the export, which would make two exports differ."""
DTYPES = {
    "f16": "float16", "f32": "float32", "f64": "float64", "i1": "bool",
    **{f"si{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"ui{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}  # fmt: skip
"""MLIR's name of a type -> NumPy's."""
BYTES = {"float16": 2, "float32": 4, "float64": 8, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2}
ELEMENTWISE = frozenset({"add", "sub", "mul", "divide", "maximum", "minimum"})
_INTEGERS = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (32, 64))


def write_coreai_asset(program: Any, path: Path) -> None:
    """Write coreai's program as an asset, without the day of its creation.

    Raises:
        OSError: The disk is full.
    """
    program.save_asset(path)
    metadata = path / METADATA
    written = json.loads(metadata.read_text())
    written["creationDate"] = CREATED
    metadata.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")


def read_coreai_asset(path: Path, variant: Variant) -> Structure:
    """Read an asset without running it: its program is parsed and verified by Core AI's own reader.

    Args:
        path: The folder.
        variant: One of this format's variants.

    Raises:
        LoweringError: It is not a whole, well-formed asset.
    """
    check_coreai_asset_files(path)
    try:
        from coreai._compiler.ir import Context
        from coreai.authoring import AIProgram

        program = AIProgram._load_bytecode(path / PROGRAM, Context())
        return _coreai_asset_structure(program._module._body)
    except LoweringError:
        raise
    except Exception as error:
        # A hostile program can make the reader raise anything at all.
        raise LoweringError(f"{path.name} is malformed: {shorten_lowering_error(error)}") from error


def check_coreai_asset_files(path: Path) -> None:
    """Check that a folder holds the three files of an asset, and that the program is the one hashed.

    Raises:
        LoweringError: It does not.
    """
    names = {file.name for file in path.iterdir()} if path.is_dir() else set()
    if names != set(FILES) or any((path / n).is_symlink() or not (path / n).is_file() for n in FILES):
        raise LoweringError(f"{path.name} is not a Core AI asset: it must hold {', '.join(FILES)}, alone.")
    if hashlib.sha256((path / PROGRAM).read_bytes()).digest() != (path / HASH).read_bytes():
        raise LoweringError(f"{path.name} is damaged: {PROGRAM} is not the program that {HASH} names.")


def _coreai_asset_structure(body: Any) -> Structure:
    functions = [op for op in body.operations if op.operation.name == GRAPH]
    mains = [op for op in functions if _coreai_asset_name(op, "sym_name") == "main"]
    if len(mains) != 1:
        raise LoweringError("It has no function main.")
    (main,) = mains
    operations = [op for function in functions for op in _coreai_asset_operations(function)]
    weights: Counter[str] = Counter()
    size = 0
    for dtype, shape in filter(None, map(_coreai_asset_weight, operations)):
        weights[dtype] += prod(shape)
        size += prod(shape) * BYTES.get(dtype, 1)
    kinds = Counter(_coreai_asset_kind(op) for op in operations)
    del kinds["constant"], kinds["output"]
    return Structure(*_coreai_asset_tensors(main), dict(kinds), size, dict(weights))


def _coreai_asset_operations(function: Any) -> Iterator[Any]:
    for region in function.operation.regions:
        for block in region.blocks:
            for op in block.operations:
                yield op
                yield from _coreai_asset_operations(op)


def _coreai_asset_kind(op: Any) -> str:
    """Return an operator's name without its dialect: "coreai.decomposable.broadcasting_add" is "add"."""
    return str(op.operation.name).rpartition(".")[2].removeprefix("broadcasting_")


def _coreai_asset_weight(op: Any) -> tuple[str, tuple[int, ...]] | None:
    """Return a constant's type and shape where it is a weight: a matrix, not only added or returned."""
    if _coreai_asset_kind(op) != "constant":
        return None
    (result,) = op.operation.results
    dtype, shape = _coreai_asset_type(result.type)
    if len(shape) < 2 or dtype in _INTEGERS:
        return None
    readers = {_coreai_asset_kind(use.owner) for use in result.uses}
    return None if readers and readers <= ELEMENTWISE | {"output"} else (dtype, shape)


def _coreai_asset_tensors(main: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    from coreai._compiler.ir import FunctionType, TypeAttr

    function = FunctionType(TypeAttr(main.operation.attributes["function_type"]).value)
    return (
        _coreai_asset_specs(main, "arg_attrs", list(function.inputs)),
        _coreai_asset_specs(main, "res_attrs", list(function.results)),
    )


def _coreai_asset_specs(main: Any, attribute: str, types: list[Any]) -> tuple[TensorSpec, ...]:
    if not types:
        return ()
    names = [str(entry["coreai.name"]).strip('"') for entry in main.operation.attributes[attribute]]
    typed = [_coreai_asset_type(kind) for kind in types]
    return tuple(TensorSpec(n, shape, dtype) for n, (dtype, shape) in zip(names, typed, strict=True))


def _coreai_asset_type(kind: Any) -> tuple[str, tuple[int, ...]]:
    from coreai._compiler.ir import RankedTensorType

    if not isinstance(kind, RankedTensorType):
        raise LoweringError(f"It has a value of the type {kind}, which is no tensor.")
    name = str(kind.element_type)
    return DTYPES.get(name, name), tuple(
        -1 if kind.is_dynamic_dim(i) else n for i, n in enumerate(kind.shape)
    )


def _coreai_asset_name(op: Any, attribute: str) -> str:
    return str(op.operation.attributes[attribute]).strip('"')
