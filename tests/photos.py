"""Real photographs, large enough to be cut into pieces, inside the wheels of scikit-image and others."""

from __future__ import annotations

from PIL import Image

from exporter.config.packaged import PackagedFile, find_packaged

_COMMAND = "pip install -e .[dev]"
PHOTOS: dict[str, PackagedFile] = {
    "chelsea": PackagedFile("skimage", "data/chelsea.png", _COMMAND),
    "astronaut": PackagedFile("skimage", "data/astronaut.png", _COMMAND),
    "flower": PackagedFile("sklearn", "datasets/images/flower.jpg", _COMMAND),
    "retina": PackagedFile("skimage", "data/retina.jpg", _COMMAND),
    "china": PackagedFile("sklearn", "datasets/images/china.jpg", _COMMAND),
    "coffee": PackagedFile("skimage", "data/coffee.png", _COMMAND),
    "grace-hopper": PackagedFile("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", _COMMAND),
}
"""Photos that show different things."""


def open_photo(name: str) -> Image.Image:
    """Open one of `PHOTOS` in colour."""
    return Image.open(find_packaged(PHOTOS[name])).convert("RGB")
