"""Describe the weights of every known network, and identify the network of given weights.

The index is built ahead by `scripts/build-architecture-index`; reading it imports no framework.
"""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal, TypeAlias

from exporter.records import Preprocessing

FILE = "torchvision.json.gz"

Symbol = Literal["classes", "channels", "positions"]
Shape: TypeAlias = tuple[int, ...]
Pattern: TypeAlias = "tuple[int | Symbol, ...]"
"""A shape in which sizes that the user may change are symbols: [classes, 1280]."""
OPTIONAL_SUFFIX = ".num_batches_tracked"
"""Checkpoints from before PyTorch 1.0 lack these counters, and inference does not read them."""


@dataclass(frozen=True)
class IndexRecipe:
    """One set of published weights: the preprocessing of its photos, and the hash of its file."""

    weights: str
    sha256_prefix: str
    """The first hexadecimal digits of the file's SHA-256, as in its published name."""
    preprocessing: Preprocessing


@dataclass(frozen=True)
class IndexComparison:
    """The comparison of given weights with one network."""

    title: str
    tensors: Mapping[str, Pattern]
    """The network's tensors."""
    shapes: Mapping[str, Shape]
    """The checkpoint's shapes."""
    bindings: Mapping[str, int]
    """The value of each symbol in these weights."""
    matched: int
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    reshaped: tuple[str, ...]

    @property
    def exact(self) -> bool:
        return not (self.missing or self.extra or self.reshaped)

    @property
    def likeness(self) -> float:
        return self.matched / max(1, len(self.tensors) + len(self.extra))

    def expected(self, key: str) -> tuple[int | str, ...]:
        return tuple(self.bindings.get(str(size), size) for size in self.tensors[key])

    def differences(self) -> Iterator[str]:
        """Say each key that differs, in the network's order."""
        for key in self.missing:
            yield (
                f"{printable_network_index_key(key)} "
                f"{network_index_shape_text(self.expected(key))} is missing"
            )
        for key in self.reshaped:
            actual, expected = (
                network_index_shape_text(self.shapes[key]),
                network_index_shape_text(self.expected(key)),
            )
            yield f"{printable_network_index_key(key)} is {actual} where {expected} is expected"
        for key in self.extra:
            yield (
                f"{printable_network_index_key(key)} "
                f"{network_index_shape_text(self.shapes[key])} is one too many"
            )

    def summary(self, count: int = 3) -> str:
        """Join the first differences, and say how many more there are."""
        sentences = list(self.differences())
        more = f"; and {len(sentences) - count} more" if len(sentences) > count else ""
        return "; ".join(sentences[:count]) + more


@dataclass(frozen=True)
class IndexEntry:
    """A network: a torchvision builder with its options."""

    name: str
    task: Literal["classification", "segmentation"]
    options: Mapping[str, bool]
    """Builder options that decide which tensors exist: aux_logits, aux_loss."""
    classes: int
    tensors: Mapping[str, Pattern]
    recipes: tuple[IndexRecipe, ...]
    """The published weights, the default ones first."""
    quantizable: str | None
    """The registered name of the quantisable builder with exactly these tensors."""

    @property
    def title(self) -> str:
        options = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"torchvision/{self.name}" + (f" ({options})" if options else "")

    def first(self, symbol: Symbol) -> str | None:
        """Return the first tensor whose shape depends on `symbol`."""
        return next((key for key, pattern in self.tensors.items() if symbol in pattern), None)

    def compare(self, shapes: Mapping[str, Shape]) -> IndexComparison:
        return compare_with_network_index(self.title, self.tensors, shapes)


def printable_network_index_key(key: str) -> str:
    """Make a key from an untrusted file safe for a terminal."""
    text = key.encode("unicode_escape").decode("ascii")
    return text if len(text) <= 80 else text[:77] + "..."


def network_index_shape_text(shape: tuple[int | str, ...]) -> str:
    return "[" + ", ".join(str(size) for size in shape[:8]) + (", ...]" if len(shape) > 8 else "]")


