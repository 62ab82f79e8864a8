"""The networks of the table: where each comes from, and the one command that exports it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.families import made, packages, training

TRAINED = "trained"
BRIEFLY = "trained for seconds"
RANDOM = "random"


@dataclass(frozen=True)
class Family:
    """A network, its checkpoint, and the options that it takes."""

    title: str
    weights: str
    """Whether the weights are trained, trained for seconds by this program, or random."""
    source: str
    """The package of the weights, or of the network."""
    checkpoint: Callable[[Path], Path]
    """Writes the checkpoint below a folder, unless it is there, and returns its path."""
    options: tuple[str, ...] = ()
    calibration: str = ""
    """The inputs' name in `benchmarks.families.inputs`; empty for synthetic ones."""
    samples: int = 16
    """The number of calibration inputs, and of verification inputs."""


def _trained(title: str, name: str, *options: str, calibration: str = "", samples: int = 16) -> Family:
    source = packages.PACKAGED[name].requirement
    return Family(
        title,
        TRAINED,
        source,
        lambda folder: packages.packaged_checkpoint(name, folder / packages.PLACE),
        options,
        calibration,
        samples,
    )


def _pretrained(title: str, name: str, *options: str, calibration: str = "", samples: int = 16) -> Family:
    return Family(
        title,
        BRIEFLY if name in training.TASKS else RANDOM,
        "transformers",
        lambda folder: made.pretrained_folder(name, folder / name),
        options,
        calibration,
        samples,
    )


def _ultralytics(title: str, name: str) -> Family:
    return Family(
        title,
        RANDOM,
        "ultralytics",
        lambda folder: made.ultralytics_file(name, folder),
        ("--input-shape", "1x3x320x320"),
        "photos",
    )


def _torchvision(title: str, name: str, *options: str) -> Family:
    return Family(
        title, RANDOM, "torchvision", lambda folder: made.torchvision_file(name, folder), options, "photos"
    )


FAMILIES: dict[str, Family] = {
    "mobilenet_v2": _trained(
        "MobileNetV2, classifier", "mobilenet_v2", calibration="photos", samples=60
    ),
    "efficientnet_lite0": _trained(
        "EfficientNet-Lite0, classifier", "efficientnet_lite0", calibration="photos", samples=60
    ),
    "minilm": _trained("all-MiniLM-L6-v2, sentence embeddings", "minilm", calibration="texts.txt"),
    "silero_vad": _trained(
        "Silero VAD, TorchScript with control flow and state", "silero_vad",
        "--input-shape", "x=1x512", "--input-value", "sr=16000", "--state", "explicit",
    ),
    "resemblyzer": _trained(
        "Resemblyzer, speaker embedding with LSTMs", "resemblyzer", calibration="mels.npz"
    ),
    "mtcnn": _trained(
        "MTCNN's O-Net, faces and landmarks", "mtcnn", calibration="faces", samples=60
    ),
    "facenet": Family(
        "InceptionResnetV1, face embedding", RANDOM, "facenet-pytorch", made.facenet_file,
        calibration="faces",
    ),
    "craft": _trained(
        "CRAFT, text detector", "craft", "--input-shape", "1x3x112x224", calibration="signs"
    ),
    "crnn": _trained(
        "EasyOCR's CRNN with LSTMs and CTC, text recognition", "crnn", calibration="words.npz", samples=32
    ),
    "compact_crnn": _trained(
        "Compact CRNN with GRU and CTC, text recognition", "compact_crnn",
        "--input-shape", "1x1x32x128", calibration="lines.npz",
    ),
    "yolo11n-seg": _trained(
        "YOLO11n-seg, COCO's objects and their masks (AGPL-3.0)", "yolo11n-seg",
        "--input-shape", "1x3x320x320", calibration="photos",
    ),
    "yolo11n": _trained(
        "YOLO11n, detector of emotions (AGPL-3.0)", "yolo11n",
        "--input-shape", "1x3x320x320", calibration="photos",
    ),
    "yolov8n-pose": _ultralytics("YOLOv8n-pose, keypoints", "yolov8n-pose"),
    "ssdlite": _torchvision("SSDLite320 MobileNetV3, detector", "ssdlite320_mobilenet_v3_large"),
    "fasterrcnn": _torchvision(
        "Faster R-CNN MobileNetV3, detector", "fasterrcnn_mobilenet_v3_large_320_fpn",
        "--input-shape", "1x3x320x320",
    ),
    "keypointrcnn": _torchvision(
        "Keypoint R-CNN, keypoints", "keypointrcnn_resnet50_fpn",
        "--input-shape", "1x3x96x96", "--arch-arg", "box_detections_per_img=20",
    ),
    "lraspp": _torchvision(
        "LR-ASPP MobileNetV3, segmentation", "lraspp_mobilenet_v3_large", "--input-shape", "1x3x224x224"
    ),
    "segformer": _pretrained(
        "SegFormer, segmentation", "SegformerForSemanticSegmentation", calibration="photos"
    ),
    "detr": _pretrained(
        "DETR, transformer detector", "DetrForObjectDetection", "--input-shape", "pixel_values=1x3x128x128"
    ),
    "swin2sr": _pretrained(
        "Swin2SR, super-resolution", "Swin2SRForImageSuperResolution",
        "--preprocess", "unit", calibration="photos",
    ),
    "dpt": _pretrained("DPT, depth", "DPTForDepthEstimation", calibration="photos"),
    "clip": _pretrained("CLIP, two towers", "CLIPModel", calibration="pairs", samples=60),
    "whisper": _pretrained("Whisper, speech encoder and decoder", "WhisperForConditionalGeneration"),
    "wav2vec2": _pretrained("wav2vec 2.0 with CTC, speech", "Wav2Vec2ForCTC"),
    "token": _pretrained(
        "BERT, token classifier", "BertForTokenClassification", calibration="texts.txt"
    ),
    "gpt2": _pretrained("GPT-2, language model without a cache", "GPT2LMHeadModel"),
    "llama": _pretrained(
        "Llama, language model with a cache", "LlamaForCausalLM", "--part", "prefill,decode",
        calibration="passages",
    ),
}  # fmt: skip
