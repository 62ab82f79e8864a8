"""Build the networks of Ultralytics from the description in the file, with their package (AGPL-3.0).

The description is code to the package: it looks names up and evaluates an activation. So only names of layers
pass, and afterwards every layer is compared with what the file says of it.
"""

from __future__ import annotations

import copy
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from exporter.architectures import families, network_index, weight_loading
from exporter.architectures.built_network import Built, Photo
from exporter.architectures.weight_readings import Weights
from exporter.checkpoints.ultralytics_file import KIND
from exporter.errors import ArchitectureError, UsageError
from exporter.records import Checkpoint, Preprocessing, TensorSpec

if TYPE_CHECKING:
    import torch

PREFIX = "ultralytics/"
LICENCE = "Its licence is AGPL-3.0: read it before you ship."
COLUMNS = (
    "the output has a column per box: centre and size in pixels, a score per class, then what the "
    "task adds; overlapping boxes are not removed (no NMS), which the app does"
)
ANSWERS = {
    "DetectionModel": COLUMNS,
    "SegmentationModel": COLUMNS,
    "PoseModel": COLUMNS,
    "OBBModel": COLUMNS,
    "ClassificationModel": "",
    "RTDETRDetectionModel": "the output has a row per box: centre and size as fractions of the photo's "
    "sides, score and class; overlapping boxes are not removed, and need not be",
    "SemanticSegmentationModel": "the output has a score per class and pixel, before the largest is taken",
    "DepthModel": "the output has a depth per pixel",
}
"""The networks that are built from their description alone, and what is said of their outputs."""
UNUSED = ("one2one_", "aux_head")
"""The beginnings of names of a head's branches that only training uses."""
ACTIVATION = re.compile(r"(?:torch\.)?nn\.([A-Z]\w*)\((?:\w+=(?:True|False|[\d.]+)(?:, ?)?)*\)")
FREE = (
    "training",
    "momentum",
    "export",
    "format",
    "dynamic",
    "inplace",
    "shape",
    "np",
    "i",
    "f",
    "type",
    "nc",
    "task",
    "fp16",
)
"""Settings of a layer that change with its use, not with what it computes."""
SIDE = 640
MAX_SIDE = 8192


def is_ultralytics_network(checkpoint: Checkpoint) -> bool:
    """Tell whether the checkpoint is one of Ultralytics."""
    return checkpoint.kind == KIND


def build_ultralytics_network(
    checkpoint: Checkpoint, readings: Sequence[Weights], asked: tuple[TensorSpec, ...]
) -> Built:
    """Build the network, load the weights, and set it up for export: raw boxes and scores, without NMS.

    Args:
        checkpoint: What the file says of the network.
        readings: The tensors by the names to try.
        asked: The user's shape of the photos.

    Raises:
        ArchitectureError: The network is of another kind, or is not what the file says.
        MissingDependencyError: ultralytics is not installed.
    """
    settings = checkpoint.settings
    name = settings["class"]
    if name not in ANSWERS:
        raise ArchitectureError(
            f"The file holds a {network_index.printable_network_index_key(name)} of Ultralytics, not one of "
            f"{', '.join(ANSWERS)}.",
            "Export TorchScript with `yolo export`, or pass --trust if you trust whoever made the file.",
        )
    # The package writes a settings file when it is imported.
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.gettempdir())
    os.environ["YOLO_OFFLINE"] = "true"
    package = families.import_family_package("ultralytics", f"The network {PREFIX}{name}", LICENCE)
    module = _made_ultralytics_network(name, settings["yaml"])
    notes = weight_loading.load_weights(module, readings, PREFIX + name)
    if differences := list(_ultralytics_network_differences(module, settings["layers"])):
        raise ArchitectureError(
            f"ultralytics {package.__version__} builds another network than the file holds: "
            f"{'; '.join(differences[:3])}.",
            "Install the version that the file was made with, or pass --trust if you trust whoever made it.",
        )
    head = module.model[-1]
    _drop_unused_ultralytics_branch(head)
    head.export, head.dynamic = True, False
    spec = _ultralytics_network_photos(settings, module, asked)
    _run_ultralytics_network_once(module, spec)
    made = f"built by ultralytics {package.__version__} (AGPL-3.0) from the file's own description"
    return Built(
        module=module,
        architecture=PREFIX + name,
        notes=(*notes, made, "every layer is what the file says", *_ultralytics_network_settings(name, head)),
        photo=_ultralytics_network_photo(spec, name),
        labels=_ultralytics_network_labels(settings["names"]) if name == "ClassificationModel" else (),
        inputs=(spec,),
    )


def _drop_unused_ultralytics_branch(head: Any) -> None:
    """Leave out the branches that the head does not answer with (YOLOv10, YOLO26, of training).

    Their outputs go nowhere, as the package's own `fuse` knows: no file would hold their weights.
    """
    if getattr(head, "end2end", False):
        return
    for name, _ in tuple(head.named_children()):
        if name.startswith(UNUSED):
            setattr(head, name, None)


def _made_ultralytics_network(name: str, described: Mapping[str, Any]) -> Any:
    from ultralytics.nn import tasks

    _check_ultralytics_network_layers(described, tasks)
    description = copy.deepcopy(dict(described))
    try:
        return getattr(tasks, name)(
            cfg=description, ch=int(described.get("channels", 3)), nc=described.get("nc"), verbose=False
        ).eval()
    except Exception as error:
        raise ArchitectureError(
            f"ultralytics cannot build the network that the file describes: {str(error)[:200]}."
        ) from error


