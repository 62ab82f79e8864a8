"""Choose the range of each activation that costs the outputs least, for PT2E.

An int8 range is a trade-off: a wide one clips nothing and rounds coarsely. Which is better for a tensor
depends on what its values do to the output, which `probes` tells: shrunken copies of the observed range are
tried, both ends alike or one of them, then each end again. Photos that were not seen reach further than those
that were, so the best part is widened: without, MobileNetV2 loses 2.3 dB on such photos. Outputs are never
clipped (`output_reach`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torchao.quantization.pt2e.observer import UniformQuantizationObserverBase

from exporter.quantize import output_reach
from exporter.quantize.error_probes import Probe, make_error_probes
from exporter.quantize.graphs import spread_graph_samples

PARTS = (1.0, 0.8, 0.6, 0.45, 0.3, 0.2, 0.15, 0.1)
"""The parts of the full range to try."""

MARGIN = 1.35
"""The factor by which the best range is widened; only an output's range exceeds the observed one."""

MOST_SAMPLES = 16
"""How many calibration samples the parts are tried on; the full range comes from all of them."""

MOST_KEPT = 2**26
"""How many numbers of probes are kept for a second use, 256 MB; larger ones are computed again."""

Parts = tuple[float, float]
"""The parts of the lower and of the upper end."""


class RangeObserver(UniformQuantizationObserverBase):  # type: ignore[misc]
    """An observer of the extremes of its input; `choose_activation_ranges` sets the part of them to use."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.low, self.high = torch.tensor(0.0), torch.tensor(0.0)
        self.extremes: list[tuple[float, float]] = []
        """The extremes of each call."""
        self.parts: Parts = (1.0, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Record the extremes; return `x` unchanged."""
        low, high = x.detach().aminmax()
        self.extremes.append((float(low), float(high)))
        self.low, self.high = torch.minimum(self.low, low.float()), torch.maximum(self.high, high.float())
        return x

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Return scale and zero point, one element each."""
        return self.at(self.parts)

    def clipping(self) -> Callable[[Tensor], Tensor]:
        """Return a function that clips a tensor to the chosen range, not rounded."""
        grid = _RangeGrid.of(self, self.parts)
        return partial(torch.clamp, min=grid.first * grid.scale, max=grid.last * grid.scale)

    def at(self, parts: Parts) -> tuple[Tensor, Tensor]:
        """Return scale and zero point of a part of the range."""
        scale, zero = self._calculate_qparams(self.low * parts[0], self.high * parts[1])
        return scale, zero


@dataclass(frozen=True, eq=False)
class _Range:
    """Tensors that share a range, and the observers that hold it."""

    tensors: frozenset[fx.Node]
    observers: tuple[RangeObserver, ...]

    def grids(self, parts: Sequence[Parts]) -> list[_RangeGrid]:
        """Return the grid of each choice of parts."""
        return [_RangeGrid.of(self.observers[0], part) for part in parts]

    def cost(self, probes: Mapping[fx.Node, Probe], grid: _RangeGrid) -> float:
        """Return the cost of rounding to a grid for one sample."""
        probes_here = [probes[node] for node in self.tensors if node in probes]
        return sum(probe.cost(grid.error(probe.value)) for probe in probes_here)


@dataclass(frozen=True)
class _RangeGrid:
    """The values that an int8 tensor can have: `scale` times the whole numbers from `first` to `last`."""

    scale: float
    first: int
    last: int

    @classmethod
    def of(cls, observer: RangeObserver, parts: Parts) -> _RangeGrid:
        scale, zero = observer.at(parts)
        return cls(float(scale), observer.quant_min - int(zero), observer.quant_max - int(zero))

    def error(self, value: Tensor) -> Tensor:
        """Return the rounding error. Operations in place make this faster than torch's fake quantisation."""
        steps = (value / self.scale).round_().clamp_(self.first, self.last)
        return steps.mul_(self.scale).sub_(value)


