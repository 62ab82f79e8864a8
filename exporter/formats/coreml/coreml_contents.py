"""Reads what a written Core ML package holds, without running it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from exporter.capture.lowering_errors import shorten_lowering_error
from exporter.errors import LoweringError
from exporter.formats.coreml.coreml_classifier import read_coreml_classifier
from exporter.formats.coreml.coreml_compress import (
    ELEMENTWISE,
    coreml_operations_to_compress,
    load_coreml_program_to_compress,
)
from exporter.formats.coreml.coreml_image import read_coreml_image_input, shape_of_coreml_image
from exporter.formats.coreml.coreml_package import NAMES_KEY, coreml_package_names, read_coreml_package
from exporter.formats.coreml.epsilons import epsilons_of_operations
from exporter.records import Structure, TensorSpec, Variant

_FEATURE_DTYPES = {"FLOAT32": "float32", "FLOAT16": "float16", "DOUBLE": "float64", "INT32": "int32"}

_STORING = frozenset({"const", "constexpr_lut_to_dense", "constexpr_affine_dequantize"})


def coreml_contents_of_package(path: Path, variant: Variant) -> Structure:
    """Read a package: every weight is loaded and every shape inferred anew by coremltools.

    Args:
        path: The folder.
        variant: One of this format's variants.

    Returns:
        Inputs and outputs under the model's own names, in its order; operators without constants.

    Raises:
        LoweringError: It is not a whole, well-formed package.
    """
    try:
        package = read_coreml_package(path)
        program = load_coreml_program_to_compress(package)
        inputs, outputs = _features_in_coreml_contents(package.spec)
        image, classifier = read_coreml_image_input(package.spec), read_coreml_classifier(package.spec)
        outputs = _computed_outputs_in_coreml_contents(program, outputs)
        elements, size = _weights_in_coreml_contents(program)
    except LoweringError:
        raise
    except Exception as error:
        # A hostile package can make the reader raise anything at all.
        raise LoweringError(f"{path.name} is malformed: {shorten_lowering_error(error)}") from error
    kinds = Counter(operation.op_type for operation in coreml_operations_to_compress(program))
    del kinds["const"]
    classes = classifier.classes if classifier else ()
    epsilons = tuple(epsilons_of_operations(coreml_operations_to_compress(program)))
    return Structure(
        inputs, outputs, dict(kinds), size, elements, image=image, classes=classes, epsilons=epsilons
    )


def _features_in_coreml_contents(spec: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    _check_names_in_coreml_contents(spec)
    inputs, outputs = list(spec.description.input), tensors_of_coreml_contents(spec)
    names = _model_names_in_coreml_contents(spec, inputs, outputs)
    return (
        tuple(
            _feature_in_coreml_contents(feature, name) for feature, name in zip(inputs, names[0], strict=True)
        ),
        tuple(
            _feature_in_coreml_contents(feature, name)
            for feature, name in zip(outputs, names[1], strict=True)
        ),
    )


def tensors_of_coreml_contents(spec: Any) -> list[Any]:
    """List the described outputs that are tensors: all but a classifier's label and probabilities."""
    return [f for f in spec.description.output if f.type.WhichOneof("Type") == "multiArrayType"]


def _model_names_in_coreml_contents(
    spec: Any, inputs: Sequence[Any], outputs: Sequence[Any]
) -> tuple[list[str], list[str]]:
    """Return the model's names of the inputs and outputs, which Core ML's rules may have changed.

    Raises:
        LoweringError: A feature is not named as its name in the model becomes one in Core ML.
    """
    metadata = spec.description.metadata.userDefined
    features = [f.name for f in inputs], [f.name for f in outputs]
    if NAMES_KEY not in metadata:
        return features
    stored = json.loads(metadata[NAMES_KEY])
    names = list(stored["inputs"]), list(stored["outputs"])
    expected = coreml_package_names(*names)
    if expected != features:
        raise LoweringError(
            f"It names its inputs and outputs {_join_coreml_contents(features)}; "
            f"{_join_coreml_contents(names)} "
            f"of the model are {_join_coreml_contents(expected)} in Core ML."
        )
    return names


def _join_coreml_contents(names: tuple[list[str], list[str]]) -> str:
    return ", ".join([*names[0], *names[1]])


