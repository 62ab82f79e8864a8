"""Gives a package a picture as its input, and folds the preprocessing into its program.

A picture has 8 bits a channel. coremltools' image inputs have one scale for all channels; a network whose
standard deviation differs from channel to channel needs a multiplication of its own. It is computed in
float32, before the network's input is rounded to float16: it costs no more than float32's rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from exporter.errors import LoweringError
from exporter.formats.coreml import coreml_edit
from exporter.formats.coreml.coreml_package import coremltools_quietly_for_package
from exporter.records import Array, ImageInput

COLORS = {1: "GRAYSCALE", 3: "RGB"}
"""Number of channels -> Core ML's colour space."""


def fold_coreml_image_input(spec: Any, image: ImageInput) -> None:
    """Make the only input a picture, and prepare it before all other operators, in place.

    Raises:
        LoweringError: The input is no float32 array of one picture.
    """
    (feature,) = spec.description.input
    (value,) = spec.mlProgram.functions["main"].inputs
    shape = list(feature.type.multiArrayType.shape)
    space = coremltools_quietly_for_package().proto.FeatureTypes_pb2.ImageFeatureType.ColorSpace
    if len(shape) != 4 or shape[0] != 1 or shape[1] != len(image.scale):
        raise LoweringError(f"Its input {feature.name} is {shape}, which is no picture.")
    _fold_operators_into_coreml_image(spec, value, image)
    feature.type.imageType.width, feature.type.imageType.height = shape[3], shape[2]
    feature.type.imageType.colorSpace = space.Value(COLORS[shape[1]])


def _fold_operators_into_coreml_image(spec: Any, value: Any, image: ImageInput) -> None:
    import numpy as np

    block = coreml_edit.coreml_edited_block(spec)
    names = {
        role: coreml_edit.unused_coreml_edit_name(spec, f"{value.name}_{role}")
        for role in ("scale", "scaled", "bias", "prepared")
    }
    scale, bias = (np.array(v, np.float32).reshape(1, -1, 1, 1) for v in (image.scale, image.bias))
    coreml_edit.coreml_edit_uses(block, value.name, names["prepared"])
    coreml_edit.insert_coreml_edits(
        block,
        [
            coreml_edit.coreml_edit_constant(names["scale"], scale),
            coreml_edit.coreml_edit_call(
                "mul", {"x": value.name, "y": names["scale"]}, {names["scaled"]: value.type}
            ),
            coreml_edit.coreml_edit_constant(names["bias"], bias),
            coreml_edit.coreml_edit_call(
                "add", {"x": names["scaled"], "y": names["bias"]}, {names["prepared"]: value.type}
            ),
        ],
    )


def read_coreml_image_input(spec: Any) -> ImageInput | None:
    """Return how a package's program prepares the picture that is its input; None where it takes none.

    Raises:
        LoweringError: It takes a picture and does something else with it first.
    """
    pictures = [f.name for f in spec.description.input if f.type.WhichOneof("Type") == "imageType"]
    if not pictures:
        return None
    operations = coreml_edit.coreml_edited_block(spec).operations
    scaled, scale = _only_use_of_coreml_image(operations, pictures[0], "mul")
    _, bias = _only_use_of_coreml_image(operations, scaled, "add")
    return ImageInput(scale, bias)


def _only_use_of_coreml_image(
    operations: Sequence[Any], name: str, kind: str
) -> tuple[str, tuple[float, ...]]:
    """Return the result of the only operator that reads a value, and the constant that it reads with it.

    Raises:
        LoweringError: Another operator reads the value, or it does not read a constant.
    """
    users = [
        operation
        for operation in operations
        if any(b.name == name for argument in operation.inputs.values() for b in argument.arguments)
    ]
    constants = {o.outputs[0].name: o for o in operations if o.type == "const"}
    if len(users) == 1 and users[0].type == kind:
        read = constants.get(users[0].inputs["y"].arguments[0].name)
        if read is not None and users[0].inputs["x"].arguments[0].name == name:
            values = read.attributes["val"].immediateValue.tensor.floats.values
            return users[0].outputs[0].name, tuple(values)
    raise LoweringError(
        f"Its input is a picture, and {name} does not become {kind} of it and a constant per channel."
    )


def shape_of_coreml_image(picture: Any) -> tuple[int, ...]:
    """Return the shape of the array that a program gets of a picture.

    Raises:
        LoweringError: It has colours that no network here takes.
    """
    spaces = coremltools_quietly_for_package().proto.FeatureTypes_pb2.ImageFeatureType.ColorSpace
    space = spaces.Name(picture.colorSpace)
    channels = [count for count, name in COLORS.items() if name == space]
    if not channels:
        raise LoweringError(f"Its input is a picture of the colour space {space}; expected RGB or grey.")
    return (1, channels[0], int(picture.height), int(picture.width))


def pixels_of_coreml_image(array: Array, image: ImageInput) -> Array:
    """Return the 8-bit picture that a prepared array comes from, or is nearest to."""
    import numpy as np

    pixels: Array = image.levels(array).round().clip(0, 255).astype(np.uint8)
    return pixels
