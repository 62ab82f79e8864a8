"""The five trained networks of `benchmarks.unseen_tasks`: their files, samples, and tasks' measures.

Each network's sample belongs to one scene: a photo, a page of text or a face. A measure compares a file's
answers with the float network's, scene by scene, and counts what is the same.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import unseen_samples
from benchmarks.alternatives import Kind
from benchmarks.families import packages
from exporter.capture import torchvision_ops
from exporter.records import Array, Sample

if TYPE_CHECKING:
    import torch

Outputs = tuple[Array, ...]
"""The outputs of a network, each with a row per sample."""
Answers = tuple[float, float]
"""What is the same as the float network's in one sample, and of how much."""

TEXT_SCORE = 0.4
"""A pixel belongs to a word if its score of a character or of a link is above this, as in EasyOCR."""
WORD_OVERLAP = 0.5
FACE_SCORE = 0.7
"""The probability from which MTCNN's O-Net keeps a face; facenet-pytorch's threshold."""


@dataclass(frozen=True)
class Network:
    """A trained network from a package, its samples, and the measure of its task."""

    name: str
    task: str
    """The measure of the task, as a heading."""
    kind: Kind
    make: Callable[[Path], torch.nn.Module]
    """Makes the float network from its checkpoint."""
    samples: Callable[[Path, Path], list[Sample]]
    """Makes a sample of each scene, from the folder of photos and the unpacked packages."""
    answers: Callable[[Outputs, Outputs], list[Answers]]
    """Compares the float network's outputs with a file's, sample by sample."""

    def load(self, folder: Path) -> torch.nn.Module:
        """Load the float network, unpacking its packages below the folder."""
        torchvision_ops.prepare_torchvision_ops()
        checkpoint = packages.packaged_checkpoint(self.name, folder)
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
        return self.make(checkpoint).eval().requires_grad_(False)


def _make_efficientnet(checkpoint: Path) -> torch.nn.Module:
    import timm
    import torch

    network: torch.nn.Module = timm.create_model("efficientnet_lite0")
    weights = torch.load(checkpoint, weights_only=True)
    own = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    theirs = {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    # Both list the same layers in the same order, under different names.
    pairs = zip(own.items(), theirs.values(), strict=True)
    network.load_state_dict({name: new.reshape(old.shape) for (name, old), new in pairs}, strict=False)
    return network


def _make_craft(checkpoint: Path) -> torch.nn.Module:
    import torch
    from easyocr.craft import CRAFT

    class Scores(torch.nn.Module):
        """CRAFT without its second output, which are features."""

        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: torch.Tensor) -> Any:
            return self.network(image)[0]

    network = CRAFT(pretrained=False)
    network.load_state_dict(_without_prefix(torch.load(checkpoint, weights_only=True, map_location="cpu")))
    return Scores(network)


def _make_crnn(checkpoint: Path) -> torch.nn.Module:
    import torch

    from benchmarks.families import networks

    network = networks.make_crnn()
    network.load_state_dict(torch.load(checkpoint, weights_only=True, map_location="cpu"))
    return network


def _make_onet(checkpoint: Path) -> torch.nn.Module:
    import torch
    from facenet_pytorch.models.mtcnn import ONet

    network: torch.nn.Module = ONet(pretrained=False)
    network.load_state_dict(torch.load(checkpoint, weights_only=True))
    return network


def _make_minilm(checkpoint: Path) -> torch.nn.Module:
    import torch
    from transformers import AutoModel

    class Embedding(torch.nn.Module):
        """The mean of the tokens' vectors, scaled to length 1."""

        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            hidden = self.network(tokens, attention_mask=mask)[0]
            there = mask[:, :, None].to(hidden.dtype)
            return torch.nn.functional.normalize((hidden * there).sum(1) / there.sum(1))

    return Embedding(AutoModel.from_pretrained(checkpoint, attn_implementation="eager", dtype=torch.float32))


def _without_prefix(weights: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("module."): value for name, value in weights.items()}


