"""Lists of tensors, which loops write to."""

from __future__ import annotations

from typing import Any

import numpy as np

from exporter.formats.coreml.interpreter.mil_call import Call
from exporter.records import Array

MAX_LENGTH = 100_000


def mil_list_made(call: Call) -> list[Any]:
    """Compute `make_list`: places that nothing was written to yet."""
    length = call.integer("init_length", 1)
    if not 0 <= length <= MAX_LENGTH:
        raise ValueError(f"make_list has {length} places, at most {MAX_LENGTH} are allowed")
    return [None] * length


def mil_list_length(call: Call) -> Array:
    """Compute `list_length`."""
    return np.asarray(len(_mil_list_of(call)), np.int32)


def mil_list_read(call: Call) -> Array:
    """Compute `list_read`."""
    return _mil_list_place(call, call.integer("index"))


def mil_list_gathered(call: Call) -> Array:
    """Compute `list_gather`: some places as one tensor."""
    return np.stack([_mil_list_place(call, index) for index in call.integers("indices")])


def mil_list_written(call: Call) -> list[Any]:
    """Compute `list_write`; the list grows where it must."""
    return _mil_list_with(call, {call.integer("index"): call.array("value")})


def mil_list_scattered(call: Call) -> list[Any]:
    """Compute `list_scatter`: the slices of a tensor to some places."""
    return _mil_list_with(call, dict(zip(call.integers("indices"), call.array("value"), strict=True)))


def _mil_list_of(call: Call) -> list[Any]:
    value = call.arguments.get("ls")
    if not isinstance(value, list):
        raise TypeError(f"{call.operator} has no list")
    return value


def _mil_list_place(call: Call, index: int) -> Array:
    value = _mil_list_of(call)[index]
    if value is None:
        raise ValueError(f"{call.operator} reads place {index}, which nothing was written to")
    return np.asarray(value)


def _mil_list_with(call: Call, values: dict[int, Array]) -> list[Any]:
    changed = list(_mil_list_of(call))
    for index, value in values.items():
        if not 0 <= index < MAX_LENGTH:
            raise ValueError(f"{call.operator} writes to place {index} of at most {MAX_LENGTH}")
        changed += [None] * (index + 1 - len(changed))
        changed[index] = value
    return changed
