"""The limits that follow from a simulation of what a precision costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exporter.errors import VerificationError
from exporter.records import Limits, Variant
from exporter.verify import simulation_io
from exporter.verify.judge import judge_artifact
from exporter.verify.reference_io import Lowering, ReferenceIO, Stacks
from exporter.verify.simulation_io import Simulation
from tests.variants import FP16, INT8, W4

RNG = np.random.default_rng(0)
REFERENCE = RNG.normal(size=(32, 1, 10))
EDGES = RNG.normal(size=(2, 1, 10))
NAMES = ("zeros", "saturated")


def noise(seed: int, level: float, shape: tuple[int, ...] = REFERENCE.shape) -> np.ndarray:
    values: np.ndarray = np.random.default_rng(seed).normal(size=shape) * level
    return values


SIMULATED = Simulation(
    outputs=(REFERENCE + noise(1, 1e-3),),
    edges={name: (EDGES[i : i + 1] + noise(2 + i, 1e-3, (1, 1, 10)),) for i, name in enumerate(NAMES)},
)


def made_references(reference: np.ndarray = REFERENCE, edges: np.ndarray = EDGES) -> ReferenceIO:
    inputs = (np.zeros((len(reference), 1, 4), np.float32),)
    return ReferenceIO(inputs, (reference,), (inputs[0][:2],), (edges,), NAMES, 5e-7, 5e-7, "float64")


def reason(
    outputs: np.ndarray,
    edges: np.ndarray = EDGES,
    variant: Variant = FP16,
    simulation: Simulation | None = SIMULATED,
) -> str:
    verdict = judge_artifact(
        variant, "rt", made_references(), (outputs,), (edges,), None, Limits(), (), simulation
    )
    return verdict.reason or ""


def right(seed: int = 9) -> np.ndarray:
    """Outputs as far from the reference as the simulation, and elsewhere."""
    outputs: np.ndarray = REFERENCE + noise(seed, 1e-3)
    return outputs


def test_an_artifact_as_noisy_as_its_simulation_passes() -> None:
    """The artifact's values are others: rounding happens in other places."""
    assert [reason(right(seed)) for seed in range(5, 15)] == [""] * 10


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda y: y + noise(3, 3e-3), "its error is 3."),
        (lambda y: y * 1.001, "it is scaled"),
        (lambda y: y + 8e-4, "it is shifted"),
        (lambda y: y + 5.0e-3 * (np.arange(10) == 7) * np.sign(noise(4, 1.0)), "the error at 7 of axis 1"),
    ],
    ids=["loud", "scaled", "shifted", "one channel"],
)
def test_what_no_fixed_limit_sees_is_found(fault: object, words: str) -> None:
    """Every fault here leaves more than 48 dB."""
    faulty = fault(right())  # type: ignore[operator]
    assert reason(faulty, simulation=None) == ""
    assert words in reason(faulty)


def test_an_edge_input_is_judged_by_its_own_simulation() -> None:
    """The one that failed is named."""
    edges = EDGES + noise(8, 1e-3, EDGES.shape)
    assert reason(right(), edges) == ""
    for index, name in enumerate(NAMES):
        wrong = edges.copy()
        wrong[index] += 0.05
        assert f"On the edge input '{name}'" in reason(right(), wrong)


def test_a_choice_that_rounding_turns_in_one_sample_is_no_fault() -> None:
    """An index of a tie is another one here and in the simulation, in different samples."""
    outputs = right()
    outputs[3] += 0.03
    assert reason(outputs) == ""


def test_a_simulation_that_overflows_sets_no_limit() -> None:
    """The fixed limits are left, which an artifact at 60 dB keeps."""
    broken = (np.where(np.arange(10) == 3, np.inf, REFERENCE),)
    assert reason(REFERENCE * 1.003, simulation=replace(SIMULATED, outputs=broken)) == ""


def test_backends_that_sum_in_half_precision_have_a_wider_margin() -> None:
    """Core ML's accelerators do; four times as much is allowed there."""
    loud = REFERENCE + noise(3, 4e-3)
    assert "its error" in reason(loud)
    coreml = replace(W4, precision="fp16")
    assert reason(loud, variant=coreml) == ""
    assert "its error" in reason(REFERENCE + noise(3, 1e-2), variant=coreml)


