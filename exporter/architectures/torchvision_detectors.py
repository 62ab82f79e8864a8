"""Recognise torchvision's detectors by their tensors, and build them up to their boxes and scores.

What follows in torchvision (thresholds, non-maximum suppression) gives as many boxes as it likes, which no
format for phones expresses: it is left to the app, and docs/guides/detectors.md has it in three languages.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from unittest import mock

from exporter.architectures import (
    detector_parts,
    detector_photo,
    lookalike_doubts,
    network_index,
    skeleton,
    weight_loading,
)
from exporter.architectures.built_network import Built, Photo
from exporter.architectures.weight_readings import Weights
from exporter.errors import UsageError
from exporter.records import EarlierPart, TensorSpec

if TYPE_CHECKING:
    import torch

    from exporter.architectures.region_heads import RegionHeads

PREFIX = "torchvision/"
SIGNS = (
    ("keypointrcnn", "roi_heads.keypoint_predictor."),
    ("maskrcnn", "roi_heads.mask_predictor."),
    ("fasterrcnn", "roi_heads.box_predictor."),
    ("fcos", "head.regression_head.bbox_ctrness."),
    ("retinanet", "head.classification_head.cls_logits."),
    ("ssdlite", "head.classification_head.module_list.0.0."),
    ("ssd300", "head.classification_head.module_list."),
)
"""Beginning of the names of detectors -> of those of their tensors; the first that the file has counts."""
TWO_STAGES = ("fasterrcnn",)
THREE_STAGES: Mapping[str, str] = {"keypointrcnn": "keypoints", "maskrcnn": "masks"}
"""Beginning of names of networks -> the part that their third stage is."""
KEYPOINTS = "roi_heads.keypoint_predictor.kps_score_lowres.bias"
"""The tensor that has a value for each keypoint."""
WITHOUT_EPSILON = (
    "retinanet_resnet50_fpn",
    "fasterrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
)
"""Networks whose first published weights were trained with batch norms that add nothing to variances."""
CLASSES = 91
"""Classes of COCO's networks, with one for the background."""
IN_THE_APP = "docs/guides/detectors.md has it in Python, Kotlin and Swift"


@dataclass(frozen=True)
class KnownDetector:
    """A detector of torchvision that has exactly the file's tensors."""

    name: str
    classes: int
    full_tail: bool = False
    """Whether SSDLite's last layers have their full width, as with a backbone that was trained before."""
    keypoints: int = 0
    """Number of keypoints; 0 for a detector that has none."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the builder, which change no tensor."""


def is_torchvision_detector(readings: Sequence[Weights]) -> bool:
    """Tell whether the tensors have names as torchvision's detectors have them."""
    return any(_torchvision_detector_kind(weights) for weights in readings)


def _torchvision_detector_kind(weights: Weights) -> str:
    """Return the beginning of the names of the detectors that the tensors may be; empty for others."""
    return next((kind for kind, sign in SIGNS if any(key.startswith(sign) for key in weights.tensors)), "")


def torchvision_detector(
    readings: Sequence[Weights],
    sha256: str,
    size: tuple[int, int] | None,
    name: str = "",
    arguments: Mapping[str, Any] = MappingProxyType({}),
    part: str = "",
    stated: tuple[tuple[str, str], ...] = (),
) -> Built | None:
    """Build the detector, or a part of it, with exactly these tensors; None where torchvision has none.

    Args:
        readings: The file's tensors by the names to try.
        sha256: The file's hash, which tells torchvision's own files.
        size: (height, width) of the input, where the user gave it.
        name: The network that the user named; empty tries all.
        arguments: The user's arguments of the builder, such as `min_size` or `box_detections_per_img`.
        part: The part of a network with three stages: detector, masks or keypoints.
        stated: (place, text) of the names that the file gives its network, which decide between several.

    Raises:
        SeveralPartsError: It has masks or keypoints, and no part was named.
        UsageError: The input's size does not suit the network, or the builder does not take the arguments.
    """
    for weights in readings:
        fitting = [*_known_torchvision_detectors(weights, name)]
        if fitting:
            known = next((known for known in fitting if _is_stated_detector(known.name, stated)), fitting[0])
            settled = replace(known, settings=arguments)
            built = _built_torchvision_detector(settled, weights, sha256, size, part)
            published = find_published_torchvision_detector(known.name, sha256) is not None
            others = [PREFIX + other.name for other in fitting if other != known]
            doubt = lookalike_doubts.detector_doubt(PREFIX + known.name, others, stated)
            return replace(built, warnings=() if name or published else (doubt,))
    return None


def _is_stated_detector(name: str, stated: tuple[tuple[str, str], ...]) -> bool:
    return any(name in lookalike_doubts.lookalike_doubt_words(text) for _, text in stated)


