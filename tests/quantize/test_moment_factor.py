"""Second moments are factored although sums in float32 have left them a little indefinite."""

from __future__ import annotations

import pytest
import torch

from exporter.quantize.layer_correction import LayerMoments, find_layer_correction
from exporter.quantize.moment_factor import factor_of_moments


def matrix(*eigenvalues: float) -> torch.Tensor:
    torch.manual_seed(0)
    turn, _ = torch.linalg.qr(torch.randn(len(eigenvalues), len(eigenvalues), dtype=torch.float64))
    whole: torch.Tensor = turn @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ turn.T
    return whole


@pytest.mark.parametrize("least", [-1e-9, -1e-6, -1e-4, 0.0])
def test_small_negative_eigenvalues_are_lifted(least: float) -> None:
    """The factor is that of nearly the same matrix; a matrix that has one keeps its own exactly."""
    sound = matrix(3.0, 2.0, 1.0)
    moments = torch.stack([sound, matrix(3.0, 2.0, least)])
    factor = factor_of_moments(moments)
    torch.testing.assert_close(factor[0], torch.linalg.cholesky(sound), rtol=0, atol=0)
    torch.testing.assert_close(factor @ factor.transpose(1, 2), moments, rtol=0, atol=max(1e-2, -20 * least))


@pytest.mark.parametrize("wrong", [matrix(3.0, 2.0, -9.0), torch.full((2, 2), float("nan")).double()])
def test_what_are_no_moments_is_refused(wrong: torch.Tensor) -> None:
    """A matrix far from positive-definite is an error, not a result."""
    with pytest.raises(RuntimeError, match="cholesky"):
        factor_of_moments(wrong[None])


def test_inputs_of_few_directions_are_corrected() -> None:
    """Inputs far from zero that vary in two of forty directions give a finite correction, or none."""
    torch.manual_seed(0)
    folds = []
    for _ in range(3):
        ways = torch.randn(2, 4000) * 1e-3
        inputs = (torch.ones(40, 1) * 30 + torch.randn(40, 2) @ ways)[None]
        folds.append(LayerMoments.of_columns([(inputs, torch.randn_like(inputs) * 1e-3)]))
    found = find_layer_correction(torch.randn(1, 8, 40), folds)
    assert found is None or all(part.isfinite().all() for part in found)
