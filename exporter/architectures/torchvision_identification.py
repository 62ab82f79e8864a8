"""Identify a network of torchvision by its tensors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from exporter.architectures import (
    lookalike_doubts,
    network_index,
    packaged_index,
    reparametrized,
    torchvision_unlisted,
    weight_loading,
)
from exporter.architectures.weight_readings import Weights
from exporter.checkpoints import averaged_copy, foreign_files
from exporter.errors import ArchitectureError

OWN_FACTORY_HINT = (
    "For a network of your own, say which function makes it: `--arch mypkg.nets:make_net` "
    "(with `--arch-arg name=value` for its arguments)."
)
LIKE = 0.5
"""Weights with a larger share of a torchvision network's tensors are compared with it."""
OLD_KEYS = (
    # DenseNets and vision transformers as their published files, still, spell them.
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)


def identify_torchvision(
    readings: Sequence[Weights],
) -> tuple[Weights, network_index.IndexEntry, network_index.IndexComparison] | None:
    """Return the first reading that fits a known network; complete and unchanged readings come first."""
    for weights in readings_for_torchvision_identification(readings):
        match = network_index.identify_in_network_index(weights.shapes)
        if match:
            return (weights, *match)
    return None


def readings_for_torchvision_identification(readings: Sequence[Weights]) -> Iterator[Weights]:
    """Yield each reading with today's names; then without leftovers of training and FLOP counting."""
    respelt = [_keys_for_torchvision_identification(weights) for weights in readings]
    yield from respelt
    for weights in respelt:
        plain = weight_loading.weight_loading_without_unused(reparametrized.merge_reparametrized(weights))
        if plain is not weights:
            yield plain


def torchvision_identification_error(
    readings: Sequence[Mapping[str, network_index.Shape]], stated: tuple[tuple[str, str], ...] = ()
) -> ArchitectureError:
    """Describe weights that fit no known network by the networks that are closest.

    Args:
        readings: Name -> shape of the tensors, by each way to name them.
        stated: (place, text) of the names that the file gives its network.
    """
    if kind := foreign_files.foreign_file_by_names(readings[0]):
        name = next(key for key in readings[0] if kind.names.search(key))
        return ArchitectureError(
            f"The file holds {kind.title}: it has {network_index.printable_network_index_key(name)}, "
            "which no known network has.",
            kind.advice,
        )
    if copies := averaged_copy.copies_of_one_network(readings[0]):
        names = [network_index.printable_network_index_key(f"{name}.") for name in copies]
        listed = " and ".join(map(repr, names))
        return ArchitectureError(
            f"The file holds {len(names)} copies of one network, {listed}, and nothing says which to ship.",
            f"Leave the others out: {' '.join(f'--ignore-key {name + chr(42)!r}' for name in names[1:])}.",
        )
    title, options = torchvision_unlisted.unlisted_torchvision_advice(readings)
    if title:
        return ArchitectureError(
            f"The tensors are those of {title}, whose inputs follow from no tensor.",
            f"Name both, in your sizes: {options}.",
        )
    called = lookalike_doubts.spoken_stated_names(stated)
    ranked = [(network_index.near_misses_in_network_index(shapes), shapes) for shapes in readings]
    nearest, shapes = max(ranked, key=lambda pair: pair[0][0].likeness if pair[0] else 0.0)
    titles = _packaged_titles_by_names(readings)
    if titles and not (nearest and nearest[0].likeness > LIKE):
        example = "img_size=256" if titles[0].startswith("timm/") else "name=value"
        return ArchitectureError(
            f"The tensors are named as those of {' and '.join(titles)}, and some have other sizes. "
            f"{called}".strip(),
            f"Give what the network was made with: --arch {titles[0]} --arch-arg {example}.",
        )
    if not nearest:
        keys = ", ".join(network_index.printable_network_index_key(key) for key in list(shapes)[:3])
        seen = (
            f"No known network has these {len(shapes)} tensors, nor any of them ({keys}, ...)."
            if len(shapes) > 3
            else f"No known network has these {len(shapes)} tensors ({keys})."
        )
        return ArchitectureError(f"{seen} {called}".strip(), OWN_FACTORY_HINT)
    closest = ", ".join(f"{c.title} ({c.matched} of {len(c.tensors)} tensors match)" for c in nearest)
    return ArchitectureError(
        f"No known network has exactly these {len(shapes)} tensors. Closest: {closest}. "
        f"Against {nearest[0].title}: {nearest[0].summary()}. {called}".strip(),
        OWN_FACTORY_HINT,
    )


def _packaged_titles_by_names(readings: Sequence[Mapping[str, network_index.Shape]]) -> list[str]:
    """List what `--arch` takes for the packaged networks whose tensors have these names and other sizes."""
    for shapes in readings:
        entries = packaged_index.entries_with_names(shapes)
        if entries:
            titles = sorted((entry.architecture for entry in entries), key=lambda title: (len(title), title))
            return titles[: lookalike_doubts.NAMED_AT_MOST]
    return []


def _keys_for_torchvision_identification(weights: Weights) -> Weights:
    """Respell the keys of files from before torchvision renamed some layers."""
    renamed = {_key_for_torchvision_identification(key) for key in weights.tensors}
    changed = len(renamed - weights.tensors.keys())
    if not changed or len(renamed) != len(weights.tensors):
        return weights
    note = f"{changed} keys are spelt as in old torchvision files; respelt as today's"
    return weights.respelt(_key_for_torchvision_identification, note)


def _key_for_torchvision_identification(key: str) -> str:
    for pattern, replacement in OLD_KEYS:
        key = pattern.sub(replacement, key)
    return key


def other_network_for_torchvision_identification(readings: Sequence[Weights]) -> str:
    match = identify_torchvision(readings)
    return f"They fit {match[1].title} exactly: leave --arch out." if match else OWN_FACTORY_HINT