def _check_names_in_coreml_contents(spec: Any) -> None:
    """Check that the description, by whose names an app asks, names what the program has."""
    main = spec.mlProgram.functions["main"]
    computed = [value.name for value in main.inputs], main.block_specializations[main.opset].outputs
    described = spec.description.input, spec.description.output
    for kind, features, values in zip(("inputs", "outputs"), described, computed, strict=True):
        names = [feature.name for feature in features]
        if sorted(names) != sorted(values):
            raise LoweringError(
                f"Its description names the {kind} {', '.join(names)}, its program {', '.join(values)}."
            )


def _feature_in_coreml_contents(feature: Any, name: str) -> TensorSpec:
    if feature.type.WhichOneof("Type") == "imageType":
        return TensorSpec(name, shape_of_coreml_image(feature.type.imageType), "uint8")
    array = feature.type.multiArrayType
    dtype = array.ArrayDataType.Name(array.dataType)
    return TensorSpec(name, tuple(array.shape), _FEATURE_DTYPES[dtype])


def _computed_outputs_in_coreml_contents(
    program: Any, outputs: tuple[TensorSpec, ...]
) -> tuple[TensorSpec, ...]:
    """Return the outputs as the program computes them: a size that depends on the data is -1.

    Raises:
        LoweringError: The description states another shape.
    """
    variables = program.functions["main"].outputs
    tensors = [v for v in variables if v.op is None or v.op.op_type != "classify"]
    return tuple(
        _computed_output_in_coreml_contents(variable, spec)
        for variable, spec in zip(tensors, outputs, strict=True)
    )


def _computed_output_in_coreml_contents(variable: Any, spec: TensorSpec) -> TensorSpec:
    from coremltools.converters.mil.mil.types.symbolic import is_symbolic

    if any(is_symbolic(size) for size in variable.shape) and not spec.shape:
        # A description has no shape for an output whose size only the data tell.
        return replace(spec, shape=tuple(-1 if is_symbolic(size) else size for size in variable.shape))
    # A scalar is described without a shape, or with one element.
    if prod(variable.shape) != prod(spec.shape) or (variable.rank and variable.shape != spec.shape):
        computed, described = list(variable.shape), list(spec.shape)
        raise LoweringError(
            f"Its output {spec.name} is described as {described}, but computed as {computed}."
        )
    return spec


def _weights_in_coreml_contents(program: Any) -> tuple[dict[str, int], int]:
    """Count the elements by storage type, and their bytes without palettes and scales."""
    elements: Counter[str] = Counter()
    size = 0
    for operation in coreml_operations_to_compress(program):
        stored = _stored_in_coreml_contents(operation)
        if stored is not None:
            dtype, shape, size_bytes = stored
            elements[dtype] += prod(shape)
            size += size_bytes
    return dict(elements), size


def _stored_in_coreml_contents(operation: Any) -> tuple[str, tuple[int, ...], int] | None:
    """Return storage type, shape and bytes of the weight that an operator holds; None when it holds none."""
    if operation.op_type in _STORING and all(
        op.op_type in ELEMENTWISE for op in _users_in_coreml_contents(operation)
    ):
        return None
    if operation.op_type == "constexpr_lut_to_dense":
        bits = (len(operation.lut.val) - 1).bit_length()
        return f"uint{bits}", tuple(operation.shape.val.tolist()), operation.indices.val.nbytes
    if operation.op_type == "constexpr_affine_dequantize":
        data = operation.quantized_data.val
        return data.dtype.name, data.shape, data.nbytes
    if operation.op_type != "const" or any(
        _unpacks_weight_in_coreml_contents(op) for op in operation.outputs[0].child_ops
    ):
        return None
    value = operation.outputs[0].val
    # Integers are indices and shapes.
    if getattr(value, "ndim", 0) < 2 or value.dtype.kind != "f":
        return None
    return value.dtype.name, value.shape, value.nbytes


def _users_in_coreml_contents(operation: Any) -> Iterator[Any]:
    for output in operation.outputs:
        yield from output.child_ops


def _unpacks_weight_in_coreml_contents(operation: Any) -> bool:
    return bool(operation.op_type.startswith("constexpr_"))
