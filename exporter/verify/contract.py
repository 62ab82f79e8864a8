"""Checks a file before it runs: the model's inputs and outputs, its weights, and its precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from exporter.records import (
    SIMULATED,
    Array,
    FormatName,
    ImageInput,
    Limits,
    Precision,
    Structure,
    TensorSpec,
    Variant,
)
from exporter.verify.reference_io import Stacks

STORED_AS: Mapping[Precision, frozenset[str]] = {
    "fp32": frozenset({"float32", "complex64"}),
    "fp16": frozenset({"float16"}),
    "int8": frozenset({"int8", "uint8"}),
    "w8": frozenset({"int8", "uint8"}),
    "w4": frozenset({"int4", "uint4"}),
}
"""How a precision's weights must be stored. A mixed artifact has no such rule."""


CLASSIFYING: frozenset[FormatName] = frozenset({"coreml"})
"""Formats whose files can predict a label themselves, and do where the model has labels."""
PICTURED: frozenset[FormatName] = frozenset({"coreml"})
"""Formats whose files can take a picture and prepare it themselves."""
NAMELESS: frozenset[FormatName] = frozenset({"executorch"})
"""Formats whose files do not keep the names of inputs and outputs: only their order can be checked."""


def classes_by_contract(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the labels with the class's number behind each that occurs before.

    ImageNet has two classes called crane, and a table from label to probability can hold one.
    """
    classes: dict[str, None] = {}
    for number, label in enumerate(labels):
        name = label if label not in classes else f"{label} ({number})"
        while name in classes:
            name += "_"
        classes[name] = None
    return tuple(classes)


def classified_by_contract(outputs: Sequence[TensorSpec], labels: Sequence[str]) -> TensorSpec | None:
    """Return the output with a score for each label; None without one, or with several."""
    scores = [s for s in outputs if labels and s.shape == (1, len(labels)) and s.dtype == "float32"]
    return scores[0] if len(scores) == 1 else None


def check_structure_by_contract(
    structure: Structure,
    variant: Variant,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    weights: int,
    limits: Limits,
    sizes: Stacks = (),
    labels: Sequence[str] = (),
    image: ImageInput | None = None,
) -> str:
    """Return what is wrong with the file as read, without running it; an empty string when nothing is.

    Args:
        structure: The structure that was read from the artifact.
        variant: What it claims to be.
        inputs: The model's inputs, by position.
        outputs: The model's outputs, by position.
        weights: Elements of the two-or-more-dimensional weights of the model's layers
            (`matmul_weights.count_matmul_weights`).
        limits: Shares that must be reached.
        sizes: `ReferenceIO.shapes`, where outputs' sizes depend on the data.
        labels: The labels of the model's classes.
        image: How a Core ML package must prepare the picture that is its input; None where it takes none.
    """
    image = image if variant.format in PICTURED else None
    largest = [tuple(int(size) for size in shapes.max(axis=0)) for shapes in sizes]
    # A picture's bytes become the model's own type in the file; `image` says how.
    given = [replace(s, dtype="float32") for s in structure.inputs] if structure.image else structure.inputs
    for kind, want, have in (("input", inputs, given), ("output", outputs, structure.outputs)):
        if problem := _difference_from_contract(
            kind, want, have, variant.format, largest if kind == "output" else []
        ):
            return problem
    problem = _image_differs_from_contract(structure.image, image)
    if variant.format in CLASSIFYING and classified_by_contract(outputs, labels):
        problem = problem or _classes_differ_from_contract(structure.classes, classes_by_contract(labels))
    elif structure.classes:
        problem = problem or f"It predicts {len(structure.classes)} labels, and the model has none."
    if problem:
        return problem
    total = sum(structure.weight_elements.values())
    if total < limits.min_quantized_weights * weights:
        return f"It holds {total} weight values, the model has {weights}: weights are missing."
    expected = STORED_AS.get(variant.precision)
    stored = sum(n for dtype, n in structure.weight_elements.items() if expected and dtype in expected)
    if expected and total and stored < limits.min_quantized_weights * total:
        shares = ", ".join(
            f"{n / total:.0%} {dtype}" for dtype, n in sorted(structure.weight_elements.items())
        )
        return f"It calls itself {variant.precision}, but its weights are stored as {shares}."
    if structure.delegated_fraction is not None and structure.delegated_fraction < limits.min_delegated:
        return (
            f"Only {structure.delegated_fraction:.0%} of the compute is delegated to {variant.backend} "
            f"(at least {limits.min_delegated:.0%} expected): it would run slowly."
        )
    return ""


def _image_differs_from_contract(actual: ImageInput | None, expected: ImageInput | None) -> str:
    if actual == expected:
        return ""
    file, model = (
        f"a picture as byte * {list(image.scale)} + {list(image.bias)}" if image else "no picture"
        for image in (actual, expected)
    )
    return f"It prepares {file}, the model needs {model}."


def _classes_differ_from_contract(actual: Sequence[str], expected: Sequence[str]) -> str:
    if not actual:
        return "It predicts no label, though the model's labels are known."
    if len(actual) != len(expected):
        return f"It predicts {len(actual)} labels, the model {len(expected)}."
    pairs = enumerate(zip(actual, expected, strict=True))
    return next(
        (
            f"It calls class {i} {mine!a}, the model {models!a}."
            for i, (mine, models) in pairs
            if mine != models
        ),
        "",
    )


def _shapes_fit_contract(
    have: Sequence[TensorSpec], want: Sequence[TensorSpec], largest: Sequence[tuple[int, ...]]
) -> bool:
    """Compare shapes; where sizes depend on the data a file has none (-1), or the most that it can give."""
    if len(have) != len(want):
        return False
    if not largest:
        return [spec.shape for spec in have] == [spec.shape for spec in want]
    return all(
        len(file.shape) == len(model.shape)
        and all(
            size in (-1, wanted) or size >= most
            for size, wanted, most in zip(file.shape, model.shape, sizes, strict=True)
        )
        for file, model, sizes in zip(have, want, largest, strict=True)
    )


LARGEST_EPSILON = 0.5
"""A larger number that is added before a root is no epsilon."""
HALF_EPSILON = 2.0**-23
"""How far an epsilon may be off that is stored in float16: two steps of float16's smallest numbers, as
converters replace what would become 0."""


def check_epsilons_by_contract(
    structure: Structure, precision: Precision, epsilons: Sequence[float] | None
) -> str:
    """Return what is wrong with what a file's norms add to a variance; an empty string when nothing is.

    Each number of the file must be one of the program's, and none may be there more often. A file may have
    fewer: converters fold norms into weights.

    Args:
        structure: The structure that was read from the artifact.
        precision: What the artifact claims to be.
        epsilons: The program's own; None where they are not known.
    """
    if epsilons is None:
        return ""
    step = HALF_EPSILON if precision in SIMULATED else 0.0
    left = list(epsilons)
    for number in (n for n in structure.epsilons if 0 <= n <= LARGEST_EPSILON):
        nearest = min(left, key=lambda own: abs(own - number), default=None)
        if nearest is None or abs(nearest - number) > max(step, 2.0**-10 * nearest):
            models = ", ".join(f"{own:.3g}" for own in sorted(set(epsilons))[:8]) or "nothing"
            return f"It adds {number:.3g} to the variance of a norm; the model's own numbers are {models}."
        left.remove(nearest)
    return ""


def check_outputs_by_contract(
    outputs: Sequence[Array], expected: Sequence[TensorSpec], format_name: FormatName
) -> str:
    """Return what is wrong with the types of an artifact's outputs; an empty string when nothing is.

    Args:
        outputs: Of one call or stacked.
        expected: The model's.
        format_name: Of the artifact.
    """
    specs = [TensorSpec(spec.name, (), a.dtype.name) for spec, a in zip(expected, outputs, strict=False)]
    return _difference_from_contract(
        "output", [replace(spec, shape=()) for spec in expected], specs, format_name
    )


def _difference_from_contract(
    kind: str,
    want: Sequence[TensorSpec],
    have: Sequence[TensorSpec],
    format_name: FormatName,
    largest: Sequence[tuple[int, ...]] = (),
) -> str:
    """Compare number, shapes, names and types, in order."""
    if not _shapes_fit_contract(have, want, largest):
        shapes = ", ".join(str(list(s.shape)) for s in have) or "not in the file"
        return f"Its {kind} shapes are {shapes}, the model's {', '.join(str(list(s.shape)) for s in want)}."
    aspects = {
        "types": ([s.dtype for s in have], [_type_in_contract(s.dtype, format_name) for s in want]),
    }
    if format_name not in NAMELESS:
        aspects["names"] = ([s.name for s in have], [s.name for s in want])
    for aspect, (mine, models) in aspects.items():
        if mine != models:
            return f"Its {kind} {aspect} are {', '.join(mine)}, the model's {', '.join(models)}."
    return ""


def _type_in_contract(dtype: str, format_name: FormatName) -> str:
    """Return the type by which a format gives a tensor: Core ML has float32, int32 and pictures alone."""
    if format_name == "coreai":
        return {"int64": "int32"}.get(dtype, dtype)
    if format_name != "coreml":
        return dtype
    return "float32" if dtype.startswith("float") else "int32"
