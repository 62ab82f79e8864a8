"""Networks that a half-precision artifact is easily mistaken for, on made-up errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exporter.records import Array, Variant
from exporter.verify import simulation_io
from exporter.verify.gates.lookalikes_gate import lookalikes_gate_projection
from exporter.verify.simulation_io import Simulation
from tests.variants import FP16, W4
from tests.verify.observed import judged, made_references

RANDOM = np.random.default_rng(0)
WHAT = "GELU in its other form"
NOISE = 1e-3


def rounding(seed: int, samples: int) -> Array:
    """Half precision's noise, of which a part is shared by all values of a sample."""
    generator = np.random.default_rng(seed)
    return NOISE * (generator.normal(size=(samples, 1, 10)) + generator.normal(size=(samples, 1, 1)))


def reason(share: float, seed: int, samples: int = 64, variant: Variant = FP16, apart: float = 0.3) -> str:
    """Judge an artifact whose error holds a share of the difference, which is `apart` of the noise."""
    y = np.random.default_rng(1).normal(size=(samples, 1, 10))
    difference = apart * NOISE * np.random.default_rng(2).normal(size=y.shape)
    simulation = Simulation((y + rounding(3, samples),), {}, lookalikes={WHAT: (difference,)})
    actual = y + rounding(seed, samples) + share * difference
    return judged(variant, made_references(y), actual, simulation=simulation).reason or ""


@pytest.mark.parametrize("share", [-2, -1, 1, 2])
def test_the_other_network_is_found_by_its_direction(share: float) -> None:
    """The difference is a third of the noise, so that the size of the error says nothing."""
    reasons = [reason(share, seed, samples=256) for seed in range(10, 20)]
    assert all(f"Output 0 is that of a network with {WHAT}" in text for text in reasons)


@pytest.mark.parametrize("samples", [8, 16, 64, 256])
def test_rounding_alone_condemns_nothing(samples: int) -> None:
    """Chance gives rounding a part of any direction, the larger the fewer samples there are."""
    assert [reason(0, seed, samples) for seed in range(100, 140)] == [""] * 40


def test_few_samples_condemn_nothing() -> None:
    """Seven samples do not tell how uncertain their projection is."""
    assert reason(1, 5, samples=7, apart=2.5) == ""
    assert WHAT in reason(1, 5, samples=64, apart=2.5)


def test_the_projection_has_the_share_and_its_error() -> None:
    """Exact shares are found exactly; the error is that of a mean over independent samples."""
    difference = RANDOM.normal(size=(50, 1, 4))
    assert lookalikes_gate_projection(0.7 * difference, difference) == pytest.approx((0.7, 0.0), abs=1e-12)
    assert lookalikes_gate_projection(difference, 0 * difference) == (0.0, np.inf)
    shares, errors = np.array(
        [lookalikes_gate_projection(RANDOM.normal(size=difference.shape), difference) for _ in range(400)]
    ).T
    assert shares.std() == pytest.approx(errors.mean(), rel=0.15)
    assert abs(shares.mean()) < 0.02


@pytest.mark.parametrize("damage", ["shape", "dtype", "nan"])
def test_what_cannot_be_compared_is_not(damage: str) -> None:
    """An output that is compared by equality, or whose size differs, has no difference to project on."""
    y = np.random.default_rng(1).normal(size=(32, 1, 10))
    difference = {
        "shape": np.zeros(0),
        "dtype": np.ones(y.shape, np.int64),
        "nan": np.full(y.shape, np.nan),
    }[damage]
    simulation = Simulation((y + rounding(3, 32),), {}, lookalikes={WHAT: (difference,)})
    assert judged(FP16, made_references(y), y + rounding(4, 32), simulation=simulation).reason is None


def test_differences_come_back_as_they_were_written(tmp_path: Path) -> None:
    """The file of a simulation holds them beside its outputs and edge inputs."""
    arrays = [RANDOM.normal(size=(3, 1, n)) for n in (2, 4, 5, 6)]
    simulation = Simulation(
        tuple(arrays[:2]),
        {"zeros": (arrays[2],)},
        lookalikes={WHAT: (arrays[3], arrays[0]), "x": (arrays[1],)},
    )
    simulation_io.save_simulation(simulation, tmp_path / "simulation.npz")
    again = simulation_io.load_simulation(tmp_path / "simulation.npz")
    assert list(again.edges) == ["zeros"]
    assert set(again.lookalikes) == {WHAT, "x"}
    for name, stacks in simulation.lookalikes.items():
        for before, after in zip(stacks, again.lookalikes[name], strict=True):
            np.testing.assert_array_equal(before, after)


def test_weights_of_few_bits_are_judged_alike() -> None:
    """The simulation of few bits rounds weights as the artifact does, so that what is left is rounding."""
    assert reason(0, 5, variant=W4) == ""
