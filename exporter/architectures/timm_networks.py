"""Build timm's networks: those that a file or folder names, and those that `--arch timm/NAME` names.

timm's folders and checkpoints say which network they hold. Its data config is the preprocessing of photos.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from exporter.architectures import families, lookalike_doubts, network_index, weight_loading
from exporter.architectures.built_network import Built, Photo
from exporter.architectures.position_tables import image_side_by_position_table, position_table
from exporter.architectures.weight_readings import Weights
from exporter.checkpoints.checkpoint_folder import CONFIG
from exporter.checkpoints.checkpoint_weights import ARGUMENTS
from exporter.errors import ArchitectureError, UsageError
from exporter.records import Checkpoint, Preprocessing

if TYPE_CHECKING:
    import torch

PREFIX = "timm/"
NAME = re.compile(r"[a-z0-9_]{2,80}(\.[A-Za-z0-9_]{1,80})?")
NOT_ARGUMENTS = (
    "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "scriptable",
    "exportable", "no_jit", "features_only", "model_name",
)  # fmt: skip
"""Arguments of timm.create_model that load something, or make another network."""
TRAINING_ARGUMENTS = ("num_classes", "in_chans", "bn_eps")
"""Options of timm's training program that change what the network computes."""
DATA_OPTIONS = ("img_size", "input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")
"""Options of timm's training program that say how its photos are prepared."""
INTERPOLATIONS: Mapping[str, Literal["nearest", "bilinear", "bicubic"]] = {
    "nearest": "nearest",
    "bilinear": "bilinear",
    "bicubic": "bicubic",
}


@dataclass(frozen=True)
class StatedTimmNetwork:
    """What a checkpoint says about its network."""

    name: str
    arguments: Mapping[str, Any]
    """The builder's arguments, which are numbers and text."""
    doubts: tuple[str, ...] = ()
    """The arguments that cannot be used, though they may change what the network computes."""


def find_stated_timm_network(checkpoint: Checkpoint) -> StatedTimmNetwork | None:
    """Return the network that timm noted in the checkpoint; None where timm did not write it."""
    config = checkpoint.settings.get(CONFIG)
    if isinstance(config, dict) and isinstance(config.get("architecture"), str):
        named = {key: config[key] for key in ("num_classes", "global_pool") if key in config}
        return _timm_network_with_arguments(config["architecture"], named, config.get("model_args"))
    said: dict[str, Any] = checkpoint.settings.get(ARGUMENTS, {})
    name = dict(checkpoint.stated_networks).get("arch")
    if name is None or said.get("model") != name or "version" not in dict(checkpoint.contents):
        return None
    named = {key: said[key] for key in TRAINING_ARGUMENTS if said.get(key) is not None}
    if said.get("gp") is not None:
        named["global_pool"] = said["gp"]
    return _timm_network_with_arguments(name, named, said.get("model_kwargs"))


def _timm_network_with_arguments(name: str, named: Mapping[str, Any], more: object) -> StatedTimmNetwork:
    """Put the arguments together; those in `more` count where both have one."""
    listed = {**named, **more} if isinstance(more, dict) else dict(named)
    listed = {str(key): value for key, value in listed.items() if key not in NOT_ARGUMENTS}
    usable = {key: value for key, value in listed.items() if _is_plain_for_timm_network(value)}
    doubts = [key for key in listed if key not in usable]
    if more and not isinstance(more, dict):
        doubts.append(f"model_kwargs: {more}")
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in usable.items()}
    return StatedTimmNetwork(name, arguments, tuple(doubts))


def _is_plain_for_timm_network(value: object) -> bool:
    if isinstance(value, list | tuple):
        return len(value) <= 16 and all(isinstance(item, int | float | str) for item in value)
    return isinstance(value, int | float | str) or value is None


