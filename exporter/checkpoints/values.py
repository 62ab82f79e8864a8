"""What the restricted unpickler may build instead of a checkpoint's own objects: inert records, no more.

Nothing here imports what a checkpoint names. `ALLOWED` maps a global's dotted name to a stand-in of ours;
every other global becomes `Foreign`, and whatever is made from it an `Inert` object.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any, TypeAlias

from exporter.checkpoints import foreign

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
    """Where a tensor's bytes lie: `numel` elements of `dtype`, of which the first `start` are skipped."""

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


def layer_versions_value(value: object) -> dict[str, dict[str, Any]] | None:
    """What PyTorch noted in a state_dict of its layers' formats; None where there are no such notes."""
    state = value.state if isinstance(value, OrderedMapping) else None
    listed = state.get("_metadata") if isinstance(state, dict) else None
    if not isinstance(listed, dict):
        return None
    if sum(len(noted) for noted in listed.values() if isinstance(noted, dict)) > MAX_NOTES:
        return None  # nobody's: PyTorch notes one version per layer
    return {
        layer: {key: item for key, item in noted.items() if isinstance(key, str) and is_plain_value(item)}
        for layer, noted in listed.items()
        if isinstance(layer, str) and isinstance(noted, dict)
    }


PLAIN_DEPTH = 4
PLAIN_ITEMS = 10_000


def is_plain_value(value: object) -> bool:
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


def is_tensor_value(value: object) -> bool:
    return isinstance(value, TensorRef | ArrayRef | Opaque)


def is_module_value(value: object) -> bool:
    """Tell whether an inert object was an `nn.Module`, told by the state it was given."""
    return (
        isinstance(value, Inert)
        and isinstance(value.state, dict)
        and {"_parameters", "_modules"} <= set(value.state)
    )


SCALARS = (str, int, float, bool, bytes, complex, type(None))


def safe_value_key(key: object) -> Any:
    """A key that is cheap to hash: a tuple nested a million deep would overflow the interpreter's stack.

    An inert object is hashed by its identity.
    """
    if isinstance(key, Inert):
        return key
    flat = type(key) is tuple and len(key) < 64 and all(type(part) in SCALARS for part in key)
    return key if type(key) in SCALARS or flat else Inert(f"a {type(key).__name__} as a key")


MAX_DIMENSIONS = 64
"""PyTorch's own limit."""


def _integer_values(value: object, noun: str) -> tuple[int, ...]:
    sizes = value if isinstance(value, tuple | list) and len(value) <= MAX_DIMENSIONS else (None,)
    if not all(type(size) is int and 0 <= size < 2**63 for size in sizes):
        raise UnpicklingError(f"a tensor's {noun} is no list of {MAX_DIMENSIONS} sizes at most")
    return tuple(sizes)


def _tensor_value(storage: object, offset: object, shape: object, strides: object, *_: object) -> AnyTensor:
    if isinstance(storage, Inert):
        return Opaque(f"of the unknown type {storage.name}")
    if not isinstance(storage, Storage):
        raise UnpicklingError("a tensor is built on something that is no storage")
    return _typed_value(storage, storage.dtype, offset, shape, strides)


def _typed_value(storage: Storage, dtype: str, offset: object, shape: object, strides: object) -> TensorRef:
    (start,) = _integer_values((offset,), "offset")
    sizes, steps = _integer_values(shape, "shape"), _integer_values(strides, "strides")
    if len(sizes) != len(steps):
        raise UnpicklingError(f"a tensor has {len(sizes)} sizes and {len(steps)} strides")
    return TensorRef(storage, dtype, start + storage.start, sizes, steps)


def _tensor_v2_value(
    storage: object,
    offset: object,
    shape: object,
    strides: object,
    grad: object,
    hooks: object,
    bits: object = None,
) -> AnyTensor:
    return Opaque("lazily conjugated or negated") if bits else _tensor_value(storage, offset, shape, strides)


def _tensor_v3_value(
    storage: object,
    offset: object,
    shape: object,
    strides: object,
    grad: object,
    hooks: object,
    dtype: object,
    *_: object,
) -> TensorRef:
    if not isinstance(storage, Storage) or not isinstance(dtype, DType):
        raise UnpicklingError("a tensor is built on something that is no storage")
    return _typed_value(storage, dtype.name, offset, shape, strides)


def _first_value(value: object, *_: object) -> object:
    return value


def _opaque_value(what: str) -> Maker:
    return Maker(lambda *_: Opaque(what))


WRAPPER_SUBCLASS = _opaque_value("of a tensor class of its own")


def _mapping_value(items: Any = (), *_: object) -> dict[Any, Any]:
    pairs = items.items() if isinstance(items, dict) else items
    if not isinstance(pairs, Sequence) and not isinstance(items, dict):
        return {}
    return {safe_value_key(key): value for key, value in pairs}


def _ordered_value(items: Any = (), *_: object) -> dict[Any, Any]:
    return OrderedMapping(_mapping_value(items))


def _defaultdict_value(factory: object = None, items: object = (), *_: object) -> dict[Any, Any]:
    return _mapping_value(items)


