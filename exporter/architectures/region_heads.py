"""Run a Faster R-CNN of torchvision up to its raw heads, for every region that its first stage may keep.

torchvision first removes overlapping regions, and runs the second stage for what stays: as many as it likes,
which no format for phones expresses. The second stage treats each region by itself, so here it runs for a
fixed number of them, before any is removed. The app then removes regions and boxes, and gets what torchvision
returns; docs/guides/detectors.md has that part in three languages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from exporter.architectures.region_crops import RegionCrops

FEATURES = "features"
"""Outputs with the pyramid's levels are features0, features1, …"""


class RegionHeads(nn.Module):
    """Returns regions [1, n, 4] with their objectness [1, n], and for each its boxes and scores by class.

    Boxes are [1, n, classes, 4] and scores [1, n, classes]; the background's are left out. Corners are in
    pixels of the input. The regions of a level of the pyramid are together, and `levels` has their numbers.
    For a network with a third stage, which needs them, the pyramid's features are outputs too.
    """

    def __init__(self, network: Any, size: tuple[int, int], with_features: bool = False) -> None:
        """Wrap a detector.

        Args:
            network: A Faster R-CNN of torchvision, or a network with a third stage.
            size: (height, width) of the input.
            with_features: Whether the features that regions are cut from are outputs.
        """
        from torchvision.models.detection.image_list import ImageList

        super().__init__()
        self.backbone: nn.Module = network.backbone
        self.proposals: nn.Module = network.rpn.head
        self.box_head: nn.Module = network.roi_heads.box_head
        self.box_predictor: nn.Module = network.roi_heads.box_predictor
        self.coders: tuple[Any, Any] = (network.rpn.box_coder, network.roi_heads.box_coder)
        self.size = size
        photo = torch.zeros(1, 3, *size)
        network.eval()
        with torch.no_grad():
            features = self.backbone(photo)
            objectness = self.proposals(list(features.values()))[0]
            anchors = network.rpn.anchor_generator(ImageList(photo, [size]), list(features.values()))[0]
        self.register_buffer("anchors", anchors, persistent=False)
        self.anchor_counts = [level[0].numel() for level in objectness]
        most = network.rpn.pre_nms_top_n()
        self.levels = tuple(min(most, count) for count in self.anchor_counts)
        self.with_features = with_features
        pool = network.roi_heads.box_roi_pool
        self.pooled = [name for name in pool.featmap_names if name in features]
        self.feature_shapes = [tuple(features[name].shape) for name in self.pooled]
        self.crops = RegionCrops(pool, [shape[-2] for shape in self.feature_shapes], size[0])

    anchors: Tensor

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the regions of one photo, and what the second stage says of each."""
        features = self.backbone(image)
        regions, objectness = self._regions(list(features.values()))
        pooled = [features[name] for name in self.pooled]
        logits, deltas = self.box_predictor(self.box_head(self.crops(pooled, regions)))
        boxes = self._clipped(self.coders[1].decode(deltas, [regions]).flatten(0, 1))
        boxes = boxes.reshape(len(regions), -1, 4)[:, 1:]
        outputs = {
            "regions": regions[None],
            "objectness": objectness[None],
            "boxes": boxes[None],
            "scores": logits.softmax(-1)[None, :, 1:],
        }
        levels = pooled if self.with_features else ()
        return outputs | {f"{FEATURES}{place}": level for place, level in enumerate(levels)}

    def _regions(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the most likely regions of each level, in the anchors' order, and their objectness."""
        logits, deltas = self.proposals(list(features))
        regions, objectness, start = [], [], 0
        for logit, delta, count, most in zip(logits, deltas, self.anchor_counts, self.levels, strict=True):
            per_anchor = logit[0].permute(1, 2, 0).reshape(-1)
            height, width = delta.shape[-2:]
            moved = delta[0].reshape(-1, 4, height, width).permute(2, 3, 0, 1).reshape(-1, 4)
            anchors = self.anchors[start : start + count]
            start += count
            if most < count:
                # In the order of anchors, which no rounding of the scores changes.
                best = -torch.topk(-torch.topk(per_anchor, most).indices, most).values
                per_anchor, moved, anchors = per_anchor[best], moved[best], anchors[best]
            decoded = self.coders[0].decode(moved, [anchors]).reshape(-1, 4)
            regions.append(self._clipped(decoded))
            objectness.append(per_anchor.sigmoid())
        return torch.cat(regions), torch.cat(objectness)

    def _clipped(self, boxes: Tensor) -> Tensor:
        height, width = self.size
        x, y = boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)
        return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1)
