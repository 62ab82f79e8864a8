"""Build the index of known networks from the installed torchvision.

`scripts/build-architecture-index` runs this module; it is not part of the package.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.architectures import network_index, skeleton

if TYPE_CHECKING:
    import torch

CLASSES = 1000
SEGMENTATION_CLASSES = 21
SEGMENTATION_CROP = 512
"""torchvision evaluates segmentation on whole photos, short side 520. A phone needs a fixed size: 512 divides
by every network's stride (8, 16 or 32), so the last upsampling is a whole factor."""
AUX_LOGITS = ("googlenet", "inception_v3")


def write(path: Path) -> None:
    """Write the index; the bytes depend on nothing but the installed torchvision."""
    text = json.dumps(survey(), separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


def survey() -> dict[str, Any]:
    """Describe every network: about 220 constructions without weights."""
    builders = skeleton.skeleton_builders()
    import torchvision

    records = [record for name in names() for record in _records(name, builders, "classification")]
    records += [
        record for name in names("segmentation") for record in _records(name, builders, "segmentation")
    ]
    return {"torchvision": torchvision.__version__.split("+")[0], "entries": records}


def names(module: str = "") -> list[str]:
    """Return the networks of a module of torchvision's models; of models itself without a name."""
    skeleton.skeleton_builders()
    from torchvision import models

    return list(models.list_models(getattr(models, module) if module else models))


def _records(
    name: str, builders: dict[str, Callable[..., torch.nn.Module]], task: str
) -> Iterator[dict[str, Any]]:
    for options in option_variants(name, builders[name]):
        tensors = _patterns(name, options, CLASSES if task == "classification" else SEGMENTATION_CLASSES)
        twin = skeleton.QUANTIZABLE_PREFIX + name
        yield {
            "name": name,
            "task": task,
            "options": options,
            "classes": CLASSES if task == "classification" else SEGMENTATION_CLASSES,
            "tensors": tensors,
            "recipes": _recipes(name, task),
            "quantizable": twin if twin in builders and _same(twin, name, options) else None,
        }


def option_variants(name: str, builder: Callable[..., torch.nn.Module]) -> list[dict[str, bool]]:
    """Return the settings of a builder that change which tensors its network has."""
    import inspect

    if name in AUX_LOGITS:
        return [{"aux_logits": False}, {"aux_logits": True}]
    if "aux_loss" in inspect.signature(builder).parameters:
        return [{"aux_loss": False}, {"aux_loss": True}]
    return [{}]


def shapes(name: str, **arguments: Any) -> dict[str, tuple[int, ...]]:
    """Return key -> shape of a network's state_dict."""
    module = skeleton.construct_skeleton(name, arguments)
    return {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}


def _same(first: str, second: str, options: dict[str, bool]) -> bool:
    return shapes(first, **options) == shapes(second, **options)


def _patterns(name: str, options: dict[str, bool], classes: int) -> dict[str, list[int | str]]:
    """Replace the sizes that follow from the user's own data by symbols."""
    module = skeleton.construct_skeleton(name, {**options, "num_classes": classes})
    patterns: dict[str, list[int | str]] = {key: list(t.shape) for key, t in module.state_dict().items()}
    _mark(patterns, shapes(name, **options, num_classes=classes + 1), "classes")
    if name.startswith("vit_"):
        _mark(patterns, shapes(name, **options, num_classes=classes, image_size=448), "positions")
    layers = module.named_modules()
    stem = next(key for key, layer in layers if getattr(layer, "in_channels", None) == 3)
    patterns[f"{stem}.weight"][1] = "channels"
    return patterns


def _mark(patterns: dict[str, list[int | str]], changed: dict[str, tuple[int, ...]], symbol: str) -> None:
    """Write `symbol` wherever `changed` has another size."""
    for key, shape in changed.items():
        for axis, size in enumerate(shape):
            if isinstance(patterns[key][axis], int) and patterns[key][axis] != size:
                patterns[key][axis] = symbol


def _recipes(name: str, task: str) -> list[dict[str, Any]]:
    from torchvision import models

    enum = models.get_model_weights(name)
    default_first = sorted(enum, key=lambda weights: weights is not enum.DEFAULT)
    return [_recipe(weights, task) for weights in default_first if weights.meta.get("categories")]


def _recipe(weights: Any, task: str) -> dict[str, Any]:
    transforms = weights.transforms()
    crop = SEGMENTATION_CROP if task == "segmentation" else transforms.crop_size[0]
    return {
        "weights": str(weights),
        "sha256_prefix": Path(weights.url).stem.rpartition("-")[2],
        "preprocessing": {
            "resize": transforms.resize_size[0],
            "crop": [crop, crop],
            "mean": list(transforms.mean),
            "std": list(transforms.std),
            "interpolation": transforms.interpolation.value,
        },
    }


def packaged() -> Path:
    """Return the path of the index in the source tree."""
    return Path(network_index.__file__).with_name(network_index.FILE)
