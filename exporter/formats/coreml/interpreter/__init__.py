"""The reference interpreter: computes a written Core ML package on any machine, as its program says.

It shows what the file means: its weights, its graph, its types. It is not Core ML: how Core ML's compiler
fuses operators, and how the Neural Engine and the GPU sum and round, only a Mac or an iPhone can show.

Every operator computes in float32 on the values that it is given, sums in float32, and its result is rounded
once to the type that the program declares. So float16 loses what storing in float16 loses, and overflows
where it would; what hardware loses by summing in float16 is not seen.

One file for each family of operators; `table.py` lists them by name.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from exporter.formats.coreml.coreml_classifier import read_coreml_classifier
from exporter.formats.coreml.coreml_image import pixels_of_coreml_image, read_coreml_image_input
from exporter.formats.coreml.coreml_package import (
    WEIGHTS,
    coremltools_quietly_for_package,
    read_coreml_package,
)
from exporter.formats.coreml.coreml_sizes import check_coreml_sizes
from exporter.formats.coreml.interpreter.mil_program import Program
from exporter.records import Array, Runner, Sample

__all__ = ["load_interpreter"]


def load_interpreter(path: Path) -> tuple[Runner, str]:
    """Read a package to run it.

    A package that takes a picture is given the 8-bit picture that each prepared sample comes from. What a
    classifier predicts is compared with its scores in every call.

    Returns:
        The runner, which gives the model's own outputs, and "reference interpreter, coremltools VERSION".

    Raises:
        UnknownOperator: It has an operator that the interpreter does not compute.
        LoweringError: It is not a whole package.
    """
    package = read_coreml_package(path)
    program = Program.of_package(package, path / WEIGHTS.parent)
    image, classifier = read_coreml_image_input(package.spec), read_coreml_classifier(package.spec)

    def run(sample: Sample) -> tuple[Array, ...]:
        check_coreml_sizes(package.spec, sample)
        values = program.values(
            [pixels_of_coreml_image(array, image) for array in sample] if image else sample
        )
        if classifier:
            classifier.check(values)
        return tuple(value for value in values.values() if isinstance(value, np.ndarray))

    return run, f"reference interpreter, coremltools {coremltools_quietly_for_package().__version__}"