def choose_activation_ranges(
    prepared: fx.GraphModule, samples: Sequence[tuple[Tensor, ...]], scenes: Sequence[int] = ()
) -> None:
    """Set the parts of every `RangeObserver` of a prepared module that has seen all samples, in order.

    Args:
        prepared: The module.
        samples: One call of the model each.
        scenes: The scene of each call; empty where each is a scene of its own.
    """
    ranges = _activation_ranges_by_observer(prepared)
    few = spread_graph_samples(samples, MOST_SAMPLES)
    signed = [group for group in ranges if _is_activation_range_signed(group.observers[0])]
    probes = _ProbesTwice(prepared, few, _tensors_of_ranges(signed))
    first = {group: _first_activation_ranges(group.observers[0]) for group in ranges}
    best = _best_activation_ranges(first, probes.first(_tensors_of_ranges(ranges)))
    around = {group: _activation_ranges_around(best[group]) for group in signed}
    best |= _best_activation_ranges(around, probes.second())
    returned = output_reach.returned_tensors(prepared)
    for group, parts in best.items():
        widened = _widen_activation_range(parts)
        if group.tensors & returned:
            widened = output_reach.reach_of_outputs(group.observers, scenes or range(len(samples)))
        for observer in group.observers:
            observer.parts = widened


def _widen_activation_range(parts: Parts) -> Parts:
    return min(1.0, parts[0] * MARGIN), min(1.0, parts[1] * MARGIN)


def _activation_ranges_by_observer(prepared: fx.GraphModule) -> list[_Range]:
    """Group tensors that share an observer, such as an average and its input."""
    at: dict[fx.Node, set[RangeObserver]] = defaultdict(set)
    for node in prepared.graph.nodes:
        if node.op == "call_module":
            observer = prepared.get_submodule(str(node.target))
            if isinstance(observer, RangeObserver):
                at[node.args[0]].add(observer)
    ranges: list[_Range] = []
    for tensor, observers in at.items():
        sharing = [shared for shared in ranges if observers & set(shared.observers)]
        ranges = [shared for shared in ranges if shared not in sharing]
        tensors = frozenset({tensor}.union(*(shared.tensors for shared in sharing)))
        ranges.append(_Range(tensors, tuple(observers.union(*(shared.observers for shared in sharing)))))
    return ranges


def _is_activation_range_signed(observer: RangeObserver) -> bool:
    return float(observer.low) < 0 < float(observer.high)


def _first_activation_ranges(observer: RangeObserver) -> list[Parts]:
    """List the parts to try first: both ends shrunk alike, or one of them alone."""
    alike = [(p, p) for p in PARTS]
    return (
        [*alike, *((1.0, p) for p in PARTS), *((p, 1.0) for p in PARTS)]
        if _is_activation_range_signed(observer)
        else alike
    )


def _activation_ranges_around(parts: Parts) -> list[Parts]:
    """List the same parts, and those with any part of one end."""
    return list(dict.fromkeys([parts, *((p, parts[1]) for p in PARTS), *((parts[0], p) for p in PARTS)]))


class _ProbesTwice:
    """Probes of all tensors, and then those of a few again: kept where they are small, or made anew."""

    def __init__(
        self, prepared: fx.GraphModule, samples: Sequence[tuple[Tensor, ...]], again: Sequence[fx.Node]
    ) -> None:
        self._prepared = prepared
        self._samples = samples
        self._again = again
        self._kept: list[dict[fx.Node, Probe]] | None = []

    def first(self, tensors: Sequence[fx.Node]) -> Iterator[dict[fx.Node, Probe]]:
        """Yield the probes of all tensors, sample by sample."""
        for probes in make_error_probes(self._prepared, tensors, self._samples):
            few = {node: probes[node] for node in self._again if node in probes}
            size = sum(probe.value.numel() + probe.gradients.numel() for probe in few.values())
            if self._kept is None or size * len(self._samples) > MOST_KEPT:
                self._kept = None
            else:
                self._kept.append(few)
            yield probes

    def second(self) -> Iterator[dict[fx.Node, Probe]]:
        """Yield the same probes of the few tensors, sample by sample; after `first`."""
        if self._kept is not None:
            yield from self._kept
        elif self._again:
            yield from make_error_probes(self._prepared, self._again, self._samples)


def _tensors_of_ranges(ranges: Sequence[_Range]) -> list[fx.Node]:
    return [tensor for group in ranges for tensor in group.tensors]


def _best_activation_ranges(
    candidates: Mapping[_Range, Sequence[Parts]], probes: Iterable[Mapping[fx.Node, Probe]]
) -> dict[_Range, Parts]:
    """Return each range's cheapest candidate over all samples' probes; the first where outputs ignore it."""
    grids = {group: group.grids(parts) for group, parts in candidates.items()}
    costs = {group: [0.0] * len(parts) for group, parts in candidates.items()}
    for of_sample in probes:
        for group, here in grids.items():
            costs[group] = [
                total + group.cost(of_sample, grid) for total, grid in zip(costs[group], here, strict=True)
            ]
    return {group: candidates[group][min(range(len(c)), key=c.__getitem__)] for group, c in costs.items()}
