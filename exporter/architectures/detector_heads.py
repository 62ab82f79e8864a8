"""Run a detector of torchvision of one stage up to its boxes and scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class DetectorHeads(nn.Module):
    """Returns a detector's boxes [1, n, 4], corners in pixels of the input, and scores [1, n, classes].

    The anchors follow from the input's size, so they are computed once, and become constants of the file.
    """

    anchors: Tensor

    def __init__(self, network: Any, size: tuple[int, int]) -> None:
        """Wrap a detector.

        Args:
            network: An SSD, RetinaNet or FCOS of torchvision.
            size: (height, width) of the input.
        """
        from torchvision.models.detection import ssd
        from torchvision.models.detection.image_list import ImageList

        super().__init__()
        self.backbone: nn.Module = network.backbone
        self.head: nn.Module = network.head
        self.coder: Any = network.box_coder
        self.size = size
        self.has_background = isinstance(network, ssd.SSD)
        photo = torch.zeros(1, 3, *size)
        network.eval()
        with torch.no_grad():
            anchors = network.anchor_generator(ImageList(photo, [size]), self._features(photo))[0]
        self.register_buffer("anchors", anchors, persistent=False)
        self.rows = len(anchors)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the boxes and scores of one photo."""
        heads = self.head(self._features(image))
        return {"boxes": self._boxes(heads["bbox_regression"]), "scores": self._scores(heads)}

    def _features(self, image: Tensor) -> list[Tensor]:
        features = self.backbone(image)
        return [features] if isinstance(features, Tensor) else list(features.values())

    def _boxes(self, regression: Tensor) -> Tensor:
        decode = getattr(self.coder, "decode_single", self.coder.decode)
        corners = decode(regression[0], self.anchors)
        height, width = self.size
        x = corners[:, 0::2].clamp(0, width)
        y = corners[:, 1::2].clamp(0, height)
        return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1)[None]

    def _scores(self, heads: dict[str, Tensor]) -> Tensor:
        logits = heads["cls_logits"]
        if self.has_background:
            return logits.softmax(-1)[..., 1:]
        if "bbox_ctrness" in heads:
            return (logits.sigmoid() * heads["bbox_ctrness"].sigmoid()).sqrt()
        return logits.sigmoid()