def timm_network_by_name(
    name: str,
    readings: Sequence[Weights],
    checkpoint: Checkpoint,
    arguments: Mapping[str, Any],
    said: StatedTimmNetwork | None = None,
) -> Built:
    """Build timm's network `name` and load the weights, strictly.

    Args:
        name: The network, with or without timm's tag: `resnet50` or `resnet50.a1_in1k`.
        readings: The tensors by the names to try.
        checkpoint: Its config has the preprocessing of its photos.
        arguments: The user's arguments of the builder.
        said: What the checkpoint says of this network.

    Raises:
        UsageError: timm has no such network, or it does not take the user's arguments.
        ArchitectureError: The weights are another network's.
        MissingDependencyError: timm is not installed.
    """
    timm = families.import_family_package(
        "timm", f"The network {PREFIX}{network_index.printable_network_index_key(name)}"
    )
    plain = name.partition(".")[0]
    full = name if name in timm.list_pretrained() else plain
    if not NAME.fullmatch(name) or not timm.is_model(plain):
        nearest = difflib.get_close_matches(plain, timm.list_models(), n=3)
        suggestion = "Did you mean " + " or ".join(PREFIX + n for n in nearest) + "?" if nearest else ""
        raise UsageError(
            f"timm {timm.__version__} has no network named "
            f"{network_index.printable_network_index_key(name)!r}.",
            suggestion,
            code="EM-ARCH",
        )
    known = {**(said.arguments if said else {}), **arguments}
    module = _fitting_timm_network(timm, full, readings[-1].shapes, known, set(known))
    try:
        notes = weight_loading.load_weights(module, readings, PREFIX + plain)
    except ArchitectureError as error:
        if said is None:
            raise
        shapes = [weights.shapes for weights in readings]
        raise lookalike_doubts.stated_name_refusal(name, error, shapes) from error
    if said and said.arguments:
        listed = ", ".join(f"{key}={value!r}" for key, value in said.arguments.items())
        notes += (f"made with {network_index.printable_network_index_key(listed)}, as the checkpoint says",)
    photo, more = _timm_network_photo(timm, plain, module, checkpoint)
    return Built(
        module,
        PREFIX + plain,
        (*notes, *more),
        photo,
        _timm_network_labels(checkpoint),
        (*_timm_network_doubts(said), *_doubts_about_stated_timm_network(said, plain, readings)),
    )


def _timm_network_doubts(said: StatedTimmNetwork | None) -> tuple[str, ...]:
    """Warn about arguments of the training that the network could not be made with."""
    if said is None or not said.doubts:
        return ()
    return (
        "The network was made with "
        f"{', '.join(map(network_index.printable_network_index_key, said.doubts))}, "
        "which is neither a number nor text and is left out. The network may compute something else: "
        "check photos whose class you know (`--expect PHOTO=CLASS`), or name your own function with "
        "`--arch mypkg.nets:make_net`.",
    )


def _doubts_about_stated_timm_network(
    said: StatedTimmNetwork | None, plain: str, readings: Sequence[Weights]
) -> tuple[str, ...]:
    """Name other networks that have the tensors, where the file alone says that it is this one."""
    if said is None:
        return ()
    doubts = (
        lookalike_doubts.stated_name_doubts(plain, PREFIX + plain, weights.shapes) for weights in readings
    )
    return next((doubt for doubt in doubts if doubt), ())


def _fitting_timm_network(
    timm: ModuleType,
    name: str,
    shapes: Mapping[str, network_index.Shape],
    arguments: Mapping[str, Any],
    given: set[str],
) -> torch.nn.Module:
    """Build the network for the weights' own number of classes and channels."""
    module = _made_timm_network(timm, name, arguments)
    config = getattr(module, "pretrained_cfg", {}) or {}
    inferred = {
        key: size
        for key, size in (
            ("num_classes", _timm_network_layer_size(shapes, config.get("classifier"), 0)),
            ("in_chans", _timm_network_layer_size(shapes, config.get("first_conv"), 1)),
        )
        if size is not None and key not in given
    }
    own = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    side = None if "img_size" in given else _timm_network_image_side(module, own, shapes)
    if side is not None:
        inferred["img_size"] = side
    if not inferred or own == shapes:
        return module
    return _made_timm_network(timm, name, {**arguments, **inferred})


def _timm_network_image_side(
    module: Any, own: Mapping[str, network_index.Shape], shapes: Mapping[str, network_index.Shape]
) -> int | None:
    """Return the side of the images that the file's position table is for; None where it is the usual one.

    Raises:
        ArchitectureError: Its rows make no square image.
    """
    table = position_table(own)
    patches = getattr(module, "patch_embed", None)
    grid, image = getattr(patches, "grid_size", None), getattr(patches, "img_size", None)
    if not table or not grid or not image or shapes.get(table, own[table]) == own[table]:
        return None
    side = image_side_by_position_table(own[table], shapes[table], grid, image)
    if side is None:
        raise ArchitectureError(
            f"{table} is {network_index.network_index_shape_text(shapes[table])} in the file and "
            f"{network_index.network_index_shape_text(own[table])} for images of {image[0]}x{image[1]}: its "
            "rows make no square image.",
            "Give the image's height and width: --arch-arg img_size=(224,448), with --arch timm/NAME.",
        )
    return side


