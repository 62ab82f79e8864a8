"""Siblings of calibration images cannot make anything pass."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from exporter import data
from exporter.records import Preprocessing, TensorSpec, Variant
from tests.photos import open_photo
from tests.variants import FP16, INT8
from tests.verify import observed

CROPS = 8
INPUT = (TensorSpec("x", (1, 3, 32, 32)),)


@pytest.fixture(scope="module")
def scene_of(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, ...]:
    """Load crops of two photos, under names that say nothing; return the scenes of what verifies."""
    folder = tmp_path_factory.mktemp("siblings")
    generator = np.random.default_rng(0)
    names = iter(generator.permutation(100))
    for _, name in itertools.product(range(CROPS), ("chelsea", "coffee")):
        photo = open_photo(name)
        width, height = (int(0.8 * side) for side in photo.size)
        left = int(generator.integers(photo.width - width))
        top = int(generator.integers(photo.height - height))
        photo.crop((left, top, left + width, top + height)).save(folder / f"{next(names):03}.png")
    preprocessing = Preprocessing(resize=32, crop=(32, 32))
    loaded: data.Data = data.load_data(folder, INPUT, preprocessing, 64)
    return loaded.scene_of["verification"]


@pytest.mark.parametrize(
    ("variant", "noise"), [(INT8, 10**-1.5), (FP16, 10**-2.2), (replace(INT8, precision="w8"), 10**-1.5)]
)
def test_crops_of_two_photos_prove_nothing(variant: Variant, noise: float, scene_of: tuple[int, ...]) -> None:
    """Outputs at 30 or 44 dB would pass on 64 scenes; on 64 crops of one photo they are inconclusive."""
    assert len(scene_of) == 64
    assert set(scene_of) == {0}
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(64, 1, 10))
    outputs = logits + noise * generator.normal(size=logits.shape)
    independent = observed.evidence(logits)
    assert observed.judged(variant, independent, outputs).status == "passed"
    siblings = replace(independent, scenes=(np.array(scene_of),))
    verdict = observed.judged(variant, siblings, outputs)
    assert verdict.status == "inconclusive"
    assert "1 scene(s) cannot decide" in str(verdict.reason)
