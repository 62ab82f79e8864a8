"""The networks of the table: where each comes from, and the one command that exports it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.families import made, packages

PHOTOS = "PHOTOS"
"""Stands in a command for the folder of calibration photos."""
TRAINED = "trained"
RANDOM = "random"


@dataclass(frozen=True)
class Family:
    """A network, its checkpoint, and the options that it takes."""

    title: str
    weights: str
    """Whether the weights are trained, or random."""
    source: str
    """The package of the weights, or of the network."""
    checkpoint: Callable[[Path], Path]
    """Writes the checkpoint below a folder, unless it is there, and returns its path."""
    options: tuple[str, ...] = ()


def _trained(title: str, name: str, *options: str) -> Family:
    source = packages.PACKAGED[name].requirement
    return Family(
        title,
        TRAINED,
        source,
        lambda folder: packages.packaged_checkpoint(name, folder / packages.PLACE),
        options,
    )


def _pretrained(title: str, name: str, *options: str) -> Family:
    return Family(
        title, RANDOM, "transformers", lambda folder: made.pretrained_folder(name, folder / name), options
    )


def _ultralytics(title: str, name: str) -> Family:
    options = ("--input-shape", "1x3x320x320", "--calibration", PHOTOS)
    return Family(title, RANDOM, "ultralytics", lambda folder: made.ultralytics_file(name, folder), options)


def _torchvision(title: str, name: str, *options: str) -> Family:
    return Family(title, RANDOM, "torchvision", lambda folder: made.torchvision_file(name, folder), options)


FAMILIES: dict[str, Family] = {
    "mobilenet_v2": _trained("MobileNetV2, classifier", "mobilenet_v2", "--calibration", PHOTOS),
    "efficientnet_lite0": _trained(
        "EfficientNet-Lite0, classifier", "efficientnet_lite0", "--calibration", PHOTOS,
    ),
    "minilm": _trained("all-MiniLM-L6-v2, sentence embeddings", "minilm"),
    "silero_vad": _trained(
        "Silero VAD, TorchScript with control flow and state", "silero_vad",
        "--input-shape", "x=1x512", "--input-value", "sr=16000", "--state", "explicit",
    ),
    "resemblyzer": _trained(
        "Resemblyzer, LSTM speaker embedding", "resemblyzer",
        "--arch", "benchmarks.families.networks:VoiceEncoder", "--input-shape", "1x160x40",
        "--ignore-key", "similarity_*",
    ),
    "mtcnn": _trained(
        "MTCNN's O-Net, faces and landmarks", "mtcnn", "--calibration", PHOTOS,
    ),
    "craft": _trained(
        "CRAFT, text detector", "craft", "--input-shape", "1x3x160x320", "--calibration", PHOTOS,
    ),
    "crnn": _trained("CRNN with LSTM and CTC, text recognition", "crnn"),
    "compact_crnn": _trained(
        "Compact CRNN with GRU and CTC, text recognition", "compact_crnn",
        "--input-shape", "1x1x32x64",
    ),
    "yolov8n": _ultralytics("YOLOv8n, detector", "yolov8n"),
    "yolo11n": _ultralytics("YOLO11n, detector", "yolo11n"),
    "yolo26n": _ultralytics("YOLO26n, detector without NMS", "yolo26n"),
    "yolov8n-seg": _ultralytics("YOLOv8n-seg, masks", "yolov8n-seg"),
    "ssdlite": _torchvision("SSDLite320 MobileNetV3, detector", "ssdlite320_mobilenet_v3_large"),
    "fasterrcnn": _torchvision(
        "Faster R-CNN MobileNetV3, detector", "fasterrcnn_mobilenet_v3_large_320_fpn"
    ),
    "keypointrcnn": _torchvision("Keypoint R-CNN, keypoints", "keypointrcnn_resnet50_fpn"),
    "clip": _pretrained("CLIP, two towers", "CLIPModel"),
    "whisper": _pretrained("Whisper, speech encoder and decoder", "WhisperForConditionalGeneration"),
    "wav2vec2": _pretrained("wav2vec 2.0 with CTC, speech", "Wav2Vec2ForCTC"),
    "segformer": _pretrained(
        "SegFormer, segmentation", "SegformerForSemanticSegmentation",
        "--input-shape", "pixel_values=1x3x128x128",
    ),
    "detr": _pretrained(
        "DETR, transformer detector", "DetrForObjectDetection", "--input-shape", "pixel_values=1x3x128x128"
    ),
    "token": _pretrained("BERT, token classifier", "BertForTokenClassification"),
    "gpt2": _pretrained("GPT-2, language model without a cache", "GPT2LMHeadModel"),
    "llama": _pretrained(
        "Llama, language model with a cache", "LlamaForCausalLM", "--part", "prefill,decode"
    ),
    "swin2sr": _pretrained("Swin2SR, super-resolution", "Swin2SRForImageSuperResolution"),
}  # fmt: skip
