"""Run a Faster R-CNN of torchvision up to its raw heads, for every region that its first stage may keep.

torchvision first removes overlapping regions, and runs the second stage for what stays: as many as it likes,
which no format for phones expresses. The second stage treats each region by itself, so here it runs for a
fixed number of them, before any is removed. The app then removes regions and boxes, and gets what torchvision
returns; docs/guides/detectors.md has that part in three languages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

SAMPLES = 2
"""Points in a bin's side that torchvision's RoIAlign averages."""


class RegionHeads(nn.Module):
    """Returns regions [1, n, 4] with their objectness [1, n], and for each its boxes and scores by class.

    Boxes are [1, n, classes, 4] and scores [1, n, classes]; the background's are left out. Corners are in
    pixels of the input. The regions of a level of the pyramid are together, and `levels` has their numbers.
    """

    def __init__(self, network: Any, size: tuple[int, int]) -> None:
        """Wrap a detector.

        Args:
            network: A Faster R-CNN of torchvision.
            size: (height, width) of the input.
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
            pooled = [
                features[name] for name in network.roi_heads.box_roi_pool.featmap_names if name in features
            ]
            objectness = self.proposals(list(features.values()))[0]
            anchors = network.rpn.anchor_generator(ImageList(photo, [size]), list(features.values()))[0]
        self.register_buffer("anchors", anchors, persistent=False)
        self.anchor_counts = [level[0].numel() for level in objectness]
        most = network.rpn.pre_nms_top_n()
        self.levels = tuple(min(most, count) for count in self.anchor_counts)
        self.pooled = [name for name in network.roi_heads.box_roi_pool.featmap_names if name in features]
        self.scales = [2 ** round(math.log2(level.shape[-2] / size[0])) for level in pooled]
        pool = network.roi_heads.box_roi_pool
        self.usual_side, self.usual_level = pool.canonical_scale, pool.canonical_level
        self.bins = int(network.roi_heads.box_roi_pool.output_size[0])

    anchors: Tensor

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the regions of one photo, and what the second stage says of each."""
        features = self.backbone(image)
        regions, objectness = self._regions(list(features.values()))
        crops = self._crops([features[name] for name in self.pooled], regions)
        logits, deltas = self.box_predictor(self.box_head(crops))
        boxes = self._clipped(self.coders[1].decode(deltas, [regions]).flatten(0, 1))
        boxes = boxes.reshape(len(regions), -1, 4)[:, 1:]
        return {
            "regions": regions[None],
            "objectness": objectness[None],
            "boxes": boxes[None],
            "scores": logits.softmax(-1)[None, :, 1:],
        }

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

    def _crops(self, features: Sequence[Tensor], regions: Tensor) -> Tensor:
        """Return each region's features [n, channels, bins, bins] from the level that suits its size."""
        smallest = -math.log2(self.scales[0])
        side = ((regions[:, 2] - regions[:, 0]) * (regions[:, 3] - regions[:, 1])).sqrt()
        level = torch.floor(self.usual_level + torch.log2(side / self.usual_side) + 1e-6).clamp(
            smallest, smallest + len(features) - 1
        )
        crops = None
        for place, (feature, scale) in enumerate(zip(features, self.scales, strict=True)):
            crop = self._aligned(feature, regions, scale)
            chosen = (level == smallest + place)[:, None, None, None]
            crops = crop if crops is None else torch.where(chosen, crop, crops)
        assert crops is not None
        return crops

    def _aligned(self, feature: Tensor, regions: Tensor, scale: float) -> Tensor:
        """Compute RoIAlign: the mean of bilinear samples in each bin of each region."""
        channels, height, width = feature.shape[1:]
        x = self._points(regions[:, 0] * scale, regions[:, 2] * scale)
        y = self._points(regions[:, 1] * scale, regions[:, 3] * scale)
        points = x.shape[1]
        grid = torch.stack(
            [
                (x / max(width - 1, 1) * 2 - 1)[:, None, :].expand(-1, points, -1),
                (y / max(height - 1, 1) * 2 - 1)[:, :, None].expand(-1, -1, points),
            ],
            dim=-1,
        )
        flat = grid.reshape(1, -1, points, 2)
        sampled = functional.grid_sample(feature, flat, padding_mode="border", align_corners=True)
        bins = sampled.reshape(channels, -1, self.bins, SAMPLES, self.bins, SAMPLES).mean((3, 5))
        return bins.transpose(0, 1)

    def _points(self, low: Tensor, high: Tensor) -> Tensor:
        """Return the places of the samples along one side of each region, [n, bins * samples]."""
        step = (high - low).clamp_min(1) / self.bins
        places = (torch.arange(self.bins * SAMPLES, dtype=low.dtype) + 0.5) / SAMPLES
        return low[:, None] + step[:, None] * places