def _known_torchvision_detectors(weights: Weights, wanted: str) -> Iterator[KnownDetector]:
    """Yield the detectors of torchvision that have exactly these tensors."""
    shapes = {
        key: shape for key, shape in weights.shapes.items() if not key.endswith(network_index.OPTIONAL_SUFFIX)
    }
    kind = _torchvision_detector_kind(weights)
    for name in torchvision_detector_names():
        if wanted not in ("", name) or not kind or not name.startswith(kind):
            continue
        for full_tail in (False, True) if name.startswith("ssdlite") else (False,):
            keypoints = shapes[KEYPOINTS][0] if shapes.get(KEYPOINTS) else 0
            usual = KnownDetector(name, CLASSES, full_tail, keypoints)
            first = _torchvision_detector_shapes(usual)
            if first.keys() == shapes.keys() and _differ_torchvision_detectors_in_heads_only(first, shapes):
                known = replace(usual, classes=_torchvision_detector_classes(usual, first, shapes))
                if known.classes > 0 and _torchvision_detector_shapes(known) == shapes:
                    yield known


def _differ_torchvision_detectors_in_heads_only(
    first: Mapping[str, network_index.Shape], second: Mapping[str, network_index.Shape]
) -> bool:
    return all("head" in key or shape == second[key] for key, shape in first.items())


def torchvision_detector_names() -> list[str]:
    """List torchvision's detectors."""
    skeleton.skeleton_builders()
    from torchvision import models

    return list(models.list_models(models.detection))


def _torchvision_detector_shapes(known: KnownDetector) -> dict[str, network_index.Shape]:
    state = _construct_torchvision_detector(known).state_dict()
    return {
        key: tuple(tensor.shape)
        for key, tensor in state.items()
        if not key.endswith(network_index.OPTIONAL_SUFFIX)
    }


def _torchvision_detector_classes(
    usual: KnownDetector, first: Mapping[str, network_index.Shape], shapes: Mapping[str, network_index.Shape]
) -> int:
    """Return the number of classes that the tensors' sizes follow from; 0 where they follow from none."""
    second = _torchvision_detector_shapes(replace(usual, classes=CLASSES + 1))
    for key, shape in first.items():
        step = second[key][0] - shape[0] if shape else 0
        if step:
            classes, rest = divmod(shapes[key][0] - shape[0] + CLASSES * step, step)
            return 0 if rest else classes
    return 0


def _construct_torchvision_detector(known: KnownDetector) -> Any:
    """Construct a detector without drawing weights; torchvision's own choices that need some are replaced."""
    from torchvision.models.detection import _utils, ssdlite

    backbone: Any = ssdlite.mobilenet_v3_large
    widths: Any = _utils.retrieve_out_channels

    def with_tail(**options: Any) -> Any:
        # torchvision widens these layers only where it also downloads weights for them.
        return backbone(**{**options, "reduced_tail": not known.full_tail})

    def widths_on_meta(network: torch.nn.Module, size: tuple[int, int]) -> Any:
        return widths(copy.deepcopy(network).to("meta"), size)

    with (
        mock.patch.object(ssdlite, "mobilenet_v3_large", with_tail),
        mock.patch.object(_utils, "retrieve_out_channels", widths_on_meta),
    ):
        try:
            network = skeleton.construct_skeleton(
                known.name, {**known.settings, **_sizes_of_torchvision_detector(known)}
            )
            _check_torchvision_detector_settings(network, known.settings)
        except (TypeError, ValueError) as error:
            given = ", ".join(f"{key}={value!r}" for key, value in known.settings.items())
            raise UsageError(
                f"{PREFIX}{known.name} cannot be built with {given or 'no arguments'}: {error}",
                "Its arguments are those of torchvision's builder and of the detector's class.",
                code="EM-ARCH",
            ) from error
    return network


def _check_torchvision_detector_settings(network: Any, settings: Mapping[str, Any]) -> None:
    """Refuse arguments that no class of the network takes: torchvision ignores them.

    Raises:
        TypeError: There are such arguments.
    """
    constructors = [vars(cls)["__init__"] for cls in type(network).__mro__ if "__init__" in vars(cls)]
    taken = {name for construct in constructors for name in inspect.signature(construct).parameters}
    if unknown := settings.keys() - taken - {"trainable_backbone_layers"}:
        raise TypeError(f"{type(network).__name__} takes no {', '.join(sorted(unknown))}")


def _sizes_of_torchvision_detector(known: KnownDetector) -> dict[str, int]:
    """Return the arguments of the builder that follow from the tensors."""
    sizes = {"num_classes": known.classes, "num_keypoints": known.keypoints}
    return {key: size for key, size in sizes.items() if size}


def _built_torchvision_detector(
    known: KnownDetector, weights: Weights, sha256: str, size: tuple[int, int] | None, part: str
) -> Built:
    title = PREFIX + known.name
    kind = known.name.partition("_")[0]
    _check_torchvision_detector_part(title, kind, part)
    network = _construct_torchvision_detector(known)
    notes = weight_loading.load_weights(network, (weights,), title, assign=True)
    published = find_published_torchvision_detector(known.name, sha256)
    if published is not None and str(published).endswith("COCO_V1") and known.name in WITHOUT_EPSILON:
        _set_torchvision_detector_epsilon(network, 0.0)
    exact = f"{len(weights.tensors)} tensors match {title} with {known.classes} classes exactly"
    return up_to_the_boxes(network, title, kind, (exact, *notes), size, part)


