"""Factor second moments, which sums in float32 may have left with eigenvalues a little below zero."""

from __future__ import annotations

import torch
from torch import Tensor

SHARE = 1e-5
"""The share of the mean of a matrix's diagonal that is added to it first, where it has no factor."""
MOST_SHARE = 1.0


def factor_of_moments(moments: Tensor) -> Tensor:
    """Return the lower Cholesky factor of each matrix.

    A matrix that has none gets as much more on its diagonal as it takes.

    Args:
        moments: Symmetric matrices in double precision, (groups, inputs, inputs).

    Raises:
        RuntimeError: A matrix is far from positive-definite, or has no finite values.
    """
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(moments)
    mean = moments.diagonal(dim1=1, dim2=2).abs().mean(1, keepdim=True)
    share = SHARE
    while failed.any() and share <= MOST_SHARE:
        added = torch.where(failed[:, None] > 0, share * mean, 0.0).expand(moments.shape[:2])
        damped, failed_still = torch.linalg.cholesky_ex(moments + torch.diag_embed(added))
        factor = torch.where((failed > 0)[:, None, None], damped, factor)
        failed, share = failed_still, 10 * share
    if failed.any():
        torch.linalg.cholesky(moments)  # raises, with the place
    return factor
