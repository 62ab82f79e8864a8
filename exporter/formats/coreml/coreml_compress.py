"""Stores a package's weights in 8 bits (linear, per channel) or 4 bits (a palette of 16 values each)."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.errors import LoweringError
from exporter.formats.coreml.coreml_convert import coreml_convert_targets, coreml_convert_to_package
from exporter.formats.coreml.coreml_package import Package, coremltools_quietly_for_package
from exporter.records import Limits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MIN_ELEMENTS = 64
"""Tensors with no more values stay in float16, while they are few: a palette or scales would be as large."""
FEWEST = 10
"""coremltools writes constants of fewer values into the program itself, and compresses none of them."""
ELEMENTWISE = frozenset({"add", "sub", "mul", "real_div", "maximum", "minimum"})
"""Operators that use a constant value by value: one that nothing else reads is no layer's weight."""
SMALL_SHARE = 0.05
"""The smallest tensors that together hold up to this share of the weights get 8 bits, not 4: they are
depthwise and first layers, which cost few bytes and lose most. On MobileNetV2's logits, palettes for all
layers leave -0.6 dB and 3 % top-1 agreement; with these at 8 bits it is 6.9 dB and 67 %."""
BLOCK = 1 << 20
"""Values of a large tensor that are looked at together."""


def compress_coreml_program(package: Package, precision: str) -> tuple[Package, str]:
    """Compress the weights of two or more dimensions.

    Args:
        package: The converted package, which is not changed.
        precision: "w8" or "w4".

    Returns:
        The compressed package, and a note with the weights' signal-to-noise ratio against the original.

    Raises:
        LoweringError: There is nothing to compress, or too little, so the result would be mislabelled.
    """
    ct = coremltools_quietly_for_package()
    program = load_coreml_program_to_compress(package)
    original = _coreml_weights_to_compress(program)
    if not original:
        raise LoweringError("It has no weight to compress.")
    small = smallest_weight_for_coreml_compress(original) if precision == "w4" else set(original)
    _coreml_compress_to_integers(program, small)
    _coreml_compress_to_palette(program, set(original) - small)
    note = f"Weights are {_coreml_compress_sqnr_db(original, program):.1f} dB from the uncompressed ones."
    if precision == "w4" and small:
        share = sum(original[name].size for name in small) / sum(w.size for w in original.values())
        note += f" The smallest tensors ({len(small)}, {share:.1%} of the weights) have 8 bits."
    # The graph was optimised before: running all passes once more would only take their time.
    passes = ct.PassPipeline(pass_names=["common::const_deduplication", "common::dead_code_elimination"])
    target = coreml_convert_targets()[package.spec.specificationVersion]
    compressed = coreml_convert_to_package(program, target, pass_pipeline=passes)
    compressed.spec.description.CopyFrom(package.spec.description)
    return compressed, note


def load_coreml_program_to_compress(package: Package, weights: Path | None = None) -> Any:
    """Read a package into coremltools' in-memory program, which infers every shape anew.

    Args:
        package: A package before it is written, or after it is read.
        weights: The folder of its weight file, where it has one already; else a temporary one is written.
    """
    coremltools_quietly_for_package()
    from coremltools.converters.mil.frontend.milproto.load import load

    if weights is not None:
        return load(package.spec, package.spec.specificationVersion, str(weights))
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "weight.bin").write_bytes(package.weights)
        return load(package.spec, package.spec.specificationVersion, directory)


def coreml_operations_to_compress(program: Any) -> list[Any]:
    """List all operators of a program, or of one function; those of nested blocks after their own."""
    collected = []
    blocks = list(program.functions.values()) if hasattr(program, "functions") else [program]
    while blocks:
        for operation in blocks.pop(0).operations:
            collected.append(operation)
            blocks.extend(operation.blocks)
    return collected


def _coreml_weights_to_compress(program: Any) -> dict[str, NDArray[np.floating[Any]]]:
    import numpy as np

    constants = {
        operation.name: operation.outputs[0]
        for operation in coreml_operations_to_compress(program)
        if operation.op_type == "const"
        and isinstance(operation.outputs[0].val, np.ndarray)
        and operation.outputs[0].val.dtype.kind == "f"
        and operation.outputs[0].val.ndim >= 2
    }
    layers = {
        name
        for name, value in constants.items()
        if not all(user.op_type in ELEMENTWISE for user in value.child_ops)
    }
    _refuse_mostly_uncompressed([constants[name].val.size for name in layers])
    return chosen_for_coreml_compress({name: value.val for name, value in constants.items()}, layers)


def _refuse_mostly_uncompressed(sizes: Sequence[int]) -> None:
    """Refuse a network whose weights are in many tensors that are too small to compress.

    Raises:
        LoweringError: Its file would have a narrow type's name and float16 weights.
    """
    left = sum(size for size in sizes if size < FEWEST)
    if left > (1 - Limits().min_quantized_weights) * sum(sizes):
        raise LoweringError(
            f"Core ML compresses no tensor of fewer than {FEWEST} values, and these hold "
            f"{left / sum(sizes):.0%} of the weights: coreml-fp16 is the file for it."
        )


