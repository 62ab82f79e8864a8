"""Make the parts of torchvision's detectors with three stages: the detector, and what it runs for its boxes.

Boxes are removed between the second stage and the third, which no format for phones expresses, so an app runs
two files: `detector` gives boxes and the pyramid's features, `masks` or `keypoints` takes both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporter.architectures.asked_parts import parts_to_export
from exporter.errors import SeveralPartsError
from exporter.records import Sample, TensorSpec

if TYPE_CHECKING:
    from exporter.architectures.instance_heads import InstanceHeads
    from exporter.architectures.region_heads import RegionHeads

DETECTOR = "detector"


@dataclass(frozen=True, eq=False)
class ThreeStages:
    """A detector with three stages as two modules."""

    detector: RegionHeads
    instances: InstanceHeads
    boxes: int
    """Number of boxes that the third stage takes."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Return the inputs of the third stage: outputs of the detector, and boxes."""
        from exporter.architectures.region_heads import FEATURES

        shapes = self.detector.feature_shapes
        features = [TensorSpec(f"{FEATURES}{place}", shape) for place, shape in enumerate(shapes)]
        return (*features, TensorSpec("boxes", (1, self.boxes, 4)))

    def inputs_from_photo(self) -> Callable[[Sample], Sample]:
        """Return the function that makes the third stage's inputs of a photo, by the first two stages."""
        from exporter.architectures.instance_heads import likeliest_instance_boxes
        from exporter.architectures.region_heads import FEATURES

        def run(sample: Sample) -> Sample:
            import torch

            with torch.no_grad():
                outputs = self.detector(torch.from_numpy(sample[0]))
                boxes = likeliest_instance_boxes(outputs["boxes"], outputs["scores"], self.boxes)
            features = [value for name, value in outputs.items() if name.startswith(FEATURES)]
            return tuple(value.contiguous().numpy() for value in (*features, boxes))

        return run


def three_stages_of_detector(network: Any, size: tuple[int, int]) -> ThreeStages:
    """Split a Mask or Keypoint R-CNN of torchvision into its two parts, for photos of `size`."""
    from exporter.architectures.instance_heads import InstanceHeads
    from exporter.architectures.region_heads import RegionHeads

    detector = RegionHeads(network, size, with_features=True)
    return ThreeStages(
        detector.eval(), InstanceHeads(network, detector).eval(), int(network.roi_heads.detections_per_img)
    )


def check_detector_part(title: str, third: str, part: str) -> None:
    """Refuse a part that the network does not have.

    Args:
        title: The network.
        third: The name of its third stage's part.
        part: The part that the user named, or none.

    Raises:
        SeveralPartsError: No part was named, several were, or one that the network does not have.
    """
    if part in (DETECTOR, third):
        return
    exported = parts_to_export(part, (DETECTOR, third))
    raise SeveralPartsError(
        f"{title} has the parts {DETECTOR} and {third}, which an app runs one after the other"
        + ("." if exported else f"; it has no {part}."),
        f"Choose one (--part {DETECTOR}), or both (--part {DETECTOR},{third}).",
        exported,
    )


def notes_on_instances(stages: ThreeStages) -> tuple[str, ...]:
    """Say what the third stage's part takes and returns."""
    given = f"features0 to features{len(stages.inputs) - 2}"
    result = (
        "a mask of probabilities for each box and class, without the background's"
        if stages.instances.has_masks
        else "a heatmap for each box and keypoint"
    )
    return (
        f"the inputs are the detector's outputs {given}, and {stages.boxes} boxes, the unused ones zero; the "
        f"output is {result}",
    )
