"""Describes everything at the top of a checkpoint, a short line each, for `inspect`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from exporter.checkpoints import checkpoint_tensors
from exporter.checkpoints.inert_values import (
    AnyTensor,
    ArrayRef,
    Foreign,
    Inert,
    Opaque,
    TensorRef,
    is_tensor_inert_value,
)

MAX_TEXT = 60
MAX_DEPTH = 8
MAX_ENTRIES = 10_000
MAX_VISITS = 1_000_000
"""How many things are looked at to describe one checkpoint: containers may share their items."""


def describe_checkpoint_contents(root: object) -> tuple[tuple[str, str], ...]:
    """Return (key, description) of each entry of a dictionary; one entry "" for anything else."""
    if not isinstance(root, dict):
        return (("", describe_checkpoint_content(root)),)
    visits = ContentsVisits(MAX_VISITS)
    entries = itertools.islice(root.items(), MAX_ENTRIES)
    described = [
        (_checkpoint_contents_key(key), describe_checkpoint_content(value, visits)) for key, value in entries
    ]
    left = len(root) - len(described)
    return (
        *described,
        *([("…", f"and {plural_in_checkpoint_contents(left, 'entry', 'entries')} more")] if left else ()),
    )


@dataclass
class ContentsVisits:
    """How many more things may be looked at."""

    left: int

    def spend(self) -> bool:
        """Tell whether one more may be looked at; counts it."""
        self.left -= 1
        return self.left >= 0


def describe_checkpoint_content(value: object, visits: ContentsVisits | None = None) -> str:
    """Describe in one line any value that a checkpoint can hold; safe to print.

    Args:
        value: As the restricted unpickler made it.
        visits: Bounds how much is looked at for all values that share it.
    """
    match value:
        case TensorRef() | ArrayRef() | Opaque():
            return _tensor_in_checkpoint_contents(value)
        case Inert(name=name):
            return f"object of {printable_checkpoint_content(name)}, left inert"
        case Foreign(name=name):
            return f"{printable_checkpoint_content(name)}, left inert"
        case dict() | list() | tuple() | set():
            return _container_in_checkpoint_contents(
                value, ContentsVisits(MAX_VISITS) if visits is None else visits
            )
        case str():
            return printable_checkpoint_content(repr(value[:MAX_TEXT]))
        case bytes():
            return f"{len(value)} bytes"
        case int() if value.bit_length() > 64:
            return "a large integer"
        case _:
            return printable_checkpoint_content(str(value)[:MAX_TEXT])


def plural_in_checkpoint_contents(count: int, noun: str, many: str = "") -> str:
    """Return a count with its noun: 1 tensor, 2 tensors."""
    return f"{count} {noun if count == 1 else many or noun + 's'}"


def checkpoint_contents_megabytes(size_bytes: int) -> str:
    """Return a size for people, in MB (10^6 bytes)."""
    return f"{size_bytes / 1e6:.1f} MB"


def printable_checkpoint_content(text: str) -> str:
    """Return text without control characters: a key could otherwise rewrite the user's terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)[: 2 * MAX_TEXT]


def _checkpoint_contents_key(key: object) -> str:
    return printable_checkpoint_content(key) if isinstance(key, str) else describe_checkpoint_content(key)


def _tensor_in_checkpoint_contents(value: AnyTensor) -> str:
    if isinstance(value, Opaque):
        return f"tensor, {printable_checkpoint_content(value.what)}"
    return f"tensor {value.dtype} {list(value.shape)}"


def _container_in_checkpoint_contents(
    value: dict[object, object] | list[object] | tuple[object, ...] | set[object], visits: ContentsVisits
) -> str:
    inside = [
        item for item in _walk_checkpoint_contents(value, 0, set(), visits) if is_tensor_inert_value(item)
    ]
    if inside and isinstance(value, dict) and all(is_tensor_inert_value(v) for v in value.values()):
        return (
            f"{plural_in_checkpoint_contents(len(inside), 'tensor')}, "
            f"{checkpoint_contents_megabytes(_checkpoint_contents_size(inside))}"
        )
    noun = "key" if isinstance(value, dict) else "item"
    kind = type(value).__name__
    more = (
        f", {plural_in_checkpoint_contents(len(inside), 'tensor')}, "
        f"{checkpoint_contents_megabytes(_checkpoint_contents_size(inside))}"
        if inside
        else ""
    )
    return f"{kind}, {plural_in_checkpoint_contents(len(value), noun)}{more}"


def _checkpoint_contents_size(inside: list[object]) -> int:
    return sum(
        checkpoint_tensors.checkpoint_tensor_size_bytes(t)
        for t in inside
        if isinstance(t, TensorRef | ArrayRef | Opaque)
    )


def _walk_checkpoint_contents(
    value: object, depth: int, seen: set[int], visits: ContentsVisits
) -> Iterator[object]:
    """Yield each thing inside once: containers may be shared a million times over, or hold themselves."""
    if not visits.spend() or id(value) in seen or depth > MAX_DEPTH:
        return
    seen.add(id(value))
    yield value
    if isinstance(value, dict | list | tuple | set):
        for item in value.values() if isinstance(value, dict) else value:
            if visits.left <= 0:
                return
            yield from _walk_checkpoint_contents(item, depth + 1, seen, visits)