def _timm_network_layer_size(shapes: Mapping[str, network_index.Shape], layer: Any, axis: int) -> int | None:
    """Return a size of a layer's weight; None where the file has no such layer."""
    layers = layer if isinstance(layer, list | tuple) else (layer,)
    shape = shapes.get(f"{layers[0]}.weight") if layers else None
    return shape[axis] if shape is not None and len(shape) > axis else None


def _made_timm_network(timm: ModuleType, name: str, arguments: Mapping[str, Any]) -> torch.nn.Module:
    for key in arguments:
        if key in NOT_ARGUMENTS:
            raise UsageError(f"--arch-arg {key} cannot be used: the weights come from the checkpoint.")
    try:
        made: torch.nn.Module = timm.create_model(name, pretrained=False, **arguments)
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise ArchitectureError(
            f"{PREFIX}{name} cannot be built with {given or 'no arguments'}: {str(error)[:200]}",
            code="EM-ARCH",
        ) from error
    return made


def _timm_network_photo(
    timm: ModuleType, name: str, module: torch.nn.Module, checkpoint: Checkpoint
) -> tuple[Photo | None, tuple[str, ...]]:
    """Return the photo that the network takes, by the config in the folder, or else by timm's own."""
    stored = checkpoint.settings.get(CONFIG, {}).get("pretrained_cfg")
    own = getattr(module, "pretrained_cfg", {})
    said = checkpoint.settings.get(ARGUMENTS, {})
    trained = {key: said[key] for key in DATA_OPTIONS if said.get(key) is not None}
    built_for: Any = getattr(getattr(module, "patch_embed", None), "img_size", None)
    resized = own.get("fixed_input_size") and built_for and tuple(built_for) != tuple(own["input_size"][1:])
    source = "the folder's config.json" if isinstance(stored, dict) else f"timm's default weights of {name}"
    if resized:
        source += f", for images of {built_for[0]}x{built_for[1]} as its position table"
        trained["input_size"] = (own["input_size"][0], *built_for)
    elif trained:
        source += f", with {', '.join(sorted(trained))} as the checkpoint says"
    try:
        config = timm.data.resolve_data_config(
            trained, pretrained_cfg=stored if isinstance(stored, dict) else own, model=module
        )
        record = timm_network_preprocessing(config)
    except (ArithmeticError, LookupError, TypeError, ValueError):  # settings of another type
        record = None
    if record is None:
        return None, (f"{source} prepares photos in steps that are not known here: give --preprocess",)
    fixed = bool(own.get("fixed_input_size")) and record.crop[0] == record.crop[1]
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    channels = _timm_network_layer_size(shapes, own.get("first_conv"), 1) or int(config["input_size"][0])
    taken = Photo(record, channels, f"preprocessing is that of {source}", record.crop[0] if fixed else None)
    return taken, ()


def timm_network_preprocessing(config: Mapping[str, Any]) -> Preprocessing | None:
    """Turn timm's data config into our record; None where it cannot express the steps."""
    _, height, width = config["input_size"]
    interpolation = INTERPOLATIONS.get(str(config["interpolation"]))
    mode = config.get("crop_mode") or "center"
    if interpolation is None or mode not in ("center", "squash") or (mode == "squash" and height != width):
        return None
    resize = math.floor(max(height, width) / float(config["crop_pct"]))
    if mode == "center" and height != width:
        return None
    mean, std = (tuple(float(value) for value in config[key]) for key in ("mean", "std"))
    if not all(map(math.isfinite, (*mean, *std))) or min(height, width, *std) <= 0:
        return None
    return Preprocessing(resize, (height, width), mean, std, interpolation, mode == "squash")


def _timm_network_labels(checkpoint: Checkpoint) -> tuple[str, ...]:
    config = checkpoint.settings.get(CONFIG, {})
    names = config.get("label_names")
    return tuple(names) if isinstance(names, list) and all(isinstance(n, str) for n in names) else ()
