"""Samples of five tasks, made from free data in packages: photos, rendered words, texts and faces."""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporter.data import photos
from exporter.records import Array, Sample

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SIGN_SIZE = (224, 112)
WORDS_PER_SIGN = 4
WORD_SIZE = (256, 64)
TOKENS = 48
"""Texts are cut or filled to so many tokens."""


def photo_samples(folder: Path) -> list[Sample]:
    """Return each photo as EfficientNet-Lite reads it: 224 x 224, from -1 to 1."""
    return [(_planes(picture.resize((224, 224)), ((0.5,) * 3, (0.5,) * 3)),) for picture in _pictures(folder)]


def sign_samples(folder: Path) -> list[Sample]:
    """Return each photo with words on it, as a text detector reads it."""
    return [(_planes(sign, IMAGENET),) for sign in sign_pictures(folder)]


def sign_pictures(folder: Path) -> Iterator[Image]:
    """Yield each photo with words on it."""
    from PIL import ImageDraw

    for number, picture in enumerate(_pictures(folder)):
        chance = random.Random(number)
        sign = picture.resize(SIGN_SIZE)
        pen = ImageDraw.Draw(sign)
        for row in range(WORDS_PER_SIGN):
            place = (chance.randrange(0, 90), 4 + 27 * row + chance.randrange(0, 6))
            colour = tuple(chance.randrange(256) for _ in range(3))
            pen.text(
                place, chance.choice(_words()), fill=colour, font=_font(chance, chance.randrange(13, 22))
            )
        yield sign


def word_samples(folder: Path) -> list[Sample]:
    """Return a word on each photo's grey, as EasyOCR's recogniser reads it: 64 x 256, from -1 to 1."""
    from PIL import ImageDraw

    samples: list[Sample] = []
    for number, picture in enumerate(_pictures(folder)):
        chance = random.Random(number)
        ground = np.asarray(picture.convert("L").resize(WORD_SIZE), np.float32)
        light = chance.random() < 0.5
        faded = 0.35 * ground + (0 if light else 165)
        image = _as_picture(faded)
        text = " ".join(chance.choice(_words()) for _ in range(2))[:14]
        place = (chance.randrange(2, 16), chance.randrange(2, 18))
        pen = ImageDraw.Draw(image)
        pen.text(place, text, fill=235 if light else 20, font=_font(chance, chance.randrange(22, 34)))
        samples.append((np.asarray(image, np.float32)[None, None] / 127.5 - 1,))
    return samples


def text_samples(folder: Path) -> list[Sample]:
    """Return the start of each page of Python's reference as tokens and their mask."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    encoded = [tokenizer.encode(text) for text in text_pages()]
    return [(np.array([e.ids], np.int64), np.array([e.attention_mask], np.int64)) for e in encoded]


def face_samples() -> list[Sample]:
    """Return 100 faces and 100 other pictures of scikit-image, in turns, as O-Net reads them: 48 x 48."""
    samples: list[Sample] = []
    for picture in face_pictures():
        grey = np.asarray(picture.resize((48, 48)), np.float32) / 127.5 - 1
        samples.append((np.ascontiguousarray(np.broadcast_to(grey, (1, 3, 48, 48))),))
    return samples


def face_pictures() -> Iterator[Image]:
    """Yield 100 faces and 100 other pictures of scikit-image, in turns."""
    from skimage import data

    pictures = np.load(Path(data.__file__).parent / "lfw_subset.npy")
    turns = np.arange(len(pictures)).reshape(2, -1).T.flatten()
    for picture in pictures[turns]:
        yield _as_picture(picture * 255)


def _pictures(folder: Path) -> Iterator[Image]:
    from PIL import Image

    for path in photos.find_photos(folder):
        with Image.open(path) as picture:
            yield picture.convert("RGB")


def _as_picture(grey: Array) -> Image:
    from PIL import Image

    return Image.fromarray(grey.clip(0, 255).astype(np.uint8))


def _planes(picture: Image, normalised: tuple[tuple[float, ...], tuple[float, ...]]) -> Array:
    mean, deviation = (np.array(values, np.float32) for values in normalised)
    planes = (np.asarray(picture, np.float32) / 255 - mean) / deviation
    return np.ascontiguousarray(planes.transpose(2, 0, 1)[None])


def _font(chance: random.Random, size: int) -> FreeTypeFont:
    import matplotlib
    from PIL import ImageFont

    faces = sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("DejaVu*.ttf"))
    faces = [face for face in faces if "Display" not in face.name]
    return ImageFont.truetype(str(chance.choice(faces)), size)


def text_pages() -> list[str]:
    """Return the pages of Python's reference, each on one line."""
    from pydoc_data import topics

    return [" ".join(text.split("\n\n", 1)[1].split()) for _, text in sorted(topics.topics.items())]


@functools.cache
def _words() -> tuple[str, ...]:
    text = " ".join(text_pages()[:20])
    return tuple(sorted(set(re.findall(r"[A-Za-z]{3,10}", text))))