def _check_ultralytics_network_layers(described: Mapping[str, Any], tasks: Any) -> None:
    """Refuse a description that names anything but layers.

    Raises:
        ArchitectureError: The description names something else.
    """
    import torch

    activation = described.get("activation")
    if activation is not None:
        match = ACTIVATION.fullmatch(activation) if isinstance(activation, str) else None
        if match is None or not _is_ultralytics_network_layer(getattr(torch.nn, match[1], None)):
            raise ArchitectureError(
                "The activation "
                f"{network_index.printable_network_index_key(str(activation))!r} is no layer of torch.nn."
            )
    rows = [
        row for part in ("backbone", "head") for row in _ultralytics_network_rows(part, described.get(part))
    ]
    for row in rows:
        name = row[2] if len(row) == 4 else None
        plain = isinstance(name, str) and name.removeprefix("nn.").isidentifier()
        layer = None
        if isinstance(name, str) and plain:
            place = torch.nn if name.startswith("nn.") else tasks
            layer = getattr(place, name.removeprefix("nn."), None)
        own = getattr(layer, "__module__", "").startswith(("ultralytics.nn.modules.", "torch.nn.modules."))
        if not _is_ultralytics_network_layer(layer) or not own or name == "TorchVision":
            raise ArchitectureError(
                "The description names "
                f"{network_index.printable_network_index_key(str(name))!r}, which is no layer."
            )


def _ultralytics_network_rows(name: str, part: object) -> list[list[Any]]:
    """Return the rows of a part; the package would also build from a tuple, so nothing else passes unseen.

    Raises:
        ArchitectureError: The part is no list of lists.
    """
    if not isinstance(part, list) or not all(isinstance(row, list) for row in part):
        raise ArchitectureError(f"The description's {name} is no list of layers.")
    return part


def _is_ultralytics_network_layer(value: object) -> bool:
    import torch

    return isinstance(value, type) and issubclass(value, torch.nn.Module)


def _ultralytics_network_differences(
    module: torch.nn.Module, layers: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """Yield a sentence for each layer whose class or settings differ from the file's.

    Strides, paddings, activations and epsilons leave no trace in tensors; this comparison finds them.
    """
    own = dict(module.named_modules(remove_duplicate=False))
    for path in own.keys() - layers.keys():
        yield f"the file has no layer {path}"
    for path, said in layers.items():
        layer = own.get(path)
        kind = f"{type(layer).__module__}.{type(layer).__qualname__}"
        if layer is None or kind.rpartition(".")[2] != str(said["class"]).rpartition(".")[2]:
            yield f"{path} is {network_index.printable_network_index_key(str(said['class']))}, not {kind}"
            continue
        for key, value in said.items():
            built = getattr(layer, key, None)
            comparable = type(built) is type(value) or (
                type(built) in (int, float) and type(value) in (int, float)
            )
            if path and key != "class" and key not in FREE and comparable and built != value:
                said_value = network_index.printable_network_index_key(str(value))
                yield f"{path}.{network_index.printable_network_index_key(key)} is {said_value}, not {built}"


def _ultralytics_network_photos(
    settings: Mapping[str, Any], module: Any, asked: tuple[TensorSpec, ...]
) -> TensorSpec:
    """Return the input: the user's shape, or the size of the training."""
    if len(asked) > 1 or (asked and len(asked[0].shape) != 4):
        raise UsageError(
            "The network takes one input of photos.",
            "Give `--input-shape 1x3x640x640`.",
            code="EM-INPUT-SHAPE",
        )
    if asked:
        return TensorSpec("images", asked[0].shape)
    size = settings["args"].get("imgsz", SIDE)
    sides = tuple(size) if isinstance(size, list | tuple) else (size, size)
    fits = len(sides) == 2 and all(type(side) is int and 0 < side <= MAX_SIDE for side in sides)
    height, width = sides if fits else (SIDE, SIDE)
    return TensorSpec("images", (1, int(settings["yaml"].get("channels", 3)), height, width))


def _run_ultralytics_network_once(module: torch.nn.Module, spec: TensorSpec) -> None:
    """Call the network, which lays out its grid of boxes for the size: later calls change nothing."""
    import torch

    with torch.no_grad():
        try:
            module(torch.zeros(spec.shape))
        except Exception as error:
            raise UsageError(
                f"The network does not run on {list(spec.shape)}: {str(error)[:200]}",
                "Give sides that are multiples of 32: `--input-shape 1x3x640x640`.",
                code="EM-INPUT-SHAPE",
            ) from error


def _ultralytics_network_settings(name: str, head: Any) -> tuple[str, ...]:
    if getattr(head, "end2end", False):
        return ("the output has a row per box: corners, score and class; the head chooses them without NMS",)
    return tuple(filter(None, (ANSWERS[name],)))


def _ultralytics_network_photo(spec: TensorSpec, name: str) -> Photo | None:
    channels, height, width = spec.shape[1:]
    if channels not in (1, 3):
        return None
    zeros, ones = (0.0,) * channels, (1.0,) * channels
    record = Preprocessing(max(height, width), (height, width), zeros, ones)
    padded = (
        "" if name == "ClassificationModel" else "; Ultralytics pads photos with grey where they are cut here"
    )
    return Photo(record, channels, f"photos are scaled to 0..1{padded}")


def _ultralytics_network_labels(names: object) -> tuple[str, ...]:
    values = list(names.values()) if isinstance(names, dict) else names
    return tuple(map(str, values)) if isinstance(values, list) else ()
