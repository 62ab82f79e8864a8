"""What the restricted unpickler builds instead of a checkpoint's own objects: inert records, no more.

Nothing here imports what a checkpoint names. `allowed.ALLOWED` maps a global's dotted name to a stand-in of
ours; every other global becomes `Foreign`, and whatever is made from it an `Inert` object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

ITEM_BYTES: Mapping[str, int] = {
    "bool": 1, "uint8": 1, "int8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8,
    "uint64": 8, "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "complex64": 8, "complex128": 16,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1,
}  # fmt: skip
"""torch dtype -> bytes per element."""

STORAGE_DTYPES: Mapping[str, str] = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16",
    "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool", "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128", "QInt8Storage": "int8",
    "QUInt8Storage": "uint8", "QInt32Storage": "int32", "UntypedStorage": "uint8",
}  # fmt: skip


@dataclass(frozen=True)
class DType:
    name: str


@dataclass(frozen=True)
class Storage:
    """Where a tensor's bytes are: `numel` elements of `dtype`, of which the first `start` are skipped."""

    key: str
    dtype: str
    numel: int
    start: int = 0

    @property
    def size_bytes(self) -> int:
        return self.numel * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class TensorRef:
    """A tensor as the pickle declares it; checked against the stored bytes only when it is read."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(eq=False)
class ArrayRef:
    """A NumPy array; `dtype` is NumPy's type string ("<f4"). Filled by the pickle's BUILD."""

    shape: tuple[int, ...] = ()
    dtype: str = ""
    fortran: bool = False
    data: bytes = b""


@dataclass(eq=False)
class NumpyType:
    code: str


@dataclass(frozen=True)
class Opaque:
    """A tensor whose values cannot be had: quantised, sparse, meta, … `what` says which."""

    what: str


AnyTensor: TypeAlias = TensorRef | ArrayRef | Opaque


@dataclass(frozen=True)
class Foreign:
    """A class or function that is not on the list: known by name only, never imported."""

    name: str


@dataclass(eq=False)
class Inert:
    """An object made from a `Foreign`: it takes any arguments and state, and does nothing."""

    name: str
    state: Any = None


@dataclass(frozen=True)
class Maker:
    """One of our stand-ins, the only thing a pickle can call."""

    make: Callable[..., Any]


class OrderedMapping(dict[Any, Any]):
    """A `collections.OrderedDict` with its attributes in `state`, where a state_dict has its `_metadata`."""

    state: Any = None


MAX_NOTES = 100_000


def layer_versions_inert_value(value: object) -> dict[str, dict[str, Any]] | None:
    """What PyTorch noted in a state_dict of its layers' formats; None where there are no such notes."""
    state = value.state if isinstance(value, OrderedMapping) else None
    listed = state.get("_metadata") if isinstance(state, dict) else None
    if not isinstance(listed, dict):
        return None
    if sum(len(noted) for noted in listed.values() if isinstance(noted, dict)) > MAX_NOTES:
        return None  # not PyTorch's, which notes one version per layer
    return {
        layer: {
            key: item for key, item in noted.items() if isinstance(key, str) and is_plain_inert_value(item)
        }
        for layer, noted in listed.items()
        if isinstance(layer, str) and isinstance(noted, dict)
    }


PLAIN_DEPTH = 8
"""How deep they may be nested: a row of Ultralytics' descriptions has lists of lists among its arguments."""
PLAIN_ITEMS = 10_000


def is_plain_inert_value(value: object) -> bool:
    """Tell whether a value is numbers and text, alone or in few and shallow lists and dictionaries."""
    level: list[object] = [value]
    seen = 0
    for _ in range(PLAIN_DEPTH + 1):
        inside: list[object] = []
        for item in level:
            if isinstance(item, dict | list | tuple):
                inside += [*item.keys(), *item.values()] if isinstance(item, dict) else item
            elif type(item) not in SCALARS:
                return False
            if seen + len(inside) > PLAIN_ITEMS:  # one list may stand in another a thousand times
                return False
        seen += len(inside)
        level = inside
    return not level


def is_tensor_inert_value(value: object) -> bool:
    return isinstance(value, TensorRef | ArrayRef | Opaque)


def is_module_inert_value(value: object) -> bool:
    """Tell whether an inert object was an `nn.Module`, judging by the state it was given."""
    return (
        isinstance(value, Inert)
        and isinstance(value.state, dict)
        and {"_parameters", "_modules"} <= set(value.state)
    )


SCALARS = (str, int, float, bool, bytes, complex, type(None))


def safe_inert_value_key(key: object) -> Any:
    """A key that is cheap to hash: a tuple nested a million deep would overflow the interpreter's stack.

    An inert object is hashed by its identity.
    """
    if isinstance(key, Inert):
        return key
    flat = type(key) is tuple and len(key) < 64 and all(type(part) in SCALARS for part in key)
    return key if type(key) in SCALARS or flat else Inert(f"a {type(key).__name__} as a key")


MAX_DIMENSIONS = 64
"""PyTorch's own limit."""
