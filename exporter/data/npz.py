"""Calibration arrays from an `.npz` file, one array per input and one row per sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from exporter import array_file
from exporter.errors import CalibrationError
from exporter.records import INPUT_DTYPES, Array, Sample, TensorSpec

HOW = "Write it with `numpy.savez(file, <input name>=array, …)`, first axis = samples."


def read_npz(path: Path, inputs: tuple[TensorSpec, ...]) -> tuple[list[Sample], tuple[str, ...]]:
    """Read one array per model input; the first axis counts samples.

    Args:
        path: A `.npz` file with arrays named like the inputs, or `arr_0`, `arr_1`, … in their order.
        inputs: The model's inputs. A batch axis of one may be left out of the arrays.

    Returns:
        Samples (an array per input, exactly in the input's shape and dtype), and notes.

    Raises:
        CalibrationError: What was seen in the file, and what was expected.
    """
    arrays = load_npz(path)
    names = _match_npz(path, arrays, inputs)
    columns = [_npz_rows(path, name, arrays[name], spec) for name, spec in zip(names, inputs, strict=True)]
    counts = {name: len(column) for name, column in zip(names, columns, strict=True)}
    if len(set(counts.values())) > 1:
        raise CalibrationError(
            f"{path.name}: the arrays hold different numbers of samples: {counts}.", HOW, code="EM-NPZ"
        )
    unused = sorted(set(arrays) - set(names))
    notes = (
        (f"Ignored arrays of {path.name} that are not inputs: {', '.join(map(repr, unused))}.",)
        if unused
        else ()
    )
    return list(zip(*columns, strict=True)), notes


LABELS = "labels"


def read_npz_labels(path: Path) -> Array:
    """Read the array `read_npz_labels` of a `.npz`, int64 [samples].

    Raises:
        CalibrationError: It is missing, or does not hold whole numbers.
    """
    array = load_npz(path).get(LABELS)
    if array is None:
        raise CalibrationError(
            f"{path.name} holds no array {LABELS!r}.",
            "Save the class of each sample under that name.",
            code="EM-NPZ",
        )
    if array.dtype.kind not in "iu" or array.ndim not in {1, 2}:
        raise CalibrationError(
            f"{path.name}: {LABELS!r} is {array.dtype} {list(array.shape)}, "
            "expected whole numbers [samples].",
            code="EM-NPZ",
        )
    return array.astype(np.int64).reshape(-1)


def read_npz_input_row(path: Path, spec: TensorSpec) -> Array:
    """Read one input from a `.npy` file; a batch axis of one may be left out.

    Raises:
        CalibrationError: It is not one, or does not fit the input.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CalibrationError(f"{path.name} cannot be used: {error}.", code="EM-NPZ") from None
    (row,) = _npz_rows(path, path.stem, array[None], spec)
    return row


def load_npz(path: Path) -> dict[str, Array]:
    """Read every array of a `.npz`.

    Raises:
        CalibrationError: It is not one.
    """
    try:
        return array_file.read_array_file(path)
    except (array_file.ArrayFileError, OSError) as error:
        raise CalibrationError(f"{path.name} cannot be used. {error}", HOW, code="EM-NPZ") from error


def _match_npz(path: Path, arrays: dict[str, Array], inputs: tuple[TensorSpec, ...]) -> list[str]:
    named = [spec.name for spec in inputs]
    if set(named) <= set(arrays):
        return named
    positional = [f"arr_{index}" for index in range(len(inputs))]
    if set(positional) == set(arrays):
        return positional
    raise CalibrationError(
        f"{path.name} holds the arrays {sorted(arrays)[:20]}; expected {named} (or {positional}).",
        HOW,
        code="EM-NPZ",
    )


def _npz_rows(path: Path, name: str, array: Array, spec: TensorSpec) -> list[Array]:
    """Return the array as samples of the input's shape and dtype."""
    without_batch = spec.shape[1:] if spec.shape[:1] == (1,) else None
    if array.ndim == 0 or array.shape[1:] not in {spec.shape, without_batch}:
        expected = " or ".join(
            f"[samples, {', '.join(map(str, s))}]" for s in (spec.shape, without_batch) if s
        )
        raise CalibrationError(
            f"{path.name}: array {name!r} has shape {list(array.shape)}, expected {expected} "
            f"for input {spec.name!r}.",
            HOW,
            code="EM-NPZ",
        )
    typed = _cast_npz_array(path, name, array, spec)
    return [np.ascontiguousarray(row.reshape(spec.shape)) for row in typed]


def _cast_npz_array(path: Path, name: str, array: Array, spec: TensorSpec) -> Array:
    wanted = np.dtype(spec.dtype)
    kinds = "iu" if wanted.kind in "iu" else wanted.kind
    if array.dtype.kind not in kinds:
        raise CalibrationError(
            f"{path.name}: array {name!r} is {array.dtype}, expected {wanted}.",
            _npz_declaration(spec, array.dtype),
            code="EM-NPZ",
        )
    with np.errstate(over="ignore"):
        typed: Array = array.astype(wanted, copy=False)
    changed = typed.dtype.kind in "iu" and not np.array_equal(typed, array)
    if changed or (typed.dtype.kind == "f" and not np.isfinite(typed).all()):
        problem = f"values that do not fit {wanted}" if changed else "NaN or infinite values"
        raise CalibrationError(
            f"{path.name}: array {name!r} has {problem}.",
            "Every value must be a finite number.",
            code="EM-NPZ",
        )
    return typed


def _npz_declaration(spec: TensorSpec, dtype: np.dtype[np.generic]) -> str:
    """Return what to try when an array has another type than its input."""
    convert = "apply the model's preprocessing" if spec.dtype == "float32" else f"convert it to {spec.dtype}"
    if dtype.name not in INPUT_DTYPES:
        return f"{convert.capitalize()} before saving."
    option = f"--input-shape {spec.name}={'x'.join(map(str, spec.shape))}:{dtype}"
    return f"If the model takes {dtype}, declare it: `{option}`. Else {convert} before saving."
