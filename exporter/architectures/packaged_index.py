"""Read the index of networks that installed packages build, and find in it the network of given weights.

`scripts/build-package-index` makes the index; reading it imports no framework. An entry has digests in place
of tensors, so that thousands of networks take little space: one of the tensors' names, and one of their names
and shapes, with the sizes that follow from the user's data left open.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal

from exporter.architectures.network_index import OPTIONAL_SUFFIX, Shape

FILE = "packages.json.gz"
DIGITS = 16

OpenSize = Literal["classes", "channels"]


@dataclass(frozen=True)
class IndexedPackage:
    """A package that builds networks."""

    distribution: str
    """Its name in the package index: facenet-pytorch."""
    version: str
    """The version that the index was made with."""
    install: str
    """The command that installs it."""


@dataclass(frozen=True)
class PackagedEntry:
    """A network that a package builds."""

    distribution: str
    architecture: str
    """What `--arch` takes: timm/resnet50d, facenet_pytorch.models.mtcnn:ONet."""
    arguments: Mapping[str, Any]
    names: str
    """The digest of the tensors' names."""
    shapes: str
    """The digest of the tensors' names and shapes, with `*` for open sizes."""
    structure: str
    """The digest of the layers' kinds and settings: entries that differ in it compute something else."""
    open_sizes: Mapping[str, Mapping[int, OpenSize]]
    """Tensor -> axis -> which of the user's sizes is there."""
    parameters: Mapping[OpenSize, str]
    """Open size -> the argument that sets it."""
    photo: Mapping[str, Any] | None = None
    """Keys of `Preprocessing`, where the package's own code prepares photos in one way."""
    inputs: Mapping[str, Shape] = field(default_factory=dict)
    """The usual shapes of the inputs, where these are no photos; the only one's name may be empty."""
    constants: Mapping[str, Any] = field(default_factory=dict)
    """Inputs of `forward` that are no tensors, and their values."""
    published: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each file with trained weights that was compared -> "distribution:path" of the file."""
    leftovers: tuple[str, ...] = ()
    """Tensors of the package's files that its own loading leaves out; the digests have them."""

    def sizes(self, shapes: Mapping[str, Shape]) -> dict[OpenSize, int]:
        """Return the user's sizes in these weights."""
        return {
            symbol: shapes[key][axis]
            for key, axes in self.open_sizes.items()
            for axis, symbol in axes.items()
        }


def packaged_names_digest(keys: Iterable[str]) -> str:
    """Return the digest of tensors' names, without counters that inference does not read."""
    return _packaged_digest(key for key in keys if not key.endswith(OPTIONAL_SUFFIX))


def packaged_shapes_digest(shapes: Mapping[str, Shape], open_sizes: Mapping[str, Iterable[int]]) -> str:
    """Return the digest of tensors' names and shapes, with `*` on the axes of `open_sizes`."""
    return _packaged_digest(
        f"{key} {_packaged_shape_text(shape, set(open_sizes.get(key, ())))}"
        for key, shape in shapes.items()
        if not key.endswith(OPTIONAL_SUFFIX)
    )


def _packaged_shape_text(shape: Shape, open_axes: set[int]) -> str:
    return ",".join("*" if axis in open_axes else str(size) for axis, size in enumerate(shape))


def _packaged_digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:DIGITS]


def packaged_title(entry: PackagedEntry) -> str:
    """Return the network's own name: `resnet50d`, `efficientnet-lite0`, `ONet`."""
    own = entry.arguments.get("model_name")
    return str(own) if own else re.split(r"[/:.]", entry.architecture)[-1]


@functools.cache
def _packaged_index() -> dict[str, Any]:
    packed = resources.files("exporter.architectures").joinpath(FILE).read_bytes()
    content: dict[str, Any] = json.loads(gzip.decompress(packed))
    return content


@functools.cache
def indexed_packages() -> Mapping[str, IndexedPackage]:
    """Return the packages of the index by their names."""
    return {record["distribution"]: IndexedPackage(**record) for record in _packaged_index()["packages"]}


@functools.cache
def packaged_entries() -> tuple[PackagedEntry, ...]:
    """Read the whole index from the package's own file."""
    return tuple(_packaged_entry(record) for record in _packaged_index()["entries"])


def _packaged_entry(record: Mapping[str, Any]) -> PackagedEntry:
    return PackagedEntry(
        distribution=record["distribution"],
        architecture=record["architecture"],
        arguments=record.get("arguments", {}),
        names=record["names"],
        shapes=record["shapes"],
        structure=record["structure"],
        open_sizes={
            key: {int(axis): symbol for axis, symbol in axes.items()}
            for key, axes in record.get("open", {}).items()
        },
        parameters=record.get("parameters", {}),
        photo=record.get("photo"),
        inputs={name: tuple(shape) for name, shape in record.get("inputs", {}).items()},
        constants=record.get("constants", {}),
        published=record.get("published", {}),
        leftovers=tuple(record.get("leftovers", ())),
    )


@functools.cache
def _packaged_entries_by_names() -> Mapping[str, tuple[PackagedEntry, ...]]:
    table: dict[str, list[PackagedEntry]] = {}
    for entry in packaged_entries():
        table.setdefault(entry.names, []).append(entry)
    return {names: tuple(entries) for names, entries in table.items()}


@functools.cache
def _packaged_titles() -> frozenset[str]:
    return frozenset(packaged_title(entry) for entry in packaged_entries())


def is_indexed_title(name: str) -> bool:
    """Tell whether an indexed network has this name of its own."""
    return name in _packaged_titles()


def entries_of_other_structures(
    entries: Sequence[PackagedEntry], structures: Container[str]
) -> list[PackagedEntry]:
    """Return the first entry of each structure that is not among `structures`: other computations."""
    others = {entry.structure: entry for entry in reversed(entries) if entry.structure not in structures}
    return [*others.values()]


def entries_with_names(shapes: Mapping[str, Shape]) -> tuple[PackagedEntry, ...]:
    """Return every indexed network that has tensors of these names, of whatever sizes."""
    return _packaged_entries_by_names().get(packaged_names_digest(shapes), ())


def entries_with_tensors(shapes: Mapping[str, Shape]) -> tuple[PackagedEntry, ...]:
    """Return every indexed network that has exactly these tensors, up to the user's own sizes."""
    return tuple(
        entry
        for entry in entries_with_names(shapes)
        if packaged_shapes_digest(shapes, entry.open_sizes) == entry.shapes
    )
