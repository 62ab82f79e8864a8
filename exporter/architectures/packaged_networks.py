"""Recognise the networks that installed packages build by their tensors, and build them.

The index (`packaged_index`) says which function of which package makes a network with exactly these tensors.
Where several networks have them, tensors do not settle which it is, and the doubt names the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from typing import Any

from exporter.architectures import (
    factory,
    families,
    input_values,
    lookalike_doubts,
    reparametrized,
    timm_networks,
    weight_loading,
)
from exporter.architectures.built_network import Built, Photo
from exporter.architectures.packaged_index import (
    PackagedEntry,
    entries_of_other_structures,
    entries_with_tensors,
    indexed_packages,
    packaged_shapes_digest,
    packaged_title,
)
from exporter.architectures.position_tables import entries_of_other_image_sizes
from exporter.architectures.weight_readings import Weights
from exporter.errors import MissingDependencyError
from exporter.records import Checkpoint, Preprocessing, TensorSpec


def infer_packaged_network(
    readings: Sequence[Weights], checkpoint: Checkpoint, arguments: Mapping[str, Any]
) -> Built | None:
    """Build the indexed network that has exactly these tensors; None where none has.

    Args:
        readings: The checkpoint's tensors by the names to try.
        checkpoint: Its hash, its file's name and what it says of its network decide between several.
        arguments: The user's arguments of the builder.

    Raises:
        MissingDependencyError: The package that builds it is not installed.
        ArchitectureError: The installed version of the package builds it with other tensors.
    """
    for weights in _readings_of_packaged_network(readings):
        entries = entries_with_tensors(weights.shapes) or entries_of_other_image_sizes(weights.shapes)
        if entries:
            entry = _likeliest_packaged_entry(entries, checkpoint)
            built = _built_packaged_network(entry, weights, checkpoint, arguments)
            return replace(built, warnings=(*built.warnings, *_doubts(entry, entries, checkpoint)))
    return None


def _readings_of_packaged_network(readings: Sequence[Weights]) -> Sequence[Weights]:
    """Return each reading, and then each without the leftovers of training."""
    plain = [
        weight_loading.weight_loading_without_unused(reparametrized.merge_reparametrized(weights))
        for weights in readings
    ]
    return (*readings, *plain)


def _likeliest_packaged_entry(entries: Sequence[PackagedEntry], checkpoint: Checkpoint) -> PackagedEntry:
    """Return the entry that the file names, else the one with the shortest name: the plain network."""

    def rank(entry: PackagedEntry) -> tuple[bool, bool, int, int, str]:
        name = packaged_title(entry)
        return (
            checkpoint.sha256 not in entry.published,
            not _is_stated(entry, checkpoint),
            -len(name) if _file_name_begins(checkpoint, name) else 0,
            len(name),
            name,
        )

    return min(entries, key=rank)


def _file_name_begins(checkpoint: Checkpoint, name: str) -> bool:
    """Tell whether the file is named after the network, as `resnet50d_ra2-464e36ba.pth`."""
    stem = checkpoint.path.name.lower().replace("-", "_")
    return re.match(rf"{re.escape(name.lower().replace('-', '_'))}(?![a-z0-9])", stem) is not None


def _is_stated(entry: PackagedEntry, checkpoint: Checkpoint) -> bool:
    name = packaged_title(entry).lower().replace("-", "_")
    return any(name in lookalike_doubts.lookalike_doubt_words(text) for _, text in checkpoint.stated_networks)


def _built_packaged_network(
    entry: PackagedEntry, weights: Weights, checkpoint: Checkpoint, arguments: Mapping[str, Any]
) -> Built:
    sizes = entry.sizes(weights.shapes)
    made_with = {
        **entry.arguments,
        **{entry.parameters[symbol]: size for symbol, size in sizes.items() if symbol in entry.parameters},
        **arguments,
    }
    exact = packaged_shapes_digest(weights.shapes, entry.open_sizes) == entry.shapes
    but = "" if exact else " for another image size"
    note = f"{len(weights.tensors)} tensors are exactly those of {described_packaged_entry(entry)}{but}"
    tensors = {key: tensor for key, tensor in weights.tensors.items() if key not in entry.leftovers}
    read = weights.noted(tensors, note, *_leftover_notes(entry), *_version_notes(entry))
    if entry.architecture.startswith(timm_networks.PREFIX):
        name = entry.architecture.removeprefix(timm_networks.PREFIX)
        return timm_networks.timm_network_by_name(name, (read,), checkpoint, made_with)
    _require_package(entry)
    built = factory.build_by_factory(entry.architecture, (read,), made_with)
    module = built.module
    if entry.constants:
        module = input_values.with_input_values(module, entry.constants)
    return replace(
        built,
        module=module,
        photo=_packaged_photo(entry),
        usual_inputs=tuple(TensorSpec(name, shape) for name, shape in entry.inputs.items()),
    )


def _leftover_notes(entry: PackagedEntry) -> tuple[str, ...]:
    if not entry.leftovers:
        return ()
    return (f"{', '.join(entry.leftovers)} are left out, as {entry.distribution}'s own loading does",)


def described_packaged_entry(entry: PackagedEntry) -> str:
    """Say which function of which package makes the network."""
    given = ", ".join(f"{key}={value!r}" for key, value in entry.arguments.items())
    call = f"({given})" if given else ""
    return f"{entry.architecture}{call} of {entry.distribution}"


def _require_package(entry: PackagedEntry) -> None:
    """Import the module of the network's function.

    Raises:
        MissingDependencyError: It is not installed, or cannot be imported.
    """
    module = entry.architecture.partition(":")[0]
    package = indexed_packages()[entry.distribution]
    try:
        families.import_family_package(module, described_packaged_entry(entry))
    except MissingDependencyError as error:
        raise MissingDependencyError(
            f"The tensors are exactly those of {described_packaged_entry(entry)}, "
            f"{_why_not_importable(module, error.__cause__)}.",
            f"Run `{package.install}` (the index has version {package.version}), or name a function of your "
            "own: `--arch mypkg.nets:make_net`.",
        ) from error


def _why_not_importable(module: str, error: BaseException | None) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
        return "which is not installed"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"which cannot be imported ({lines[0][:200]})"


def _version_notes(entry: PackagedEntry) -> tuple[str, ...]:
    """Say where the installed version is another than the index's."""
    package = indexed_packages()[entry.distribution]
    try:
        installed = metadata.version(entry.distribution)
    except metadata.PackageNotFoundError:
        return ()
    if installed == package.version:
        return ()
    return (
        f"{entry.distribution} {installed} is installed, and {package.version} was indexed: that version's "
        "network has these tensors, the installed one may compute something else with them",
    )


def _packaged_photo(entry: PackagedEntry) -> Photo | None:
    if entry.photo is None:
        return None
    keys: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in entry.photo.items()
    }
    source = f"preprocessing is that of {entry.distribution}'s own code"
    return Photo(Preprocessing(**keys), 3, source)


def _doubts(
    entry: PackagedEntry, entries: Sequence[PackagedEntry], checkpoint: Checkpoint
) -> tuple[str, ...]:
    """Name what else the network may be, unless the file is a published one or says it."""
    if checkpoint.sha256 in entry.published:
        return ()
    others = entries_of_other_structures(entries, {entry.structure})
    names = [lookalike_doubts.described_lookalike(other) for other in others]
    title = described_packaged_entry(entry)
    if _is_stated(entry, checkpoint):
        return lookalike_doubts.stated_lookalike_doubt(title, sorted(names))
    return (
        lookalike_doubts.lookalike_doubt(
            packaged_title(entry),
            title,
            sorted(names),
            checkpoint.stated_networks,
            {packaged_title(fitting) for fitting in entries},
        ),
    )