@functools.cache
def network_index_entries() -> tuple[IndexEntry, ...]:
    """Read the whole index from the package's own file."""
    packed = resources.files("exporter.architectures").joinpath(FILE).read_bytes()
    return tuple(_network_index_entry(record) for record in json.loads(gzip.decompress(packed))["entries"])


def _network_index_entry(record: dict[str, Any]) -> IndexEntry:
    return IndexEntry(
        name=record["name"],
        task=record["task"],
        options=record["options"],
        classes=record["classes"],
        tensors={key: tuple(shape) for key, shape in record["tensors"].items()},
        recipes=tuple(_network_index_recipe(recipe) for recipe in record["recipes"]),
        quantizable=record["quantizable"],
    )


def _network_index_recipe(record: dict[str, Any]) -> IndexRecipe:
    preprocessing = dict(record["preprocessing"])
    for key in ("crop", "mean", "std"):
        preprocessing[key] = tuple(preprocessing[key])
    return IndexRecipe(record["weights"], record["sha256_prefix"], Preprocessing(**preprocessing))


@functools.cache
def _network_index_by_keys() -> dict[frozenset[str], list[IndexEntry]]:
    table: dict[frozenset[str], list[IndexEntry]] = {}
    for entry in network_index_entries():
        table.setdefault(_required_network_index_keys(entry.tensors), []).append(entry)
    return table


def _required_network_index_keys(keys: Mapping[str, object]) -> frozenset[str]:
    return frozenset(key for key in keys if not key.endswith(OPTIONAL_SUFFIX))


def identify_in_network_index(shapes: Mapping[str, Shape]) -> tuple[IndexEntry, IndexComparison] | None:
    """Find the network that has exactly these tensors, up to class count, input channels and image size.

    Args:
        shapes: Key -> shape of every tensor in the checkpoint.

    Returns:
        None when the weights belong to no known network.
    """
    for entry in _network_index_by_keys().get(_required_network_index_keys(shapes), []):
        comparison = entry.compare(shapes)
        if comparison.exact:
            return entry, comparison
    return None


def near_misses_in_network_index(shapes: Mapping[str, Shape]) -> tuple[IndexComparison, ...]:
    """Return the three networks that share most tensors with these weights, the nearest first."""
    ranked = sorted((entry.compare(shapes) for entry in network_index_entries()), key=lambda c: -c.likeness)
    return tuple(comparison for comparison in ranked[:3] if comparison.matched)


def network_index_entries_by_name(name: str) -> tuple[IndexEntry, ...]:
    """List the entries (one per option variant) of a builder, quantisable or float."""
    return tuple(entry for entry in network_index_entries() if name in (entry.name, entry.quantizable))


def compare_with_network_index(
    title: str, tensors: Mapping[str, Pattern], shapes: Mapping[str, Shape]
) -> IndexComparison:
    """Compare a checkpoint's shapes with a network's."""
    bindings: dict[str, int] = {}
    missing, reshaped = [], []
    for key, pattern in tensors.items():
        if key not in shapes:
            missing.append(key)
        elif not _bind_network_index_symbols(pattern, shapes[key], bindings):
            reshaped.append(key)
    return IndexComparison(
        title=title,
        tensors=tensors,
        shapes=shapes,
        bindings=bindings,
        matched=len(tensors) - len(missing) - len(reshaped),
        missing=tuple(key for key in missing if not key.endswith(OPTIONAL_SUFFIX)),
        extra=tuple(key for key in shapes if key not in tensors),
        reshaped=tuple(reshaped),
    )


def _bind_network_index_symbols(pattern: Pattern, shape: Shape, bindings: dict[str, int]) -> bool:
    """Return whether a shape fits. A symbol takes its value from the first tensor whose other sizes fit."""
    if len(pattern) != len(shape):
        return False
    values = dict(bindings)
    for expected, size in zip(pattern, shape, strict=True):
        if size != (values.setdefault(expected, size) if isinstance(expected, str) else expected):
            return False
    if any(values[symbol] < 1 for symbol in values):
        return False
    bindings.update(values)
    return True