def test_a_quantised_artifact_is_judged_by_what_its_program_costs() -> None:
    """The quantised program is the simulation: where it has 45 dB, a file of 30 dB is wrong."""
    level = 10 ** (-45 / 20)
    program = Lowering((REFERENCE + noise(1, level),), 60.0)

    def judged(outputs: np.ndarray) -> str:
        return (
            judge_artifact(INT8, "rt", made_references(), (outputs,), (EDGES,), program, Limits()).reason
            or ""
        )

    assert judged(program.outputs[0] + noise(2, level / 4)) == ""
    assert "a simulation puts at" in judged(REFERENCE + noise(2, 10 ** (-35 / 20)))


def test_the_derived_limit_is_shown() -> None:
    """In decibels, beside the fixed one."""
    verdict = judge_artifact(
        FP16, "rt", made_references(), (right(),), (EDGES,), None, Limits(), (), SIMULATED
    )
    assert verdict.limits["simulated_sqnr_db"] == pytest.approx(60, abs=1)
    assert verdict.limits["min_sqnr_db_from_simulation"] == pytest.approx(54, abs=1)


def test_a_simulation_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Edge inputs by name; another .npz is refused."""
    path = tmp_path / "fp16.simulated.npz"
    simulation_io.save_simulation(SIMULATED, path)
    again = simulation_io.load_simulation(path)
    np.testing.assert_array_equal(again.outputs[0], SIMULATED.outputs[0])
    assert again.edges.keys() == SIMULATED.edges.keys()
    np.testing.assert_array_equal(again.edges["zeros"][0], SIMULATED.edges["zeros"][0])
    np.savez(path, other=np.zeros(3))
    with pytest.raises(VerificationError, match=r"fp16\.simulated\.npz"):
        simulation_io.load_simulation(path)


@pytest.mark.parametrize(("times", "passes"), [(1.5, True), (4.0, False)])
def test_a_simulation_without_an_error_still_allows_half_a_unit(times: float, passes: bool) -> None:
    """Numbers that float16 holds exactly cost nothing in the simulation; an artifact may round once."""
    loud = 1000 * REFERENCE
    simulation = Simulation((loud,), {})
    level = times * 2.0**-13 * float(np.sqrt((loud**2).mean()))
    verdict = judge_artifact(
        FP16, "rt", made_references(loud), (loud + noise(3, level),), (EDGES,), None, Limits(), (), simulation
    )
    assert (verdict.status == "passed") == passes


@pytest.mark.parametrize("samples", [8, 12, 32])
@pytest.mark.parametrize("values", [1, 2, 10])
def test_chance_condemns_no_small_output(samples: int, values: int) -> None:
    """One number per sample, rounded elsewhere than in the simulation: its offset averages out over few."""
    for seed in range(60):
        shape = (samples, 1, values)
        random = np.random.default_rng(seed)
        reference, edges = random.uniform(0.3, 0.9, shape), random.uniform(0.3, 0.9, (2, 1, values))
        given = made_references(reference, edges)

        def rounded(y: np.ndarray, random: np.random.Generator = random) -> np.ndarray:
            values: np.ndarray = y + random.uniform(-(2.0**-11), 2.0**-11, y.shape)
            return values

        simulated: dict[str, Stacks] = {name: (rounded(edges[i : i + 1]),) for i, name in enumerate(NAMES)}
        simulation = Simulation((rounded(reference),), simulated)
        outputs = (rounded(reference),), (rounded(edges),)
        verdict = judge_artifact(FP16, "rt", given, *outputs, None, Limits(), (), simulation)
        assert verdict.reason is None, seed


@pytest.mark.parametrize("scale", [1 + 8e-4, 1 - 8e-4])
def test_core_ml_may_round_a_reciprocal(scale: float) -> None:
    """Its converter turns a division into a multiplication, whose constant rounds otherwise."""

    def interpreted(outputs: np.ndarray) -> str:
        coreml = replace(W4, precision="fp16")
        given = (made_references(), (outputs,), (EDGES,), None, Limits(), (), SIMULATED)
        return judge_artifact(coreml, "rt", *given, executor="reference interpreter").reason or ""

    assert "gain" in reason(right() * scale)
    assert interpreted(right() * scale) == ""
    assert "its error" in interpreted(right() * 1.01)
