"""torchvision's detectors: known by their tensors, exported up to boxes and scores, finished in the app."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exporter.architectures import (
    build_architecture,
    detector_parts,
    skeleton,
    torchvision_detectors,
    weight_loading,
)
from exporter.architectures.detector_heads import DetectorHeads
from exporter.architectures.torchvision_detectors import KnownDetector, find_published_torchvision_detector
from exporter.checkpoints import read_checkpoint
from exporter.errors import SeveralPartsError, UsageError
from exporter.records import Checkpoint, TensorSpec

PAGE = Path(__file__).parents[2] / "docs/guides/detectors.md"
SIZE = (64, 96)


@pytest.fixture(scope="module")
def tail() -> Callable[..., list[tuple[float, int, Any]]]:
    """Return the page's Python function."""
    function: Callable[..., list[tuple[float, int, Any]]] = page_functions()["detections"]
    return function


def page_functions() -> dict[str, Any]:
    """Return the page's Python functions, which its readers paste, by name."""
    names: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE):
        exec(code, names)
    return names


@pytest.fixture
def suppression(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give torchvision a plain NMS, as its own operators may not load beside this torch."""
    skeleton.skeleton_builders()
    from torchvision.ops import boxes as torchvision_boxes

    def suppress(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
        order, kept = scores.argsort(descending=True, stable=True), []
        while len(order):
            kept.append(order[0])
            overlap = torchvision_boxes.box_iou(boxes[order[:1]], boxes[order[1:]])[0]
            order = order[1:][~(overlap > threshold)]  # as NaN of empty boxes
        return torch.stack(kept) if kept else torch.zeros(0, dtype=torch.int64)

    monkeypatch.setattr(torchvision_boxes, "nms", suppress)


class Pyramid(torch.nn.Module):
    """A backbone with two levels."""

    def __init__(self, out_channels: int | list[int] = 32) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.first = torch.nn.Conv2d(3, 32, 3, stride=8, padding=1)
        self.second = torch.nn.Conv2d(32, 32, 3, stride=2, padding=1)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        first = self.first(image).relu()
        return {"0": first, "1": self.second(first).relu()}


def make_detector(kind: str) -> Any:
    """Make a small detector of torchvision with weights that find something."""
    skeleton.skeleton_builders()
    from torchvision.models.detection import fcos, retinanet, ssd
    from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator

    torch.manual_seed(3)
    options = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3, "score_thresh": 0.2}
    sides: dict[str, Any] = {"min_size": SIZE[0], "max_size": max(SIZE)}
    if kind == "ssd":
        boxes = DefaultBoxGenerator([[2], [2, 3]])
        network: Any = ssd.SSD(Pyramid([32, 32]), boxes, SIZE[::-1], 4, **options)
    elif kind == "retinanet":
        anchors = AnchorGenerator(((16, 24), (32, 48)), ((0.5, 1.0),) * 2)
        network = retinanet.RetinaNet(Pyramid(), 4, anchor_generator=anchors, **options, **sides)
    else:
        anchors = AnchorGenerator(((8,), (16,)), ((1.0,),) * 2)
        network = fcos.FCOS(Pyramid(), 4, anchor_generator=anchors, **options, **sides)
    for name, parameter in network.head.named_parameters():
        torch.nn.init.normal_(parameter, std=0.08 if name.endswith("weight") else 0.3)
    return network.eval()


@pytest.mark.parametrize("kind", ["ssd", "retinanet", "fcos"])
def test_boxes_scores_and_the_page_s_function_are_torchvision_s_detections(
    kind: str, tail: Callable[..., list[tuple[float, int, Any]]], suppression: None
) -> None:
    """A detector's exported outputs, through the page's function, give the detections of torchvision."""
    network = make_detector(kind)
    photo = torch.rand(1, 3, *SIZE)
    with torch.no_grad():
        (expected,) = network([photo[0]])
        outputs = DetectorHeads(network, SIZE)(photo)
    actual = tail(
        outputs["boxes"][0].numpy(),
        outputs["scores"][0].numpy(),
        network.score_thresh,
        network.nms_thresh,
        network.topk_candidates,
        network.detections_per_img,
    )
    first_label = 1 if kind == "ssd" else 0
    assert len(actual) == len(expected["scores"]) > 3
    assert np.allclose([score for score, _, _ in actual], expected["scores"], atol=1e-6)
    assert [column + first_label for _, column, _ in actual] == expected["labels"].tolist()
    assert np.allclose([box for _, _, box in actual], expected["boxes"], atol=1e-3)


def test_regions_and_the_page_s_functions_are_torchvision_s_detections(
    suppression: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Faster R-CNN's exported outputs, through the page's functions, give the detections of torchvision."""
    network = region_network("fasterrcnn", monkeypatch)
    photo = torch.rand(1, 3, *SIZE)
    with torch.no_grad():
        (expected,) = network([photo[0]])
        module, notes = torchvision_detectors._region_heads(network, SIZE)
        actual = detections_by_the_page(module(photo), notes)

    assert module.levels == (100, 96)  # the most, and all
    assert len(actual) == len(expected["scores"]) > 10
    assert np.allclose([score for score, _, _ in actual], expected["scores"], atol=1e-6)
    assert [column + 1 for _, column, _ in actual] == expected["labels"].tolist()
    assert np.allclose([box for _, _, box in actual], expected["boxes"], atol=1e-3)


def region_network(kind: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a small network of two or three stages, with weights that find something."""
    from importlib import import_module

    skeleton.skeleton_builders()
    from torchvision.models.detection import faster_rcnn, keypoint_rcnn, mask_rcnn
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.ops import MultiScaleRoIAlign, poolers

    def align(feature: Any, rois: Any, output_size: Any, spatial_scale: float, sampling_ratio: int) -> Any:
        # torchvision's own code in Python, as its operators may not load beside this torch
        plain = import_module("torchvision.ops.roi_align")._roi_align
        return plain(feature, rois, spatial_scale, *output_size, sampling_ratio, False)

    monkeypatch.setattr(poolers, "roi_align", align)
    torch.manual_seed(5)
    pools: dict[str, Any] = {
        "maskrcnn": {"mask_roi_pool": MultiScaleRoIAlign(["0", "1"], 14, 2, canonical_scale=32)},
        "keypointrcnn": {
            "keypoint_roi_pool": MultiScaleRoIAlign(["0", "1"], 14, 2, canonical_scale=32),
            "num_keypoints": 5,
        },
    }
    classes: dict[str, Any] = {
        "fasterrcnn": faster_rcnn.FasterRCNN,
        "maskrcnn": mask_rcnn.MaskRCNN,
        "keypointrcnn": keypoint_rcnn.KeypointRCNN,
    }
    network = classes[kind](
        Pyramid(),
        4,
        rpn_anchor_generator=AnchorGenerator(((16, 24), (32, 48)), ((0.5, 1.0),) * 2),
        box_roi_pool=MultiScaleRoIAlign(["0", "1"], 7, 2, canonical_scale=32),
        rpn_pre_nms_top_n_test=100,
        rpn_post_nms_top_n_test=150,
        rpn_score_thresh=0.3,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        min_size=SIZE[0],
        max_size=max(SIZE),
        box_detections_per_img=20,
        **pools.get(kind, {}),
    ).eval()
    stages = [*network.rpn.named_parameters(), *network.roi_heads.named_parameters()]
    for name, parameter in stages:
        third = "mask" in name or "keypoint" in name
        std = 1.5 * parameter[0].numel() ** -0.5 if third and parameter.ndim > 1 else 0.08
        torch.nn.init.normal_(parameter, std=std if name.endswith("weight") else 0.3)
    return network


def detections_by_the_page(outputs: dict[str, torch.Tensor], notes: tuple[str, ...]) -> Any:
    """Return the detections of the page's functions, with the settings that a note gives."""
    settings = dict(re.findall(r"(\w+)=(\[[\d, ]+\]|[\d.e-]+)", notes[1]))
    return page_functions()["two_stage_detections"](
        *(outputs[name][0].numpy() for name in ("regions", "objectness", "boxes", "scores")),
        {name: ast.literal_eval(value) for name, value in settings.items()},
    )


@pytest.mark.parametrize("kind", ["maskrcnn", "keypointrcnn"])
def test_the_parts_of_three_stages_are_torchvision_s_masks_and_keypoints(
    kind: str, suppression: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both parts, with the page's functions between and after them, give what torchvision returns."""
    network = region_network(kind, monkeypatch)
    photo = torch.rand(1, 3, *SIZE)
    functions = page_functions()
    with torch.no_grad():
        (expected,) = network([photo[0]])
        stages = detector_parts.three_stages_of_detector(network, SIZE)
        outputs = stages.detector(photo)
        kept = detections_by_the_page(
            outputs, torchvision_detectors._notes_on_regions(network, stages.detector)
        )
        boxes = torch.from_numpy(functions["boxes_of_detections"](kept, stages.boxes))
        features = [outputs[spec.name] for spec in stages.inputs[:-1]]
        (maps,) = stages.instances(*features, boxes).values()

    assert len(kept) == len(expected["boxes"]) > 10
    assert np.allclose([box for _, _, box in kept], expected["boxes"], atol=1e-3)
    for place, (_, column, box) in enumerate(kept):
        values = maps[0, place].numpy()
        if kind == "maskrcnn":
            actual = functions["mask_of_box"](values[column], box, *SIZE)
            assert np.allclose(actual, expected["masks"][place, 0], atol=1e-4)
            assert np.ptp(actual) > 0.05
        else:
            points, scores = functions["keypoints_of_box"](values, box)
            assert np.allclose(points, expected["keypoints"][place, :, :2], atol=1e-3)
            assert np.allclose(scores, expected["keypoints_scores"][place], atol=1e-4)


@pytest.fixture(scope="module")
def ssdlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save an SSDLite with six classes, wrapped as in data-parallel training."""
    torch.manual_seed(0)
    known = KnownDetector("ssdlite320_mobilenet_v3_large", 6, full_tail=True)
    network = torchvision_detectors._construct_torchvision_detector(known).to_empty(device="cpu")
    state = {f"module.{key}": torch.full(value.shape, 0.01) for key, value in network.state_dict().items()}
    path = tmp_path_factory.mktemp("ssdlite") / "model.pth"
    torch.save(state, path)
    return path


def test_an_ssdlite_is_recognised_with_its_classes(ssdlite: Path) -> None:
    """An SSDLite with a full tail and six classes is built from its state_dict alone."""
    model = build_architecture(read_checkpoint(ssdlite))
    assert model.architecture == "torchvision/ssdlite320_mobilenet_v3_large"
    assert model.inputs == (TensorSpec("image", (1, 3, 320, 320)),)
    assert model.preprocessing is not None
    assert (model.preprocessing.mean, model.preprocessing.squash) == ((0.5, 0.5, 0.5), True)
    outputs = model.module(torch.rand(1, 3, 320, 320))
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {
        "boxes": (1, 3234, 4),
        "scores": (1, 3234, 5),
    }
    assert any("score_threshold=0.001, iou_threshold=0.55" in note for note in model.notes)


def checkpoint_of_detector(name: str, classes: int) -> Checkpoint:
    """Return a checkpoint with a detector's tensors, which nothing reads the values of."""
    network = skeleton.construct_skeleton(name, {"num_classes": classes})
    return Checkpoint(Path("detector.pth"), "0" * 64, "state_dict", network.state_dict())


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("keypointrcnn_resnet50_fpn", ("detector", "keypoints")),
        ("maskrcnn_resnet50_fpn", ("detector", "masks")),
        ("maskrcnn_resnet50_fpn_v2", ("detector", "masks")),
    ],
)
def test_three_stages_are_recognised_as_two_parts(name: str, parts: tuple[str, str]) -> None:
    """The refusal of the whole names the network and carries its parts; a wrong part's carries none."""
    checkpoint = checkpoint_of_detector(name, 5)
    with pytest.raises(SeveralPartsError, match=f"torchvision/{name} has the parts") as caught:
        build_architecture(checkpoint)
    assert caught.value.parts == parts
    with pytest.raises(SeveralPartsError, match="it has no decoder") as caught:
        build_architecture(checkpoint, part="decoder")
    assert caught.value.parts == ()


def test_one_network_has_no_parts() -> None:
    """`--part` for a Faster R-CNN is refused, and not ignored."""
    with pytest.raises(UsageError, match=r"fasterrcnn_resnet50_fpn is one network, without parts"):
        build_architecture(checkpoint_of_detector("fasterrcnn_resnet50_fpn", 5), part="masks")


def test_arguments_of_a_detector_that_it_does_not_take_are_refused() -> None:
    """A misspelt `--arch-arg` is an error that names it."""
    checkpoint = checkpoint_of_detector("fasterrcnn_mobilenet_v3_large_fpn", 5)
    with pytest.raises(UsageError, match="min_sise=320"):
        build_architecture(checkpoint, arch_args={"min_sise": "320"})


@pytest.fixture(scope="module")
def keypoints_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a Keypoint R-CNN of seven keypoints with small weights and a steady batch norm."""
    torch.manual_seed(0)
    known = KnownDetector("keypointrcnn_resnet50_fpn", 3, keypoints=7)
    state = torchvision_detectors._construct_torchvision_detector(known).state_dict()
    drawn = {
        key: torch.ones(value.shape)
        if key.endswith("running_var")
        else 0.02 * torch.randn(value.shape, dtype=torch.float32)
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }
    path = tmp_path_factory.mktemp("keypoints") / "model.pth"
    torch.save(drawn, path)
    return path


def test_a_third_stage_takes_features_and_boxes(keypoints_file: Path) -> None:
    """Its inputs follow from the photo's size and the number of boxes, and its samples from photos."""
    checkpoint = read_checkpoint(keypoints_file)
    settings = {"min_size": "64", "box_detections_per_img": "3", "rpn_pre_nms_top_n_test": "20"}
    model = build_architecture(checkpoint, part="keypoints", arch_args=settings)
    assert model.architecture == "torchvision/keypointrcnn_resnet50_fpn:keypoints"
    assert [(spec.name, spec.shape) for spec in model.inputs] == [
        ("features0", (1, 256, 16, 16)),
        ("features1", (1, 256, 8, 8)),
        ("features2", (1, 256, 4, 4)),
        ("features3", (1, 256, 2, 2)),
        ("boxes", (1, 3, 4)),
    ]
    assert model.preprocessing is None
    assert model.earlier is not None
    assert model.earlier.inputs == (TensorSpec("image", (1, 3, 64, 64)),)
    assert model.earlier.preprocessing is not None
    sample = model.earlier.run((np.random.default_rng(0).random((1, 3, 64, 64), np.float32),))
    assert [array.shape for array in sample] == [spec.shape for spec in model.inputs]
    assert (sample[-1][0, 0, 2:] > sample[-1][0, 0, :2]).all()
    outputs = model.module(*map(torch.from_numpy, sample))
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {
        "keypoint_heatmaps": (1, 3, 7, 56, 56)
    }
    boxes = (TensorSpec("boxes", (1, 9, 4)),)
    with pytest.raises(UsageError, match="--input-shape is the photo's"):
        build_architecture(checkpoint, part="keypoints", arch_args=settings, input_shapes=boxes)


def test_a_pyramid_takes_multiples_of_32_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """RetinaNet on a size that torchvision would pad is refused before anything runs."""
    monkeypatch.setattr(weight_loading, "load_weights", lambda *_, **__: ())
    with pytest.raises(UsageError, match="multiples of 32"):
        build_architecture(
            checkpoint_of_detector("retinanet_resnet50_fpn_v2", 7),
            input_shapes=(TensorSpec("", (1, 3, 100, 128)),),
        )


def test_torchvision_s_own_file_is_known_by_its_hash() -> None:
    """The hash in the published name tells torchvision's own weights, whose epsilon differs."""
    weights = find_published_torchvision_detector("retinanet_resnet50_fpn", "eeacb38b" + "0" * 56)
    assert str(weights).endswith("COCO_V1")
    assert find_published_torchvision_detector("retinanet_resnet50_fpn", "0" * 64) is None
