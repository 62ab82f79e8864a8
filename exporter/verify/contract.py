"""What a file must be before it runs: the model's inputs and outputs, its weights, and its precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from exporter.records import Limits, Precision, Structure, TensorSpec, Variant
from exporter.verify.reference_io import Stacks

STORED_AS: Mapping[Precision, frozenset[str]] = {
    "fp32": frozenset({"float32"}),
    "fp16": frozenset({"float16"}),
    "int8": frozenset({"int8", "uint8"}),
    "w8": frozenset({"int8", "uint8"}),
    "w4": frozenset({"int4", "uint4"}),
}
"""How a precision's weights must be stored. A mixed artifact says itself which are."""


def check_structure(
    structure: Structure,
    variant: Variant,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    weights: int,
    limits: Limits,
    sizes: Stacks = (),
) -> str:
    """What is wrong with the file as read, without running it; an empty string when nothing is.

    Args:
        structure: As read from the artifact.
        variant: What it claims to be.
        inputs: The model's, by position.
        outputs: The model's, by position.
        weights: Elements of the two-or-more-dimensional weights of the model's layers (`matrices.count`).
        limits: Shares that must be reached.
        sizes: `Evidence.shapes`, where outputs' sizes depend on the data.
    """
    largest = [tuple(int(size) for size in shapes.max(axis=0)) for shapes in sizes]
    for kind, want, have in (("input", inputs, structure.inputs), ("output", outputs, structure.outputs)):
        if have and not _shapes_fit(have, want, largest if kind == "output" else []):
            shapes = ", ".join(str(list(s.shape)) for s in have)
            return (
                f"Its {kind} shapes are {shapes}, the model's {', '.join(str(list(s.shape)) for s in want)}."
            )
    total = sum(structure.weight_elements.values())
    if total < limits.min_quantized_weights * weights:
        return f"It holds {total} weight values, the model has {weights}: weights are missing."
    expected = STORED_AS.get(variant.precision)
    stored = sum(n for dtype, n in structure.weight_elements.items() if expected and dtype in expected)
    if expected and total and stored < limits.min_quantized_weights * total:
        found = ", ".join(
            f"{n / total:.0%} {dtype}" for dtype, n in sorted(structure.weight_elements.items())
        )
        return f"It calls itself {variant.precision}, but its weights are stored as {found}."
    if structure.delegated_fraction is not None and structure.delegated_fraction < limits.min_delegated:
        return (
            f"Only {structure.delegated_fraction:.0%} of the compute is delegated to {variant.backend} "
            f"(at least {limits.min_delegated:.0%} expected): it would run slowly."
        )
    return ""


def _shapes_fit(
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
