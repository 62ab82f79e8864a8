"""Export torchvision's detectors that were pickled whole, up to their boxes and scores.

Their settings (anchors, sizes, thresholds) are the file's own, so that nothing is inferred.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.architectures import torchvision_detectors
from exporter.architectures.built_network import Built

if TYPE_CHECKING:
    import torch

KINDS = {
    "faster_rcnn.FasterRCNN": "fasterrcnn",
    "mask_rcnn.MaskRCNN": "maskrcnn",
    "keypoint_rcnn.KeypointRCNN": "keypointrcnn",
    "retinanet.RetinaNet": "retinanet",
    "fcos.FCOS": "fcos",
    "ssd.SSD": "ssd300",
}
"""Classes in torchvision.models.detection -> how the names of their builders begin."""
PACKAGE = "torchvision.models.detection."
LAYERS = ("torchvision.", "torch.nn.modules.")


def pickled_detector(
    module: torch.nn.Module, title: str, size: tuple[int, int] | None, part: str
) -> Built | None:
    """Wrap the detector; None for another network, and for one with layers that are not torchvision's.

    Args:
        module: The network that the file holds.
        title: Its name.
        size: (height, width) of the input, where the user gave it.
        part: The part of a network with three stages.

    Raises:
        SeveralPartsError: It has masks or keypoints, and no part was named.
        UsageError: The input's size does not suit the network, or it has no such part.
    """
    kind = KINDS.get(_class_of_pickled_detector(module).removeprefix(PACKAGE))
    if kind is None or not _is_pickled_detector_unchanged(module):
        return None
    note = f"the file holds its own network ({title}), whose settings are used"
    return torchvision_detectors.up_to_the_boxes(module.eval(), title, kind, (note,), size, part)


def _class_of_pickled_detector(module: torch.nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _is_pickled_detector_unchanged(module: torch.nn.Module) -> bool:
    """Tell whether all but the backbone computes as torchvision's classes do."""
    own = [layer for name, layer in module.named_modules() if name.partition(".")[0] != "backbone"]
    return all(
        _class_of_pickled_detector(layer).startswith(LAYERS) and "forward" not in vars(layer) for layer in own
    )
