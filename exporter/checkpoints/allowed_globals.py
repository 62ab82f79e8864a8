"""What a checkpoint's pickle may call: stand-ins of ours for a fixed list of globals; they import nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pickle import UnpicklingError
from typing import Any

from exporter.checkpoints import foreign_files
from exporter.checkpoints.inert_values import (
    ITEM_BYTES,
    MAX_DIMENSIONS,
    STORAGE_DTYPES,
    AnyTensor,
    ArrayRef,
    DType,
    Foreign,
    Inert,
    Maker,
    NumpyType,
    Opaque,
    OrderedMapping,
    Storage,
    TensorRef,
    safe_inert_value_key,
)


def _allowed_global_integers(value: object, noun: str) -> tuple[int, ...]:
    sizes = value if isinstance(value, tuple | list) and len(value) <= MAX_DIMENSIONS else (None,)
    if not all(type(size) is int and 0 <= size < 2**63 for size in sizes):
        raise UnpicklingError(f"a tensor's {noun} is no list of {MAX_DIMENSIONS} sizes at most")
    return tuple(sizes)


def _allowed_global_tensor(
    storage: object, offset: object, shape: object, strides: object, *_: object
) -> AnyTensor:
    if isinstance(storage, Inert):
        return Opaque(f"of the unknown type {storage.name}")
    if not isinstance(storage, Storage):
        raise UnpicklingError("a tensor is built on something that is no storage")
    return _allowed_global_typed(storage, storage.dtype, offset, shape, strides)


def _allowed_global_typed(
    storage: Storage, dtype: str, offset: object, shape: object, strides: object
) -> TensorRef:
    (start,) = _allowed_global_integers((offset,), "offset")
    sizes, steps = _allowed_global_integers(shape, "shape"), _allowed_global_integers(strides, "strides")
    if len(sizes) != len(steps):
        raise UnpicklingError(f"a tensor has {len(sizes)} sizes and {len(steps)} strides")
    return TensorRef(storage, dtype, start + storage.start, sizes, steps)


def _allowed_global_tensor_v2(
    storage: object,
    offset: object,
    shape: object,
    strides: object,
    grad: object,
    hooks: object,
    bits: object = None,
) -> AnyTensor:
    return (
        Opaque("lazily conjugated or negated")
        if bits
        else _allowed_global_tensor(storage, offset, shape, strides)
    )


def _allowed_global_tensor_v3(
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
    return _allowed_global_typed(storage, dtype.name, offset, shape, strides)


def _allowed_global_first(value: object, *_: object) -> object:
    return value


def _allowed_global_opaque(what: str) -> Maker:
    return Maker(lambda *_: Opaque(what))


WRAPPER_SUBCLASS = _allowed_global_opaque("of a tensor class of its own")


def _allowed_global_mapping(items: Any = (), *_: object) -> dict[Any, Any]:
    pairs = items.items() if isinstance(items, dict) else items
    if not isinstance(pairs, Sequence) and not isinstance(items, dict):
        return {}
    return {safe_inert_value_key(key): value for key, value in pairs}


def _allowed_global_ordered(items: Any = (), *_: object) -> dict[Any, Any]:
    return OrderedMapping(_allowed_global_mapping(items))


def _allowed_global_defaultdict(factory: object = None, items: object = (), *_: object) -> dict[Any, Any]:
    return _allowed_global_mapping(items)


def _allowed_global_set(items: object = (), *_: object) -> set[Any]:
    return {safe_inert_value_key(item) for item in items} if isinstance(items, list | tuple | set) else set()


def _allowed_global_list(items: object = (), *_: object) -> list[Any]:
    return list(items) if isinstance(items, list | tuple | set) else []


def _allowed_global_tuple(items: object = (), *_: object) -> tuple[Any, ...]:
    return tuple(_allowed_global_list(items))


def _allowed_global_encode(text: object, encoding: object = "latin1", *_: object) -> bytes:
    # Protocol 2's way to write bytes. Other codecs (bz2, rot13, …) have no business in a checkpoint.
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise UnpicklingError("bytes are written with an unknown encoding")
    return text.encode(str(encoding))


def _allowed_global_bytearray(data: object = b"", encoding: object = "latin1", *_: object) -> bytes:
    return (
        _allowed_global_encode(data, encoding)
        if isinstance(data, str)
        else data
        if isinstance(data, bytes)
        else b""
    )


def _allowed_global_complex(real: object = 0.0, imaginary: object = 0.0, *_: object) -> complex:
    parts = [part if isinstance(part, int | float) else 0.0 for part in (real, imaginary)]
    return complex(*parts)


def _allowed_global_from_type(function: object, kind: object, arguments: object, *_: object) -> object:
    if function is WRAPPER_SUBCLASS and isinstance(kind, Foreign):
        return Opaque(foreign_files.foreign_file_class_of_tensors(kind.name))
    if not isinstance(function, Maker) or not isinstance(arguments, tuple):
        return Inert(function.name if isinstance(function, Foreign) else "a tensor subclass")
    return function.make(*arguments)


def _allowed_global_numpy_type(code: object = "", *_: object) -> NumpyType:
    if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?[fiub][1248]", code):
        return NumpyType("")
    return NumpyType(code if code[0] in "<>|=" else "<" + code)


def _allowed_global_numpy_array(*_: object) -> ArrayRef:
    return ArrayRef()


def _allowed_global_numpy_scalar(kind: object, data: object = b"", *_: object) -> object:
    if not isinstance(kind, NumpyType) or not kind.code or not isinstance(data, bytes):
        return Inert("a NumPy scalar")
    import numpy as np

    return np.frombuffer(data, np.dtype(kind.code), count=1)[0].item()


def _allowed_global_object(kind: object, *_: object) -> object:
    """The `copyreg` way to make an object, protocols 0 and 1."""
    return Inert(kind.name) if isinstance(kind, Foreign) else Inert("an object")


ALLOWED: Mapping[str, object] = {
    **{f"torch.{name}": DType(name) for name in ITEM_BYTES},
    **{f"torch.{name}": DType(dtype) for name, dtype in STORAGE_DTYPES.items()},
    "torch.storage.UntypedStorage": DType("uint8"),
    "torch._utils._rebuild_tensor": Maker(_allowed_global_tensor),
    "torch._utils._rebuild_tensor_v2": Maker(_allowed_global_tensor_v2),
    "torch._utils._rebuild_tensor_v3": Maker(_allowed_global_tensor_v3),
    "torch._utils._rebuild_parameter": Maker(_allowed_global_first),
    "torch._utils._rebuild_parameter_with_state": Maker(_allowed_global_first),
    "torch.nn.parameter.Parameter": Maker(_allowed_global_first),
    "torch._utils._rebuild_device_tensor_from_numpy": Maker(_allowed_global_first),
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": Maker(_allowed_global_first),
    "torch._utils._rebuild_xla_tensor": Maker(_allowed_global_first),
    "torch._utils._rebuild_qtensor": _allowed_global_opaque("quantised"),
    "torch._utils._rebuild_sparse_tensor": _allowed_global_opaque("sparse"),
    "torch._utils._rebuild_nested_tensor": _allowed_global_opaque("nested"),
    "torch._utils._rebuild_meta_tensor_no_storage": _allowed_global_opaque(
        "on the meta device, without values"
    ),
    "torch._utils._rebuild_wrapper_subclass": WRAPPER_SUBCLASS,
    "torch.distributed._shard.sharded_tensor.api.ShardedTensor": _allowed_global_opaque(
        foreign_files.SHARDED
    ),
    "torch._tensor._rebuild_from_type_v2": Maker(_allowed_global_from_type),
    "torch.Size": Maker(_allowed_global_tuple),
    "collections.OrderedDict": Maker(_allowed_global_ordered),
    "collections.Counter": Maker(_allowed_global_mapping),
    "collections.defaultdict": Maker(_allowed_global_defaultdict),
    "builtins.dict": Maker(_allowed_global_mapping),
    "builtins.set": Maker(_allowed_global_set),
    "builtins.frozenset": Maker(_allowed_global_set),
    "builtins.list": Maker(_allowed_global_list),
    "builtins.tuple": Maker(_allowed_global_tuple),
    "builtins.complex": Maker(_allowed_global_complex),
    "builtins.bytearray": Maker(_allowed_global_bytearray),
    "_codecs.encode": Maker(_allowed_global_encode),
    "copyreg._reconstructor": Maker(_allowed_global_object),
    "copyreg.__newobj__": Maker(_allowed_global_object),
    "numpy.dtype": Maker(_allowed_global_numpy_type),
    "numpy.core.multiarray._reconstruct": Maker(_allowed_global_numpy_array),
    "numpy.core.multiarray.scalar": Maker(_allowed_global_numpy_scalar),
}
