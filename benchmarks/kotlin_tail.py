"""Compile the Kotlin functions of the page on detectors, and compare them with the page's Python functions.

    npm install kotlin-compiler            # needs a JRE, too: apt-get install openjdk-17-jre-headless
    python -m benchmarks.kotlin_tail --kotlinc node_modules/kotlin-compiler/bin/kotlinc

Both run on the same random detections, regions, masks and heatmaps. The code that an export writes to choose
one of several sizes is compiled as well.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exporter.records import Array
from exporter.report.bucket_snippets import bucket_snippets

PAGE = Path(__file__).parents[1] / "docs/guides/detectors.md"
CASES = 20
CLASSES, SIDE, PHOTO = 5, 14, 60
CLOSE = 1e-4
"""How far apart the two languages' numbers may be: Kotlin computes in float32, NumPy partly in float64."""
SIZES = ((224, 224), (224, 320))
MAIN = """
fun floats(line: String) = line.split(" ").filter { it.isNotEmpty() }.map { it.toFloat() }.toFloatArray()

fun main() {
    while (true) {
        val boxes = floats(readlnOrNull() ?: return)
        val scores = floats(readln())
        val mask = floats(readln())
        val box = boxes.copyOfRange(0, 4)
        val out = mutableListOf<Number>()
        for (d in detections(boxes, scores, %(classes)d, 0.3f, 0.5f, 12, 20)) {
            out += d.score
            out += d.column
            out += d.box.toList()
        }
        val level = boxes.size / 8
        val objectness = scores.copyOfRange(0, boxes.size / 4)
        out += keepRegions(boxes, objectness, intArrayOf(level, level), 0.1f, 0.5f, 15)
        out += maskOfBox(mask, %(side)d, box, %(photo)d, %(photo)d).toList()
        out += keypointOfBox(mask, %(side)d, box).toList()
        println(out.joinToString(" "))
    }
}
"""


def kotlin_of_page() -> str:
    """Return the page's Kotlin as one file, with a main function that reads cases and writes results."""
    snippets = re.findall(r"```kotlin\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = "\n".join(snippets).splitlines()
    imports = sorted({line for line in lines if line.startswith("import ")})
    main = MAIN % {"classes": CLASSES, "side": SIDE, "photo": PHOTO}
    return "\n".join([*imports, *(line for line in lines if not line.startswith("import ")), main])


def python_of_page() -> dict[str, Any]:
    """Return the page's Python functions by their names."""
    functions: dict[str, Any] = {}
    for snippet in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(snippet, functions)
    return functions


def random_case(seed: int) -> tuple[Array, Array, Array]:
    """Return boxes [n, 4] in a photo, scores [n, classes] and a map of one box."""
    random = np.random.default_rng(seed)
    low = random.uniform(-5, PHOTO - 20, (24, 2))
    boxes = np.concatenate([low, low + random.uniform(3, 30, (24, 2))], axis=1)
    boxes[12:] = boxes[:12] + random.uniform(-3, 3, (12, 4))
    scores = random.uniform(size=(24, CLASSES))
    return boxes.astype(np.float32), scores.astype(np.float32), random.random((SIDE, SIDE), np.float32)


def expected_result(case: tuple[Array, Array, Array], page: dict[str, Any]) -> Array:
    """Return what the Python functions give for a case, as one row of numbers."""
    boxes, scores, mask = case
    objectness = scores.flatten()[: len(boxes)]
    numbers: list[Any] = []
    for score, column, box in page["detections"](boxes, scores, 0.3, 0.5, 12, 20):
        numbers += [score, column, *box]
    half = len(boxes) // 2
    numbers += page["keep_regions"](boxes, objectness, [half, half], 0.1, 0.5, 15)
    numbers += page["mask_of_box"](mask, boxes[0], PHOTO, PHOTO).flatten().tolist()
    points, surest = page["keypoints_of_box"](mask[None], boxes[0])
    return np.array([*numbers, *points[0], surest[0]], np.float64)


def compiled_result(kotlinc: Path, cases: Sequence[tuple[Array, Array, Array]]) -> list[Array]:
    """Compile the page's Kotlin and return its results for the cases."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Tail.kt").write_text(kotlin_of_page())
        for merged in (True, False):
            code = bucket_snippets(SIZES, merged, {} if merged else {"a": "a.onnx"})["Sizes.kt"]
            (Path(folder) / f"Sizes{merged}.kt").write_text(f"package sizes{merged}\n{code}")
        sources = map(str, Path(folder).glob("*.kt"))
        jar = str(Path(folder) / "tail.jar")
        subprocess.run(["bash", str(kotlinc), *sources, "-include-runtime", "-d", jar], check=True)
        rows = [" ".join(map(str, array.flatten())) for case in cases for array in case]
        run = ["java", "-cp", jar, "TailKt"]
        finished = subprocess.run(run, input="\n".join(rows), text=True, capture_output=True, check=True)
    return [np.array(line.split(), np.float64) for line in finished.stdout.splitlines()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the languages case by case; return 1 where they differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kotlinc", type=Path, required=True)
    options = parser.parse_args(arguments)
    cases, page = [random_case(seed) for seed in range(CASES)], python_of_page()
    results = compiled_result(options.kotlinc, cases)
    wanted = [expected_result(case, page) for case in cases]
    same = [
        actual.shape == row.shape and bool(np.allclose(actual, row, rtol=CLOSE, atol=CLOSE))
        for actual, row in zip(results, wanted, strict=True)
    ]
    print(f"{sum(same)} of {len(same)} cases are equal, {wanted[0].size} numbers in the first")
    return 0 if all(same) else 1


if __name__ == "__main__":
    sys.exit(main())
