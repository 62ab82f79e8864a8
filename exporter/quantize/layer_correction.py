"""Correct a layer's weights and bias for the error of its rounded inputs, as held-out scenes confirm.

A layer of an int8 network gets rounded inputs Q instead of X. The ridge regression of its float output W X on
what it really gets, W + W (X - Q) Q' (Q Q' + damping)^-1, takes back the part of the error that goes with the
inputs. Without care it learns the calibration scenes by heart. So the damping is chosen by cross-validation:
what is fitted on some scenes is judged on the others, from strong damping (the bias alone) to weak, and the
search stops where the others get worse. Where nothing helps on them, the layer stays as it is.

The regression is that of GPTAQ (Li et al., "GPTAQ: Efficient Finetuning-Free Quantization for Asymmetric
Calibration", 2025), whose damping is fixed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

DAMPINGS = (math.inf, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
"""Shares of the mean diagonal that are added to it, in order of trial; infinite corrects the bias alone."""

LEAST_PLACES = 256
"""Layers with fewer places in all samples are not corrected. A classifier's last layer has one place for each
sample: a dozen held-out ones confirm by chance."""

ROUNDING = 1e-5
"""Share of the inputs' mean square that is always added: sums in float32 are no more accurate than that, and
inputs that hardly vary leave no matrix that can be solved."""

MOST_OUTPUTS = 128
"""About as many of a layer's outputs choose the damping; the correction is of all of them."""

MOST_INPUTS = 1280
"""Layers with more inputs per output are not corrected: the work grows with the third power."""


class LayerCorrection(NamedTuple):
    """The changes of a layer's weight, (groups, outputs, inputs), and of its bias, (groups, outputs, 1)."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True, eq=False)
class LayerMoments:
    """Sums over places of a layer's rounded inputs, and of what rounding took from them; a group each."""

    products: Tensor
    """Inputs times inputs, (groups, inputs, inputs)."""
    lost_products: Tensor
    """Float minus rounded inputs, times rounded inputs, (groups, inputs, inputs)."""
    total: Tensor
    """Rounded inputs, (groups, inputs, 1)."""
    lost: Tensor
    """Float minus rounded inputs, (groups, inputs, 1)."""
    places: int

    @classmethod
    def of_columns(cls, rounded: Tensor, exact: Tensor | None) -> LayerMoments:
        """Sum over the columns of a layer's inputs, (groups, inputs, places). None: nothing was lost."""
        transposed = rounded.transpose(1, 2)
        products, total = (rounded @ transposed).double(), rounded.sum(2, keepdim=True).double()
        if exact is None:
            return cls(products, torch.zeros_like(products), total, torch.zeros_like(total), rounded.shape[2])
        lost = exact - rounded
        return cls(
            products,
            (lost @ transposed).double(),
            total,
            lost.sum(2, keepdim=True).double(),
            rounded.shape[2],
        )

    def __add__(self, other: LayerMoments) -> LayerMoments:
        return LayerMoments(
            self.products + other.products,
            self.lost_products + other.lost_products,
            self.total + other.total,
            self.lost + other.lost,
            self.places + other.places,
        )


def find_layer_correction(weight: Tensor, folds: Sequence[LayerMoments]) -> LayerCorrection | None:
    """Return the correction that held-out folds confirm; None where none lowers their error.

    Args:
        weight: The layer's float weight, (groups, outputs, inputs).
        folds: The moments of the layer's inputs on some scenes each; no scene is in two.
    """
    places = sum(fold.places for fold in folds)
    if len(folds) < 2 or places < LEAST_PLACES or weight.shape[2] > MOST_INPUTS:
        return None
    weight = weight.double()
    judged = weight[:, :: max(1, weight.shape[1] // MOST_OUTPUTS)]
    pairs = [(sum_of_layer_moments([*folds[:k], *folds[k + 1 :]]), folds[k]) for k in range(len(folds))]
    chosen, least, before = None, 0.0, math.inf
    for damping in DAMPINGS:
        error = sum(
            _error_of_layer_correction(judged, held_out, _fitted_layer_correction(judged, fitted, damping))
            for fitted, held_out in pairs
        )
        if error < least:
            chosen, least = damping, error
        if error > before:
            break
        before = error
    return None if chosen is None else _fitted_layer_correction(weight, sum_of_layer_moments(folds), chosen)


def sum_of_layer_moments(folds: Sequence[LayerMoments]) -> LayerMoments:
    """Add up the sums of parts of the places."""
    return reduce(LayerMoments.__add__, folds)


def _fitted_layer_correction(weight: Tensor, moments: LayerMoments, damping: float) -> LayerCorrection:
    """Return the ridge regression on the moments, with a bias of its own that is not damped."""
    change = torch.zeros_like(weight)
    mean, lost = moments.total / moments.places, moments.lost / moments.places
    if math.isfinite(damping):
        products = moments.products - moments.total @ mean.transpose(1, 2)
        right = weight @ (moments.lost_products - moments.lost @ mean.transpose(1, 2))
        diagonal = products.diagonal(dim1=1, dim2=2)
        square = moments.products.diagonal(dim1=1, dim2=2).mean(1, keepdim=True)
        share = diagonal.mean(1, keepdim=True).clamp(min=0)
        diagonal += damping * share + ROUNDING * square + (square <= 0)  # inputs of zeros: any number does
        change = torch.cholesky_solve(right.transpose(1, 2), torch.linalg.cholesky(products)).transpose(1, 2)
    return LayerCorrection(change, weight @ lost - change @ mean)


def _error_of_layer_correction(weight: Tensor, moments: LayerMoments, correction: LayerCorrection) -> float:
    """Return the squared error of the layer's outputs at the places, less that without a correction."""
    change, bias = correction
    squares = ((change @ moments.products - 2 * weight @ moments.lost_products) * change).sum()
    biases = bias * (bias * moments.places + 2 * (change @ moments.total - weight @ moments.lost))
    return float(squares + biases.sum())
