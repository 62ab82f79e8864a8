"""Refuses what a format cannot express, before a file is written that would be another network's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from exporter.errors import LoweringError
from exporter.records import FormatName, Variant

if TYPE_CHECKING:
    from exporter.records import Captured

GIVES_COMPLEX: Mapping[FormatName, bool] = {
    "torchscript": True,
    "onnx": False,  # torch.onnx writes a real tensor with one axis more: another output than the model's
    "coreml": False,
    "executorch": False,  # its Core ATen operators take no complex tensors
    "coreai": False,
    "onnx-qnn": False,
}
"""Whether a format's files can give complex outputs."""
TAKES_PIXELS: frozenset[FormatName] = frozenset({"executorch", "onnx", "torchscript"})
"""Formats whose files can take a photo's bytes as uint8."""
HAS_SIZES: frozenset[FormatName] = frozenset({"coreml", "executorch", "onnx", "torchscript"})
"""Formats whose files can have inputs of several sizes."""


def refuse_what_format_cannot_express(captured: Captured, variant: Variant) -> None:
    """Refuse a variant whose format lacks what the network needs.

    Raises:
        LoweringError: What it lacks, and the way out.
    """
    for refuse in (
        refuse_batch_statistics_by_format,
        refuse_state_by_format,
        refuse_complex_by_format,
        refuse_pixels_by_format,
        refuse_sizes_by_format,
    ):
        refuse(captured, variant)


def refuse_state_by_format(captured: Captured, variant: Variant) -> None:
    """Refuse to write a file that would forget what the network keeps from call to call.

    Raises:
        LoweringError: The buffers' names, and the way out.
    """
    from exporter.capture.state import state_not_in_buffers
    from exporter.formats import FORMATS

    if not captured.state:
        return
    names = ", ".join(captured.state)
    way_out = "--state explicit makes inputs and outputs of what forward keeps"
    if plain := state_not_in_buffers(captured.module, captured.state):
        raise LoweringError(
            f"forward changes {', '.join(plain)}, which no file keeps: register a buffer; or {way_out}"
        )
    if not FORMATS[variant.format].KEEPS_STATE:
        raise LoweringError(
            f"{variant.format} files keep nothing between calls, but forward changes {names}: {way_out}"
        )
    if variant.precision != "fp32":
        raise LoweringError(f"state is kept in fp32 files only, and forward changes {names}: {way_out}")


def refuse_batch_statistics_by_format(captured: Captured, variant: Variant) -> None:
    """Refuse a network whose batch norms are in training mode, which TorchScript alone can express.

    Raises:
        LoweringError: The line, and the way out.
    """
    from exporter.capture.batch_statistics import batch_statistics_of_program

    norm = batch_statistics_of_program(captured.program)
    if norm is not None and variant.format != "torchscript":
        raise LoweringError(
            "a batch norm computes with the statistics of its own batch (training=True), which "
            f"{variant.format} files cannot: give it training=self.training, or compute the mean and the "
            "variance in forward",
            norm.source,
        )


def refuse_complex_by_format(captured: Captured, variant: Variant) -> None:
    """Refuse a format that has no complex outputs for a network that gives them.

    Raises:
        LoweringError: The outputs' names, and the way out.
    """
    names = ", ".join(spec.name for spec in captured.outputs if spec.dtype.startswith("complex"))
    if names and not GIVES_COMPLEX[variant.format]:
        raise LoweringError(
            f"{variant.format} files have no complex outputs, but {names} is complex: return "
            "torch.view_as_real(...) of it, whose last axis is the real and the imaginary part"
        )


def refuse_pixels_by_format(captured: Captured, variant: Variant) -> None:
    """Refuse a format that takes no bytes, for a network with its preprocessing embedded.

    Raises:
        LoweringError: The way out.
    """
    from exporter.capture.embedded_preprocessing import place_of_embedded_preprocessing

    if variant.format in TAKES_PIXELS or place_of_embedded_preprocessing(captured.module) is None:
        return
    raise LoweringError(
        f"{variant.format} files take no uint8 tensors"
        + (": Core ML packages take photos with --image-input" if variant.format == "coreml" else "")
    )


def may_format_have_ranges(variant: Variant, picture: bool) -> bool:
    """Tell whether one file of the variant can have ranges of sizes.

    Args:
        variant: What the file is.
        picture: Whether Core ML packages take a picture.
    """
    if variant.backend == "vulkan" or (variant.format == "coreml" and picture):
        return False
    return variant.format in HAS_SIZES


def refuse_sizes_by_format(captured: Captured, variant: Variant) -> None:
    """Refuse a format whose files have one size, for a network that is exported with ranges of sizes.

    Raises:
        LoweringError: Why, and the way out.
    """
    if not captured.ranges or may_format_have_ranges(variant, captured.image is not None):
        return
    reasons = {
        "coreml": "a Core ML package that takes a picture is made for one size here",
        "executorch": "Vulkan's shaders are prepared for one size",
    }
    why = reasons.get(variant.format, f"{variant.format} files are compiled for one size")
    raise LoweringError(f"{why}: list the sizes, as {{224,320}}, to get a file for each")
