"""An unpickler that imports nothing and calls nothing but the stand-ins in `allowed.ALLOWED`.

It is Python's own pure-Python unpickler with every opcode that looks a name up, calls, or changes an object
overridden. The C one would allocate whatever memo index or buffer length a hostile file declares.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from exporter.checkpoints.allowed_globals import ALLOWED
from exporter.checkpoints.inert_values import (
    ArrayRef,
    DType,
    Foreign,
    Inert,
    Maker,
    NumpyType,
    OrderedMapping,
    Storage,
    safe_inert_value_key,
)

RENAMED = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy._core.multiarray": "numpy.core.multiarray",
}
"""Python 2 and NumPy 2 names of the same things."""


COPIES = (list, tuple, dict, set, bytes)
COPIES_PER_BYTE = 4
COPIES_SLACK = 1 << 20
"""How much the stand-ins may copy, in items and bytes, beside what each byte of the file may ask for."""


class BoundedPickleFile:
    """A file that never allocates for bytes it doesn't have."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.size = size

    def read(self, count: int) -> bytes:
        if count > self.size - self.file.tell():
            raise EOFError("the pickle ends early")
        return self.file.read(count)

    def readline(self) -> bytes:
        return self.file.readline()


class RestrictedUnpickler(pickle._Unpickler):
    """Unpickles to plain containers, scalars and the records of `values`."""

    stack: list[Any]
    append: Callable[[object], None]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]

    def __init__(self, file: BoundedPickleFile) -> None:
        # Python 2 wrote bytes and text alike; latin1 reads both without failing.
        super().__init__(file, encoding="latin1")
        self._copied = 0
        self._may_copy = COPIES_PER_BYTE * file.size + COPIES_SLACK

    def find_class(self, module: str, name: str) -> object:
        full = f"{RENAMED.get(module, module)}.{name}"
        return ALLOWED.get(full) or Foreign(full)

    def persistent_load(self, pid: object) -> object:
        match pid:
            case ("storage", DType(dtype), str(key) | int(key), _, int(numel), *view) if 0 <= numel < 2**60:
                return _view_storage_for_unpickling(Storage(str(key), dtype, numel), view)
            case ("storage", Foreign(name), *_):
                return Inert(name)
            case ("module", kind, *_):
                return kind
        raise pickle.UnpicklingError("it refers to something that is no tensor storage")

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError(f"it uses the registered extension {code}")

    def _instantiate(self, kind: object, arguments: list[object]) -> None:
        self.append(call_while_unpickling(kind, tuple(arguments)))

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        result = call_while_unpickling(self.stack[-1], arguments)
        if isinstance(result, COPIES):
            self._copied += len(result)
            if self._copied > self._may_copy:
                raise pickle.UnpicklingError("it copies its own contents again and again")
        self.stack[-1] = result

    def load_newobj(self) -> None:
        self.load_reduce()

    def load_newobj_ex(self) -> None:
        self.stack.pop()
        self.load_reduce()

    def load_build(self) -> None:
        state = self.stack.pop()
        build_while_unpickling(self.stack[-1], state)

    def load_append(self) -> None:
        self._extend([self.stack.pop()])

    def load_appends(self) -> None:
        items = self.pop_mark()
        self._extend(items)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([key, value])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self._update(items)

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._update(items)

    def load_additems(self) -> None:
        items = self.pop_mark()
        if isinstance(self.stack[-1], set):
            self.stack[-1].update(safe_inert_value_key(item) for item in items)

    def load_frozenset(self) -> None:
        self.append({safe_inert_value_key(item) for item in self.pop_mark()})

    def load_bytearray8(self) -> None:
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(length))

    def _extend(self, items: list[object]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Inert):
            raise pickle.UnpicklingError(f"it appends to a {type(target).__name__}")

    def _update(self, items: list[object]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            target.update(zip(map(safe_inert_value_key, items[::2]), items[1::2], strict=True))
        elif not isinstance(target, Inert):
            raise pickle.UnpicklingError(f"it sets items of a {type(target).__name__}")


OVERRIDDEN: Mapping[int, Any] = {
    pickle.REDUCE[0]: RestrictedUnpickler.load_reduce,
    pickle.NEWOBJ[0]: RestrictedUnpickler.load_newobj,
    pickle.NEWOBJ_EX[0]: RestrictedUnpickler.load_newobj_ex,
    pickle.BUILD[0]: RestrictedUnpickler.load_build,
    pickle.APPEND[0]: RestrictedUnpickler.load_append,
    pickle.APPENDS[0]: RestrictedUnpickler.load_appends,
    pickle.SETITEM[0]: RestrictedUnpickler.load_setitem,
    pickle.SETITEMS[0]: RestrictedUnpickler.load_setitems,
    pickle.DICT[0]: RestrictedUnpickler.load_dict,
    pickle.ADDITEMS[0]: RestrictedUnpickler.load_additems,
    pickle.FROZENSET[0]: RestrictedUnpickler.load_frozenset,
    pickle.BYTEARRAY8[0]: RestrictedUnpickler.load_bytearray8,
}
RestrictedUnpickler.dispatch = {**pickle._Unpickler.dispatch, **OVERRIDDEN}


def call_while_unpickling(function: object, arguments: object) -> object:
    """Stand in for a call that a pickle asks for."""
    if isinstance(function, Maker) and isinstance(arguments, tuple):
        return function.make(*arguments)
    if isinstance(function, Foreign | Inert):
        return Inert(function.name)
    raise pickle.UnpicklingError(f"it calls a {type(function).__name__}")


def build_while_unpickling(target: object, state: object) -> None:
    """Stand in for `__setstate__`: only our own records listen."""
    match target, state:
        case Inert() | OrderedMapping(), _:
            target.state = state
        case ArrayRef(), (_, tuple(shape), NumpyType(code), fortran, bytes(data)):
            target.shape, target.dtype, target.fortran, target.data = shape, code, bool(fortran), data
        case NumpyType(), (_, "<" | ">" as order, *_) if target.code[:1] in ("<", ">"):
            target.code = order + target.code[1:]


def unpickle(file: BinaryIO, size: int) -> Any:
    """Read one pickle from `file`'s position on; `size` is the file's, in bytes."""
    return RestrictedUnpickler(BoundedPickleFile(file, size)).load()


def _view_storage_for_unpickling(storage: Storage, view: list[object]) -> Storage:
    match view:
        case [] | [None]:
            return storage
        case [(_, int(start), int(count))] if start >= 0 and start + count <= storage.numel:
            return Storage(storage.key, storage.dtype, storage.numel, start)
    raise pickle.UnpicklingError("a storage's view reaches outside it")