def same_top_class(expected: Outputs, actual: Outputs) -> list[Answers]:
    """Count the samples with the float network's class."""
    same = expected[0].argmax(1) == actual[0].argmax(1)
    return [(float(equal), 1.0) for equal in same]


def same_words(expected: Outputs, actual: Outputs) -> list[Answers]:
    """Count the words that both find, overlapping by half, among the words of both: an F-measure."""
    answers = []
    for theirs, ours in zip(expected[0], actual[0], strict=True):
        a, b = (_word_regions(scores) for scores in (theirs, ours))
        matched = sum(any(_region_overlap(region, other) >= WORD_OVERLAP for other in b) for region in a)
        answers.append((2.0 * matched, float(len(a) + len(b))))
    return answers


def _word_regions(scores: Array) -> list[Array]:
    from scipy import ndimage

    labels, count = ndimage.label(scores.max(-1) > TEXT_SCORE)
    return [labels == number for number in range(1, count + 1)]


def _region_overlap(region: Array, other: Array) -> float:
    return float((region & other).sum() / (region | other).sum())


def same_nearest(expected: Outputs, actual: Outputs) -> list[Answers]:
    """Count the texts whose nearest other text is the float network's."""
    nearest = [_nearest_row(output[0]) for output in (expected, actual)]
    return [(float(a == b), 1.0) for a, b in zip(*nearest, strict=True)]


def _nearest_row(embeddings: Array) -> Array:
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    nearest: Array = cosines.argmax(1)
    return nearest


def same_characters(expected: Outputs, actual: Outputs) -> list[Answers]:
    """Count the characters that the float network reads, less the edits to the file's reading."""
    answers = []
    for theirs, ours in zip(expected[0], actual[0], strict=True):
        text, other = _characters_read(theirs), _characters_read(ours)
        answers.append((max(0.0, len(text) - _edits(text, other)), float(len(text))))
    return answers


def _characters_read(steps: Array) -> list[int]:
    best = steps.argmax(-1).tolist()
    return [c for c, before in zip(best, [0, *best], strict=False) if c and c != before]


def _edits(text: Sequence[int], other: Sequence[int]) -> int:
    row = list(range(len(other) + 1))
    for place, character in enumerate(text, 1):
        before, row[0] = row[0], place
        for column, there in enumerate(other, 1):
            before, row[column] = (
                row[column],
                min(row[column] + 1, row[column - 1] + 1, before + (character != there)),
            )
    return row[-1]


def same_faces(expected: Outputs, actual: Outputs) -> list[Answers]:
    """Count the pictures of which both say that they are a face, or both that they are none."""
    theirs, ours = (outputs[-1][:, 1] > FACE_SCORE for outputs in (expected, actual))
    return [(float(equal), 1.0) for equal in theirs == ours]


NETWORKS: dict[str, Network] = {
    "efficientnet_lite0": Network(
        "efficientnet_lite0", "same top class", "convolutions", _make_efficientnet,
        lambda photos, _: unseen_samples.photo_samples(photos), same_top_class,
    ),
    "craft": Network(
        "craft", "same words found, F", "convolutions", _make_craft,
        lambda photos, _: unseen_samples.sign_samples(photos), same_words,
    ),
    "minilm": Network(
        "minilm", "same nearest text", "attention", _make_minilm,
        lambda _, folder: unseen_samples.text_samples(folder / packages.PACKAGED["minilm"].weights),
        same_nearest,
    ),
    "crnn": Network(
        "crnn", "same characters", "convolutions", _make_crnn,
        lambda photos, _: unseen_samples.word_samples(photos), same_characters,
    ),
    "mtcnn": Network(
        "mtcnn", "same face or none", "convolutions", _make_onet,
        lambda _, __: unseen_samples.face_samples(), same_faces,
    ),
}  # fmt: skip
HELD_OUT = tuple(sorted(random.Random(19).sample(sorted(NETWORKS), 2)))
"""The networks that the recipe was never tuned on, drawn before any was measured."""
