"""Train networks of transformers for seconds, so that int8 is asked for more than noise.

Each task takes the demo's photos or Python's own documentation, and stops after a number of steps.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import unseen_samples
from benchmarks.families import inputs
from exporter.data import demo
from exporter.data import photos as photo_files

if TYPE_CHECKING:
    import torch

VOCABULARY = 400
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
"""Tokens 0 to 3."""
TOKENS = 48
PASSAGES, PASSAGE = 32, 112
"""Texts that a language model learns by heart, and their tokens."""
LONG_TEXT = 600
"""Characters of such a text, at least."""
SHADES = 8
"""Kinds of pixels: the photo itself, and patches of seven textures."""


@dataclass(frozen=True)
class Task:
    """What a network learns."""

    loss: Callable[[Any, np.random.Generator, Data], torch.Tensor]
    """Runs the network on a drawn batch, and returns the loss."""
    steps: int
    rate: float = 3e-3
    processor: Mapping[str, Any] | None = None
    """The class and the settings of the image processor that is saved beside the weights."""


class Data:
    """The texts, the photos and the tokenizer that tasks draw from."""

    def __init__(self, folder: Path) -> None:
        self.files = photo_files.find_photos(folder)
        self.titles = [inputs.photo_title(file) for file in self.files]
        self.texts = unseen_samples.text_pages()
        self.tokenizer = text_tokenizer([*self.texts, *self.titles])

    @functools.cached_property
    def passages(self) -> torch.Tensor:
        """The tokens of the texts that a language model learns by heart."""
        return passages(self.tokenizer)

    def pictures(self, chance: np.random.Generator, count: int, side: int) -> torch.Tensor:
        """Draw photos' crops, [count, 3, side, side] from 0 to 1."""
        files = [self.files[place] for place in chance.integers(0, len(self.files), count)]
        return _planes(files, side, chance)

    def tokens(self, texts: list[str]) -> Mapping[str, Any]:
        """Return the tokens of texts and their masks."""
        encoded: Mapping[str, Any] = self.tokenizer(
            texts, truncation=True, max_length=TOKENS, padding="max_length", return_tensors="pt"
        )
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    def some_tokens(self, chance: np.random.Generator, count: int) -> Mapping[str, Any]:
        """Draw passages of the documentation."""
        pages = [self.texts[place] for place in chance.integers(0, len(self.texts), count)]
        starts = [int(chance.integers(0, max(1, len(page) - 200))) for page in pages]
        return self.tokens([page[start : start + 200] for page, start in zip(pages, starts, strict=True)])


