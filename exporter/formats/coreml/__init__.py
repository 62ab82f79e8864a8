"""Core ML ML Programs (`.mlpackage` folders): half precision, and weights in 8 or 4 bits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.capture.lowering_errors import lowering_error, shorten_lowering_error
from exporter.errors import LoweringError
from exporter.formats.coreml.coreml_classifier import add_coreml_classifier, read_coreml_classifier
from exporter.formats.coreml.coreml_compress import compress_coreml_program
from exporter.formats.coreml.coreml_contents import coreml_contents_of_package as structure
from exporter.formats.coreml.coreml_contents import tensors_of_coreml_contents
from exporter.formats.coreml.coreml_convert import convert_to_coreml
from exporter.formats.coreml.coreml_image import (
    fold_coreml_image_input,
    pixels_of_coreml_image,
    read_coreml_image_input,
)
from exporter.formats.coreml.coreml_package import Package, read_coreml_package, write_coreml_package
from exporter.formats.coreml.coremltools_memory import coremltools_in_little_memory
from exporter.formats.coreml.package_description import check_package_description
from exporter.records import Array, Captured, Emission, Precision, Runner, Sample, Variant

if TYPE_CHECKING:
    from typing import Any

__all__ = ["KEEPS_STATE", "PRELOAD", "VARIANTS", "emit", "load", "structure"]


def _coreml_variant(precision: Precision, cost_s: float) -> Variant:
    return Variant(f"coreml-{precision}", "coreml", "coreml", precision, ".mlpackage", "coreml", cost_s)


VARIANTS: tuple[Variant, ...] = (
    _coreml_variant("fp16", 5.0),
    _coreml_variant("w8", 1.0),
    _coreml_variant("w4", 2.5),
)
KEEPS_STATE = False
PRELOAD: tuple[str, ...] = ("coremltools",)


def emit(captured: Captured, variant: Variant, directory: Path) -> Emission:
    """Convert the program, compress its weights, and write a package whose bytes depend on nothing else.

    The variants share one conversion of the same `captured`.

    Args:
        captured: Its `program` is converted.
        variant: One of `VARIANTS`.
        directory: Where the folder `<variant.name>.mlpackage` is written; it must not exist.

    Raises:
        LoweringError: There is no program, or Core ML cannot express it.
    """
    path = directory / f"{variant.name}{variant.suffix}"
    try:
        with coremltools_in_little_memory():
            package, notes = convert_to_coreml(captured)
            if variant.precision in ("w8", "w4"):
                package, note = compress_coreml_program(package, variant.precision)
                notes = (*notes, note)
        write_coreml_package(_package_for_apps(package, captured), path)
        check_package_description(read_coreml_package(path).spec, captured)
    except LoweringError:
        raise
    except Exception as error:
        raise lowering_error(error, captured.program) from error
    return Emission(path, notes)


def _package_for_apps(package: Package, captured: Captured) -> Package:
    """Return the package as apps expect it: a picture as its input where asked for, and a classifier."""
    spec = type(package.spec).FromString(package.spec.SerializeToString())
    if captured.image:
        fold_coreml_image_input(spec, captured.image)
    add_coreml_classifier(spec, captured)
    return Package(spec, package.weights)


def load(path: Path, variant: Variant, threads: int) -> tuple[Runner, str]:
    """Load a package in Core ML itself on a Mac, and in the reference interpreter elsewhere.

    Args:
        path: The written folder.
        variant: One of `VARIANTS`.
        threads: Unused: Core ML chooses cores, GPU and Neural Engine itself.

    Raises:
        CannotRunHere: This is not macOS, and the interpreter does not know an operator of the package.
        LoweringError: Core ML refuses the package, or it is damaged.
    """
    if sys.platform == "darwin":
        return _load_coreml_on_mac(path, variant)
    from exporter.formats.coreml.interpreter import load_interpreter

    return load_interpreter(path)


def _load_coreml_on_mac(path: Path, variant: Variant) -> tuple[Runner, str]:
    import platform

    import coremltools
    import numpy as np

    try:
        model: Any = coremltools.models.MLModel(str(path))
    except Exception as error:
        raise LoweringError(f"Core ML refuses {path.name}: {shorten_lowering_error(error)}") from error
    spec = model.get_spec()
    image, classifier = read_coreml_image_input(spec), read_coreml_classifier(spec)
    inputs = [feature.name for feature in spec.description.input]
    outputs = [feature.name for feature in tensors_of_coreml_contents(spec)]

    def prepare(array: Array) -> Any:
        if image:
            return _picture_for_mac(pixels_of_coreml_image(array, image))
        # Core ML has no 64-bit integers.
        return array.astype(np.int32) if array.dtype == np.int64 else array

    def run(sample: Sample) -> tuple[Array, ...]:
        predictions = model.predict(dict(zip(inputs, map(prepare, sample), strict=True)))
        if classifier:
            classifier.check(predictions)
        return tuple(np.asarray(predictions[name]) for name in outputs)

    return run, f"coreml (macOS {platform.mac_ver()[0]})"


def _picture_for_mac(pixels: Array) -> Any:
    """Return the picture [1, C, H, W] as coremltools gives it to Core ML: Pillow's."""
    from PIL import Image

    channels = pixels[0]
    return Image.fromarray(channels[0] if len(channels) == 1 else channels.transpose(1, 2, 0))