def chosen_for_coreml_compress(
    weights: Mapping[str, NDArray[np.floating[Any]]], layers: Collection[str]
) -> dict[str, NDArray[np.floating[Any]]]:
    """Return the large weights; and the small ones too, where these are more than a few of the values.

    Args:
        weights: By name.
        layers: The names of those that are not only added or multiplied value by value.
    """
    stored = {name: weight for name, weight in weights.items() if weight.size >= FEWEST}
    large = {name: weight for name, weight in stored.items() if weight.size > MIN_ELEMENTS}
    small = {name: weight for name, weight in stored.items() if name in layers and name not in large}
    values, few = (sum(weight.size for weight in some.values()) for some in (large, small))
    return large if few <= SMALL_SHARE * (values + few) else {**large, **small}


def smallest_weight_for_coreml_compress(weights: Mapping[str, NDArray[np.floating[Any]]]) -> set[str]:
    left = SMALL_SHARE * sum(weight.size for weight in weights.values())
    chosen = set()
    for name, weight in sorted(weights.items(), key=lambda item: (item[1].size, item[0])):
        left -= weight.size
        if left < 0:
            break
        chosen.add(name)
    return chosen


def _coreml_compress_to_integers(program: Any, names: set[str]) -> None:
    import coremltools.optimize.coreml as optimize
    from coremltools.optimize.coreml._quantization_passes import linear_quantize_weights

    config = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=0)
    configs = dict.fromkeys(names, config)
    linear_quantize_weights(optimize.OptimizationConfig(op_name_configs=configs)).apply(program)


def _coreml_compress_to_palette(program: Any, names: set[str]) -> None:
    import coremltools.optimize.coreml as optimize
    from coremltools.optimize.coreml._quantization_passes import palettize_weights

    config = optimize.OpPalettizerConfig(
        mode="custom", lut_function=best_palette_for_coreml_compress, weight_threshold=0
    )
    configs = dict.fromkeys(names, config)
    palettize_weights(optimize.OptimizationConfig(op_name_configs=configs)).apply(program)


def best_palette_for_coreml_compress(
    weight: NDArray[np.floating[Any]],
) -> tuple[NDArray[np.floating[Any]], NDArray[np.uint8]]:
    """Find the 16 values of least squared error, exactly; coremltools' own mode would need scikit-learn."""
    import numpy as np

    if weight.dtype == np.float16:
        return _best_palette_of_float16(weight)
    values, positions, counts = np.unique(weight, return_inverse=True, return_counts=True)
    palette, clusters = _clusters_for_coreml_compress(values, counts)
    return palette, clusters[positions.reshape(-1)]


def _best_palette_of_float16(
    weight: NDArray[np.floating[Any]],
) -> tuple[NDArray[np.floating[Any]], NDArray[np.uint8]]:
    """Count the 65,536 patterns of bits: to sort a large table of words takes many times its memory."""
    import numpy as np

    patterns = np.ascontiguousarray(weight).reshape(-1).view(np.uint16)
    blocks = [slice(start, start + BLOCK) for start in range(0, patterns.size, BLOCK)]
    counts = np.zeros(1 << 16, np.int64)
    for block in blocks:  # NumPy counts, and looks up, by integers of 64 bits: it copies others to them
        counts += np.bincount(patterns[block], minlength=1 << 16)
    used = np.flatnonzero(counts)
    # Two patterns are zero.
    values, order = np.unique(used.astype(np.uint16).view(np.float16), return_inverse=True)
    palette, clusters = _clusters_for_coreml_compress(values, np.bincount(order, weights=counts[used]))
    positions = np.zeros(1 << 16, np.uint8)
    positions[used] = clusters[order]
    return palette, np.concatenate([positions[patterns[block]] for block in blocks])


def _clusters_for_coreml_compress(
    values: NDArray[np.floating[Any]], counts: NDArray[Any]
) -> tuple[NDArray[np.floating[Any]], NDArray[np.uint8]]:
    """Return the palette of ordered values, and the position in it of each."""
    import numpy as np
    from coremltools._deps.kmeans1d import cluster

    clusters = cluster(values.tolist(), min(16, len(values)), weights=counts.tolist())
    palette = np.zeros(16, values.dtype)
    palette[: len(clusters.centroids)] = clusters.centroids
    return palette, np.array(clusters.clusters, np.uint8)


def _coreml_compress_sqnr_db(original: Mapping[str, NDArray[np.floating[Any]]], program: Any) -> float:
    import numpy as np

    signal = noise = 0.0
    for operation in coreml_operations_to_compress(program):
        name = operation.name.removesuffix("_quantized").removesuffix("_palettized")
        if operation.op_type.startswith("constexpr_"):
            exact, stored = original[name].reshape(-1), operation.materialized_val_inference().reshape(-1)
            for start in range(0, exact.size, BLOCK):  # float64 takes four times a large tensor's memory
                block = exact[start : start + BLOCK].astype(np.float64)
                signal += float((block**2).sum())
                noise += float(((stored[start : start + BLOCK] - block) ** 2).sum())
    return 10 * float(np.log10(signal / noise)) if noise else float("inf")
