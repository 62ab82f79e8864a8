"""Build torchvision's networks, identified by their weights or named with `--arch torchvision/NAME`."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from exporter.architectures import (
    lookalike_doubts,
    network_index,
    skeleton,
    torchvision_identification,
    weight_loading,
)
from exporter.architectures.built_network import Built, Photo
from exporter.architectures.preprocessing import resize_preprocessing
from exporter.architectures.weight_readings import Weights
from exporter.errors import ArchitectureError, UsageError
from exporter.records import Checkpoint

if TYPE_CHECKING:
    import torch

PREFIX = "torchvision/"
NOT_ARGUMENTS = ("weights", "weights_backbone", "pretrained", "pretrained_backbone", "quantize", "progress")
TRANSFORM_INPUT = ("googlenet", "inception_v3")


def infer_torchvision(
    readings: Sequence[Weights],
    checkpoint: Checkpoint,
    arguments: Mapping[str, Any],
    size: tuple[int, int] | None = None,
) -> Built:
    """Find the network that has exactly these tensors, and build it.

    Args:
        readings: The checkpoint's tensors by the names to try.
        checkpoint: Its hash shows whether the file is a published one; its settings name its network.
        arguments: More builder arguments, such as `transform_input`.
        size: (height, width) of the input, where the user gave it.

    Raises:
        ArchitectureError: No known network fits (names the closest and the first keys that differ), or the
            file says that it is another one.
        UsageError: The builder does not take the arguments.
    """
    match = torchvision_identification.identify_torchvision(readings)
    if match is None:
        raise torchvision_identification.torchvision_identification_error(
            [weights.shapes for weights in readings], checkpoint.stated_networks
        )
    weights, entry, comparison = match
    published = _find_torchvision_recipe(entry, checkpoint.sha256) is not None
    warnings = lookalike_doubts.lookalike_doubts(
        entry.name, entry.title, weights.shapes, checkpoint.stated_networks, published
    )
    notes = (
        f"{len(weights.tensors)} tensors match {entry.title} exactly",
        *_torchvision_reasons(entry, comparison),
    )
    if entry.quantizable:
        notes += (
            f"{PREFIX}{entry.quantizable} has the same tensors and computes the same; the float one is used",
        )
    weights = weights.noted(weights.tensors, *notes)
    built = _build_torchvision(entry.name, entry, comparison, weights, checkpoint.sha256, arguments, size)
    return replace(built, warnings=warnings)


def torchvision_by_name(
    name: str,
    readings: Sequence[Weights],
    sha256: str,
    arguments: Mapping[str, Any],
    size: tuple[int, int] | None = None,
) -> Built:
    """Build torchvision's network `name` and load the weights, strictly; see `infer_torchvision`.

    Raises:
        UsageError: No such builder (suggests the nearest), or it does not take the arguments.
        ArchitectureError: The weights do not fit; names the first keys that differ.
    """
    _check_torchvision_name(name)
    entries = network_index.network_index_entries_by_name(name)
    if not entries:
        module = _construct_torchvision(name, arguments)
        return Built(
            module, PREFIX + name, weight_loading.load_weights(module, readings, PREFIX + name, assign=True)
        )
    weights, entry, comparison = max(
        (
            (weights, entry, entry.compare(weights.shapes))
            for weights in torchvision_identification.readings_for_torchvision_identification(readings)
            for entry in entries
        ),
        key=lambda candidate: (candidate[2].exact, candidate[2].likeness),
    )
    if comparison.exact:
        notes = (
            f"{len(weights.tensors)} tensors match {entry.title} exactly",
            *_torchvision_reasons(entry, comparison),
        )
    elif arguments:
        notes = (f"{len(weights.tensors)} tensors match {PREFIX}{name} with the given arguments",)
    else:
        raise weight_loading.weight_loading_mismatch(
            comparison, torchvision_identification.other_network_for_torchvision_identification(readings)
        )
    weights = weights.noted(weights.tensors, *notes)
    return _build_torchvision(name, entry, comparison, weights, sha256, arguments, size)


def torchvision_photo(entry: network_index.IndexEntry, bindings: Mapping[str, int], sha256: str) -> Photo:
    """Return the photo that a network takes: with the published weights' preprocessing, or the default's."""
    side = torchvision_image_side(entry, bindings)
    published = _find_torchvision_recipe(entry, sha256)
    same_size = (r for r in entry.recipes if side in (None, r.preprocessing.crop[0]))
    recipe = published or next(same_size, entry.recipes[0])
    source = f"preprocessing is that of {recipe.weights}"
    if published:
        source = f"the file is torchvision's own {recipe.weights}, by its hash: its preprocessing is used"
    if entry.task == "segmentation":
        crop = recipe.preprocessing.crop[0]
        source += f"; it evaluates whole photos, a fixed {crop}x{crop} centre crop is used instead"
    taken = resize_preprocessing(recipe.preprocessing, (side, side)) if side else recipe.preprocessing
    return Photo(taken, bindings.get("channels", 3), source, side)


def torchvision_image_side(entry: network_index.IndexEntry, bindings: Mapping[str, int]) -> int | None:
    """Derive the side in pixels from the number of positions: one per patch, and one for the class token.

    Raises:
        ArchitectureError: The patches make no square.
    """
    if "positions" not in bindings:
        return None
    patches = bindings["positions"] - 1
    patch = int(entry.tensors["conv_proj.weight"][2])
    if patches < 1 or math.isqrt(patches) ** 2 != patches:
        raise ArchitectureError(
            f"{entry.first('positions')} has {bindings['positions']} positions: a class token and {patches} "
            "patches, which make no square image.",
            torchvision_identification.OWN_FACTORY_HINT,
        )
    return patch * math.isqrt(patches)


def _build_torchvision(
    name: str,
    entry: network_index.IndexEntry,
    comparison: network_index.IndexComparison,
    weights: Weights,
    sha256: str,
    arguments: Mapping[str, Any],
    size: tuple[int, int] | None,
) -> Built:
    inferred = {
        **_infer_torchvision_network(entry, comparison.bindings, size),
        **_torchvision_transform_input(entry, sha256),
    }
    all_arguments = {**inferred, **arguments}
    channels = comparison.bindings.get("channels", 3)
    if all_arguments.get("transform_input") and channels != 3:
        raise UsageError(f"transform_input needs 3 channels; the weights take {channels}.")
    module = _construct_torchvision(name, all_arguments)
    stem = str(entry.first("channels")).removesuffix(".weight")
    if channels != 3:
        skeleton.replace_stem_of_skeleton(module, stem, channels)
    weights = _torchvision_without_disabled(entry, arguments, weights)
    weight_loading.load_weights(module, (weights,), PREFIX + name, assign=True)
    notes = weights.notes + _torchvision_cautions(entry, all_arguments, arguments, sha256)
    taken = torchvision_photo(entry, comparison.bindings, sha256)
    return Built(module, PREFIX + name, notes, taken, torchvision_labels(entry, comparison.bindings))


def _infer_torchvision_network(
    entry: network_index.IndexEntry, bindings: Mapping[str, int], size: tuple[int, int] | None
) -> dict[str, Any]:
    arguments: dict[str, Any] = dict(entry.options)
    arguments["num_classes"] = bindings.get("classes", entry.classes)
    side = torchvision_image_side(entry, bindings)
    if side:
        arguments["image_size"] = side
    elif size and entry.name.startswith("maxvit"):
        # Its attention windows are laid out for one size when it is constructed.
        arguments["input_size"] = size
    return arguments


def _torchvision_transform_input(entry: network_index.IndexEntry, sha256: str) -> dict[str, bool]:
    if entry.name not in TRANSFORM_INPUT:
        return {}
    return {"transform_input": _find_torchvision_recipe(entry, sha256) is not None}


def _construct_torchvision(name: str, arguments: Mapping[str, Any]) -> torch.nn.Module:
    for key in arguments:
        if key in NOT_ARGUMENTS:
            raise UsageError(
                f"--arch-arg {key} cannot be used: the weights come from the checkpoint, in float."
            )
    try:
        return skeleton.construct_skeleton(name, arguments)
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise UsageError(
            f"{PREFIX}{name} cannot be built with {given or 'no arguments'}: {error}", code="EM-ARCH"
        ) from error


def _torchvision_without_disabled(
    entry: network_index.IndexEntry, arguments: Mapping[str, Any], weights: Weights
) -> Weights:
    """Leave out the tensors of a training head that the user switched off."""
    options = {key: bool(arguments.get(key, value)) for key, value in entry.options.items()}
    for other in network_index.network_index_entries_by_name(entry.name):
        dropped = entry.tensors.keys() - other.tensors.keys()
        if other.options == options and dropped:
            rest = {key: tensor for key, tensor in weights.tensors.items() if key not in dropped}
            return weights.noted(rest, f"{len(dropped)} tensors of the auxiliary head are left out, as asked")
    return weights


def _torchvision_reasons(
    entry: network_index.IndexEntry, comparison: network_index.IndexComparison
) -> tuple[str, ...]:
    notes = []
    bound = comparison.bindings
    head, stem, positions = entry.first("classes"), entry.first("channels"), entry.first("positions")
    if head and bound["classes"] != entry.classes:
        shape = network_index.network_index_shape_text(comparison.shapes[head])
        notes.append(f"{head} is {shape}: {bound['classes']} classes instead of {entry.classes}")
    if stem and bound["channels"] != 3:
        plural = "" if bound["channels"] == 1 else "s"
        notes.append(f"{stem} takes {bound['channels']} channel{plural} instead of 3")
    if positions:
        side = torchvision_image_side(entry, bound)
        notes.append(f"{positions} has {bound['positions']} positions: images of {side}x{side}")
    return tuple(notes)


def _torchvision_cautions(
    entry: network_index.IndexEntry, used: Mapping[str, Any], given: Mapping[str, Any], sha256: str
) -> tuple[str, ...]:
    notes = []
    if entry.name in TRANSFORM_INPUT and "transform_input" not in given:
        why = "as its published weights need" if used["transform_input"] else "as when trained from scratch"
        notes.append(
            f"the tensors don't say whether the network re-normalises its input: transform_input="
            f"{used['transform_input']} is used, {why}; weights fine-tuned from the published ones "
            "need `--arch-arg transform_input=true`"
        )
    if used.get("aux_loss"):
        notes.append("the auxiliary head stays a second output; `--arch-arg aux_loss=false` drops it")
    return tuple(notes)


def torchvision_labels(entry: network_index.IndexEntry, bindings: Mapping[str, int]) -> tuple[str, ...]:
    """ImageNet's categories for a classifier of 1000 classes; else none are known."""
    if entry.task != "classification" or bindings.get("classes") != entry.classes:
        return ()
    skeleton.skeleton_builders()
    from torchvision import models

    return tuple(models.get_model_weights(entry.name).DEFAULT.meta["categories"])


def _find_torchvision_recipe(
    entry: network_index.IndexEntry, sha256: str
) -> network_index.IndexRecipe | None:
    return next((recipe for recipe in entry.recipes if sha256.startswith(recipe.sha256_prefix)), None)


def _check_torchvision_name(name: str) -> None:
    builders = skeleton.skeleton_builders()
    if name in builders:
        return
    nearest = difflib.get_close_matches(name, builders, n=3)
    suggestion = "Did you mean " + " or ".join(PREFIX + n for n in nearest) + "?" if nearest else ""
    raise UsageError(f"torchvision has no network named {name!r}.", suggestion, code="EM-ARCH")