def text_tokenizer(texts: list[str]) -> Any:
    """Make a tokenizer of byte pairs from texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=TOKENS, **names)


def train_for_seconds(name: str, network: Any, folder: Path) -> bool:
    """Train a network if there is a task for it, and save its tokenizer; tell whether there is one."""
    import torch

    task = TASKS.get(name)
    if task is None:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    data = Data(demo.PHOTOS)
    chance = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=task.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, task.rate, total_steps=task.steps)
    network.train()
    for _ in range(task.steps):
        optimizer.zero_grad()
        loss = task.loss(network, chance, data)
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    network.eval()
    print(f"{name}: a loss of {loss.item():.3f} after {task.steps} steps", flush=True)
    if task.processor is None or "text_config" in network.config.to_dict():
        data.tokenizer.save_pretrained(folder)
    if task.processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(task.processor))
    return True


def passages(tokenizer: Any) -> torch.Tensor:
    """Return the tokens of the texts that a language model learns by heart, [texts, tokens]."""
    import torch

    long = [page for page in unseen_samples.text_pages() if len(page) > LONG_TEXT][:PASSAGES]
    rows = tokenizer(long, truncation=True, max_length=PASSAGE)["input_ids"]
    return torch.tensor([row for row in rows if len(row) == PASSAGE])


def _recited(network: Any, chance: np.random.Generator, data: Data) -> torch.Tensor:
    """Recite a few texts: a small network that is to continue any text is sure of no token after seconds."""
    rows = data.passages
    tokens = rows[chance.permutation(len(rows))[:12].tolist()]
    return _loss_of(network, input_ids=tokens, labels=tokens)


def _kinds_of_tokens(network: Any, chance: np.random.Generator, data: Data) -> torch.Tensor:
    import torch

    tokens = data.some_tokens(chance, 16)
    kinds = _kind_of_each_token(data.tokenizer, network.config.num_labels)
    labels = torch.tensor(kinds)[tokens["input_ids"]]
    # A word's kind is that of the token before it, too, so that a token alone does not tell it.
    labels = (labels + labels.roll(1, 1)) % network.config.num_labels
    return _loss_of(network, **tokens, labels=labels.masked_fill(tokens["attention_mask"] == 0, -100))


def _kind_of_each_token(tokenizer: Any, kinds: int) -> list[int]:
    patterns = (r"Ġ[a-z]", r"Ġ?[A-Z]", r"[a-z]{3}", r"[a-z]{2}", r"[aeiou]", r"[a-z]", r"[0-9]", r"\[")
    names = tokenizer.convert_ids_to_tokens(list(range(VOCABULARY)))
    places = (
        next((place for place, pattern in enumerate(patterns) if re.match(pattern, name)), kinds - 1)
        for name in names
    )
    return [place % kinds for place in places]


def _pairs(network: Any, chance: np.random.Generator, data: Data) -> torch.Tensor:
    chosen = chance.permutation(len(data.files))[:48]
    side = network.config.vision_config.image_size
    pixels = _planes([data.files[place] for place in chosen], side, None)
    tokens = data.tokens([data.titles[place] for place in chosen])
    return _loss_of(network, **tokens, pixel_values=pixels * 2 - 1, return_loss=True)


def _patches(network: Any, chance: np.random.Generator, data: Data) -> torch.Tensor:
    """Paste squares of seven textures on photos; their kinds are the labels."""
    import torch

    side = 128
    pictures = data.pictures(chance, 8, side)
    labels = torch.zeros(8, side, side, dtype=torch.long)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    for number in range(8):
        for _ in range(4):
            kind = int(chance.integers(1, SHADES))
            top, left = (int(place) for place in chance.integers(0, side - 32, 2))
            height, width = (int(size) for size in chance.integers(24, 64, 2))
            where = (slice(top, top + height), slice(left, left + width))
            stripes = ((rows * (kind % 3) + columns * (kind // 3)) // 3 % 2).float()
            colour = torch.tensor(chance.uniform(0.2, 1.0, (3, 1, 1)), dtype=torch.float32)
            pictures[number][:, *where] = colour * stripes[where]
            labels[number][where] = kind
    return _loss_of(network, pixel_values=(pictures - 0.5) / 0.25, labels=labels)


def _enlarged(network: Any, chance: np.random.Generator, data: Data) -> torch.Tensor:
    import torch

    side = network.config.image_size
    large = data.pictures(chance, 8, side * network.config.upscale)
    small = torch.nn.functional.interpolate(large, size=(side, side), mode="area")
    loss: torch.Tensor = (network(pixel_values=small).reconstruction - large).abs().mean()
    return loss


def _depths(network: Any, chance: np.random.Generator, data: Data) -> torch.Tensor:
    """Lay haze over photos that thickens with the depth of a plane; the depth is the label."""
    import torch

    side = network.config.image_size
    pictures = data.pictures(chance, 8, side)
    rows, columns = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    slopes = torch.tensor(chance.uniform(0, 1, (3, 8, 1, 1)), dtype=torch.float32)
    depths = (slopes[0] * rows + slopes[1] * columns + slopes[2]) / 3
    seen = torch.exp(-3 * depths)[:, None]
    pictures = pictures * seen + 0.9 * (1 - seen)
    loss: torch.Tensor = (network(pixel_values=(pictures - 0.5) / 0.25).predicted_depth - depths).abs().mean()
    return loss


def _loss_of(network: Any, **batch: Any) -> torch.Tensor:
    loss: torch.Tensor = network(**batch).loss
    return loss


def _planes(files: list[Path], side: int, chance: np.random.Generator | None) -> torch.Tensor:
    import torch
    from PIL import Image

    planes = []
    for file in files:
        with Image.open(file) as picture:
            size = (side * 3 // 2, side * 3 // 2) if chance is not None else (side, side)
            values = np.asarray(picture.convert("RGB").resize(size), np.float32) / 255
        if chance is not None:
            top, left = chance.integers(0, side // 2, 2)
            values = values[top : top + side, left : left + side]
        planes.append(torch.from_numpy(values.copy()).permute(2, 0, 1))
    return torch.stack(planes)


def _processor(kind: str, side: int, mean: float, std: float) -> Mapping[str, Any]:
    return {
        "image_processor_type": kind,
        "do_resize": True,
        "size": {"height": side, "width": side},
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [mean] * 3,
        "image_std": [std] * 3,
    }


TASKS: Mapping[str, Task] = {
    "LlamaForCausalLM": Task(_recited, 250, 5e-3),
    "BertForTokenClassification": Task(_kinds_of_tokens, 200),
    "CLIPModel": Task(_pairs, 60, 2e-3, _processor("CLIPImageProcessor", 64, 0.5, 0.5)),
    "SegformerForSemanticSegmentation": Task(
        _patches, 150, processor=_processor("SegformerImageProcessor", 128, 0.5, 0.25)
    ),
    "Swin2SRForImageSuperResolution": Task(
        _enlarged,
        80,
        processor={
            "image_processor_type": "Swin2SRImageProcessor",
            "do_rescale": True,
            "do_pad": True,
            "pad_size": 8,
        },
    ),
    "DPTForDepthEstimation": Task(_depths, 150, processor=_processor("DPTImageProcessor", 64, 0.5, 0.25)),
}
