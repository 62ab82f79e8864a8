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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from exporter.quantize.moment_factor import factor_of_moments

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
    def of_columns(cls, columns: Iterable[tuple[Tensor, Tensor | None]]) -> LayerMoments:
        """Sum over the columns of a layer's inputs, sample by sample.

        Args:
            columns: Of each sample the rounded inputs, (groups, inputs, places), and what rounding took from
                them; None: nothing.
        """
        sums: list[Tensor] = []
        places = 0
        for rounded, lost in columns:
            if not sums:
                groups, inputs, _ = rounded.shape
                sums = [rounded.new_zeros(groups, inputs, size) for size in (inputs, inputs, 1, 1)]
            turned = rounded.transpose(1, 2)
            sums[0].baddbmm_(rounded, turned)  # adds in the pass that multiplies
            sums[2] += rounded.sum(2, keepdim=True)
            if lost is not None:
                sums[1].baddbmm_(lost, turned)
                sums[3] += lost.sum(2, keepdim=True)
            places += rounded.shape[2]
        products, lost_products, total, lost_total = (part.double() for part in sums)
        return cls(products, lost_products, total, lost_total, places)

    def of_outputs(self, weight: Tensor) -> LayerMoments:
        """Return the sums with what the layer's outputs lost instead of what its inputs lost.

        Args:
            weight: The weight of some of the layer's outputs, (groups, outputs, inputs).
        """
        return replace(self, lost_products=weight @ self.lost_products, lost=weight @ self.lost)

    def __add__(self, other: LayerMoments) -> LayerMoments:
        return self._with(other, 1)

    def __sub__(self, other: LayerMoments) -> LayerMoments:
        return self._with(other, -1)

    def _with(self, other: LayerMoments, sign: int) -> LayerMoments:
        return LayerMoments(
            torch.add(self.products, other.products, alpha=sign),
            torch.add(self.lost_products, other.lost_products, alpha=sign),
            self.total + sign * other.total,
            self.lost + sign * other.lost,
            self.places + sign * other.places,
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
    held_out = [fold.of_outputs(judged) for fold in folds]
    every = reduce(LayerMoments.__add__, held_out)
    regressions = [_LayerRegression.on_moments(every - fold) for fold in held_out]
    chosen, least, before = None, 0.0, math.inf
    for damping in DAMPINGS:
        error = sum(
            _error_of_layer_correction(fold, regression.fit(damping))
            for fold, regression in zip(held_out, regressions, strict=True)
        )
        if error < least:
            chosen, least = damping, error
        if error > before:
            break
        before = error
    if chosen is None:
        return None
    whole = replace(
        every,
        lost_products=weight @ reduce(torch.add, (fold.lost_products for fold in folds)),
        lost=weight @ reduce(torch.add, (fold.lost for fold in folds)),
    )
    return _LayerRegression.on_moments(whole).fit(chosen)


@dataclass(frozen=True, eq=False)
class _LayerRegression:
    """The ridge regression on some moments, prepared for several dampings."""

    moments: LayerMoments
    """Moments of outputs."""
    mean: Tensor
    """The inputs' mean, (groups, inputs, 1)."""
    products: Tensor
    """Inputs times inputs, both less their mean, (groups, inputs, inputs)."""
    right: Tensor
    """Lost outputs times inputs, both less their mean, (groups, inputs, outputs)."""
    diagonal: Tensor
    """The diagonal of `products` without damping, (groups, inputs)."""

    @classmethod
    def on_moments(cls, moments: LayerMoments) -> _LayerRegression:
        """Prepare the regression on moments of outputs."""
        mean = moments.total / moments.places
        products = torch.baddbmm(moments.products, moments.total, mean.transpose(1, 2), alpha=-1)
        right = torch.baddbmm(moments.lost_products, moments.lost, mean.transpose(1, 2), alpha=-1)
        diagonal = products.diagonal(dim1=1, dim2=2).clone()
        return cls(moments, mean, products, right.transpose(1, 2), diagonal)

    def fit(self, damping: float) -> LayerCorrection:
        """Return the correction; its bias is not damped."""
        lost = self.moments.lost / self.moments.places
        if not math.isfinite(damping):
            return LayerCorrection(torch.zeros_like(self.moments.lost_products), lost)
        square = self.moments.products.diagonal(dim1=1, dim2=2).mean(1, keepdim=True)
        share = self.diagonal.mean(1, keepdim=True).clamp(min=0)
        damped = self.products.diagonal(dim1=1, dim2=2)
        damped.copy_(self.diagonal + damping * share + ROUNDING * square + (square <= 0))  # zeros: any does
        change = torch.cholesky_solve(self.right, factor_of_moments(self.products)).transpose(1, 2)
        return LayerCorrection(change, lost - change @ self.mean)


def _error_of_layer_correction(moments: LayerMoments, correction: LayerCorrection) -> float:
    """Return the squared error of outputs at the places of their moments, less that without a correction."""
    change, bias = correction
    squares = ((change @ moments.products - 2 * moments.lost_products) * change).sum()
    biases = bias * (bias * moments.places + 2 * (change @ moments.total - moments.lost))
    return float(squares + biases.sum())