def up_to_the_boxes(
    network: Any, title: str, kind: str, notes: tuple[str, ...], size: tuple[int, int] | None, part: str
) -> Built:
    """Wrap a detector of torchvision up to its boxes and scores.

    Args:
        network: The detector, in eval mode.
        title: Its name.
        kind: Its kind, as the names of torchvision's builders begin: "fasterrcnn".
        notes: How it was found.
        size: (height, width) of the input, where the user gave it.
        part: The part of a network with three stages.

    Raises:
        SeveralPartsError: It has masks or keypoints, and no part was named.
        UsageError: The input's size does not suit the network, or it has no such part.
    """
    _check_torchvision_detector_part(title, kind, part)
    photo = detector_photo.detector_photo(network.transform, size)
    height, width = photo.preprocessing.crop
    if network.transform.fixed_size is None:
        detector_photo.check_detector_photo_size(title, height, width)
    if kind in THREE_STAGES:
        return _part_of_three_stages(network, title, photo, notes, part)
    heads = _region_heads if kind in TWO_STAGES else _one_stage_heads
    module, outputs = heads(network, (height, width))
    return Built(module=module, architecture=title, notes=(*notes, *outputs), photo=photo)


def _check_torchvision_detector_part(title: str, kind: str, part: str) -> None:
    if kind in THREE_STAGES:
        detector_parts.check_detector_part(title, THREE_STAGES[kind], part)
    elif part:
        raise UsageError(f"--part {part}: {title} is one network, without parts.", "Leave --part out.")


def _part_of_three_stages(network: Any, title: str, photo: Photo, notes: tuple[str, ...], part: str) -> Built:
    """Return the detector or the third stage of a Mask or Keypoint R-CNN."""
    size = photo.preprocessing.crop
    stages = detector_parts.three_stages_of_detector(network, size)
    module = stages.detector if part == detector_parts.DETECTOR else stages.instances
    built = Built(module=module, architecture=f"{title}:{part}", photo=photo)
    if part == detector_parts.DETECTOR:
        outputs = _notes_on_regions(network, stages.detector)
        return replace(built, notes=(*notes, *outputs, "the pyramid's features are outputs, too"))
    seen = EarlierPart((TensorSpec("image", (1, 3, *size)),), None, stages.inputs_from_photo())
    given = detector_parts.notes_on_instances(stages)
    return replace(built, notes=(*notes, *given), inputs=stages.inputs, earlier=seen)


def _one_stage_heads(network: Any, size: tuple[int, int]) -> tuple[torch.nn.Module, tuple[str, ...]]:
    """Wrap a detector of one stage, and say what the app does with its outputs."""
    from exporter.architectures.detector_heads import DetectorHeads

    module = DetectorHeads(network, size)
    settings = (
        f"score_threshold={network.score_thresh:g}, iou_threshold={network.nms_thresh:g}, "
        f"candidates={network.topk_candidates}, detections={network.detections_per_img}"
    )
    return module, (
        f"the outputs are {module.rows} boxes as corners in pixels, and a score for each class"
        + (", without the background's" if module.has_background else ""),
        f"the app does the rest, with {settings}: {IN_THE_APP}",
    )


def _region_heads(network: Any, size: tuple[int, int]) -> tuple[torch.nn.Module, tuple[str, ...]]:
    """Wrap a Faster R-CNN, and say what the app does with its outputs."""
    from exporter.architectures.region_heads import RegionHeads

    module = RegionHeads(network, size)
    return module, _notes_on_regions(network, module)


def _notes_on_regions(network: Any, module: RegionHeads) -> tuple[str, ...]:
    regions, boxes = network.rpn, network.roi_heads
    settings = (
        f"levels={list(module.levels)}, region_threshold={regions.score_thresh:g}, "
        f"region_overlap={regions.nms_thresh:g}, regions={regions.post_nms_top_n()}, "
        f"score_threshold={boxes.score_thresh:g}, iou_threshold={boxes.nms_thresh:g}, "
        f"detections={boxes.detections_per_img}"
    )
    return (
        f"the outputs are the {sum(module.levels)} regions that the first stage may keep, and for each of "
        "them the second stage's boxes and scores by class, without the background's",
        f"the app does the rest, with {settings}: {IN_THE_APP}",
    )


def find_published_torchvision_detector(name: str, sha256: str) -> Any | None:
    """Return torchvision's own weights that the file is, by its hash; None for another file."""
    from torchvision import models

    every = models.get_model_weights(name)
    return next((w for w in every if sha256.startswith(w.url.rpartition("-")[2].removesuffix(".pth"))), None)


def _set_torchvision_detector_epsilon(network: torch.nn.Module, epsilon: float) -> None:
    """Set what batch norms add to variances: torchvision's first weights were trained with another one."""
    import torch

    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = epsilon