def _set_value(items: object = (), *_: object) -> set[Any]:
    return {safe_value_key(item) for item in items} if isinstance(items, list | tuple | set) else set()


def _list_value(items: object = (), *_: object) -> list[Any]:
    return list(items) if isinstance(items, list | tuple | set) else []


def _tuple_value(items: object = (), *_: object) -> tuple[Any, ...]:
    return tuple(_list_value(items))


def _encode_value(text: object, encoding: object = "latin1", *_: object) -> bytes:
    # Protocol 2's way to write bytes. Other codecs (bz2, rot13, …) have no business in a checkpoint.
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise UnpicklingError("bytes are written with an unknown encoding")
    return text.encode(str(encoding))


def _bytearray_value(data: object = b"", encoding: object = "latin1", *_: object) -> bytes:
    return (
        _encode_value(data, encoding) if isinstance(data, str) else data if isinstance(data, bytes) else b""
    )


def _complex_value(real: object = 0.0, imaginary: object = 0.0, *_: object) -> complex:
    parts = [part if isinstance(part, int | float) else 0.0 for part in (real, imaginary)]
    return complex(*parts)


def _rebuild_value_from_type(function: object, kind: object, arguments: object, *_: object) -> object:
    if function is WRAPPER_SUBCLASS and isinstance(kind, Foreign):
        return Opaque(foreign.foreign_class_of_tensors(kind.name))
    if not isinstance(function, Maker) or not isinstance(arguments, tuple):
        return Inert(function.name if isinstance(function, Foreign) else "a tensor subclass")
    return function.make(*arguments)


def _numpy_type_value(code: object = "", *_: object) -> NumpyType:
    if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?[fiub][1248]", code):
        return NumpyType("")
    return NumpyType(code if code[0] in "<>|=" else "<" + code)


def _numpy_array_value(*_: object) -> ArrayRef:
    return ArrayRef()


def _numpy_scalar_value(kind: object, data: object = b"", *_: object) -> object:
    if not isinstance(kind, NumpyType) or not kind.code or not isinstance(data, bytes):
        return Inert("a NumPy scalar")
    import numpy as np

    return np.frombuffer(data, np.dtype(kind.code), count=1)[0].item()


def _object_value(kind: object, *_: object) -> object:
    """The `copyreg` way to make an object, protocols 0 and 1."""
    return Inert(kind.name) if isinstance(kind, Foreign) else Inert("an object")


ALLOWED: Mapping[str, object] = {
    **{f"torch.{name}": DType(name) for name in ITEM_BYTES},
    **{f"torch.{name}": DType(dtype) for name, dtype in STORAGE_DTYPES.items()},
    "torch.storage.UntypedStorage": DType("uint8"),
    "torch._utils._rebuild_tensor": Maker(_tensor_value),
    "torch._utils._rebuild_tensor_v2": Maker(_tensor_v2_value),
    "torch._utils._rebuild_tensor_v3": Maker(_tensor_v3_value),
    "torch._utils._rebuild_parameter": Maker(_first_value),
    "torch._utils._rebuild_parameter_with_state": Maker(_first_value),
    "torch.nn.parameter.Parameter": Maker(_first_value),
    "torch._utils._rebuild_device_tensor_from_numpy": Maker(_first_value),
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": Maker(_first_value),
    "torch._utils._rebuild_xla_tensor": Maker(_first_value),
    "torch._utils._rebuild_qtensor": _opaque_value("quantised"),
    "torch._utils._rebuild_sparse_tensor": _opaque_value("sparse"),
    "torch._utils._rebuild_nested_tensor": _opaque_value("nested"),
    "torch._utils._rebuild_meta_tensor_no_storage": _opaque_value("on the meta device, without values"),
    "torch._utils._rebuild_wrapper_subclass": WRAPPER_SUBCLASS,
    "torch.distributed._shard.sharded_tensor.api.ShardedTensor": _opaque_value(foreign.SHARDED),
    "torch._tensor._rebuild_from_type_v2": Maker(_rebuild_value_from_type),
    "torch.Size": Maker(_tuple_value),
    "collections.OrderedDict": Maker(_ordered_value),
    "collections.Counter": Maker(_mapping_value),
    "collections.defaultdict": Maker(_defaultdict_value),
    "builtins.dict": Maker(_mapping_value),
    "builtins.set": Maker(_set_value),
    "builtins.frozenset": Maker(_set_value),
    "builtins.list": Maker(_list_value),
    "builtins.tuple": Maker(_tuple_value),
    "builtins.complex": Maker(_complex_value),
    "builtins.bytearray": Maker(_bytearray_value),
    "_codecs.encode": Maker(_encode_value),
    "copyreg._reconstructor": Maker(_object_value),
    "copyreg.__newobj__": Maker(_object_value),
    "numpy.dtype": Maker(_numpy_type_value),
    "numpy.core.multiarray._reconstruct": Maker(_numpy_array_value),
    "numpy.core.multiarray.scalar": Maker(_numpy_scalar_value),
}
