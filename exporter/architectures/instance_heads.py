"""Run the third stage of torchvision's Mask or Keypoint R-CNN, for a fixed number of boxes.

torchvision runs it for the boxes that stay at the very end. Here it takes as many boxes as may stay, the app
fills up what it does not need with zeros, and each box is treated by itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from exporter.architectures.region_crops import RegionCrops
from exporter.architectures.region_heads import RegionHeads

OVERLAP = 0.5
"""Boxes that overlap more show the same object, and a sample has one of them."""


class InstanceHeads(nn.Module):
    """Returns masks [1, n, classes, h, w] or heatmaps of keypoints [1, n, keypoints, h, w] of n boxes.

    Its inputs are the pyramid's features and boxes [1, n, 4], corners in pixels of the photo. Masks are
    probabilities and leave the background out, as the detector's scores do.
    """

    def __init__(self, network: Any, detector: RegionHeads) -> None:
        """Wrap a third stage.

        Args:
            network: A Mask or Keypoint R-CNN of torchvision.
            detector: Its first two stages.
        """
        super().__init__()
        heads = network.roi_heads
        self.has_masks = bool(heads.has_mask())
        pool = heads.mask_roi_pool if self.has_masks else heads.keypoint_roi_pool
        self.head: nn.Module = heads.mask_head if self.has_masks else heads.keypoint_head
        self.predictor: nn.Module = heads.mask_predictor if self.has_masks else heads.keypoint_predictor
        self.crops = RegionCrops(pool, [shape[-2] for shape in detector.feature_shapes], detector.size[0])

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Return the masks or heatmaps of each box."""
        *features, boxes = inputs
        maps = self.predictor(self.head(self.crops(features, boxes[0])))[None]
        return {"masks": maps.sigmoid()[:, :, 1:]} if self.has_masks else {"keypoint_heatmaps": maps}


def likeliest_instance_boxes(boxes: Tensor, scores: Tensor, count: int) -> Tensor:
    """Return boxes [1, count, 4] as an app gives them to the third stage, the surest first, then zeros.

    Args:
        boxes: [1, n, classes, 4].
        scores: [1, n, classes].
        count: Number of boxes.
    """
    best, column = scores[0].max(1)
    rows = torch.arange(len(best))
    corners = boxes[0][rows, column][best.argsort(descending=True, stable=True)]
    kept = torch.zeros(1, count, 4)
    for place in range(count):
        if not len(corners):
            break
        kept[0, place] = corners[0]
        corners = corners[_overlaps_of_instance_boxes(corners[0], corners) <= OVERLAP]
    return kept


def _overlaps_of_instance_boxes(box: Tensor, others: Tensor) -> Tensor:
    """Return intersection over union of a box with each of the others; 1 with itself, however small."""
    low, high = torch.maximum(box[:2], others[:, :2]), torch.minimum(box[2:], others[:, 2:])
    shared = (high - low).clamp_min(0).prod(1)
    areas = (others[:, 2:] - others[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    overlap = shared / (areas - shared).clamp_min(1e-9)
    return torch.where((others == box).all(1), 1.0, overlap)
