"""Tests of ranges that cost the outputs least."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from exporter.quantize import activation_ranges
from exporter.quantize.activation_ranges import RangeObserver


def observer() -> RangeObserver:
    return RangeObserver(
        dtype=torch.int8, quant_min=-128, quant_max=127, qscheme=torch.per_tensor_affine, eps=2**-12
    )


class Weighted(nn.Module):
    """Sums its input with a weight per value, after an observer."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.watch = observer()
        self.weights = nn.Parameter(weights)

    def forward(self, x: Tensor) -> Tensor:
        return self.watch(x) @ self.weights.reshape(-1, 1)  # type: ignore[no-any-return]


class Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Observers stay calls of modules, as PT2E has them."""
        return isinstance(m, RangeObserver)


def parts_of(weights: Tensor, samples: Tensor) -> tuple[float, float]:
    """Return the parts that `choose` sets for an input with these weights."""
    net = Weighted(weights)
    module = fx.GraphModule(net, Tracer().trace(net))
    calls = [(sample[None],) for sample in samples]
    for call in calls:
        module(*call)
    activation_ranges.choose_activation_ranges(module, calls)
    chosen = module.watch
    assert isinstance(chosen, RangeObserver)
    return chosen.parts


def samples_with_outlier() -> Tensor:
    values = torch.randn(8, 400, generator=torch.Generator().manual_seed(1))
    values[:, 7] = 40.0
    return values


def test_an_outlier_that_does_not_matter_is_clipped() -> None:
    """The range fits the values that the output depends on."""
    weights = torch.ones(400)
    weights[7] = 0.0
    assert parts_of(weights, samples_with_outlier())[1] < 0.3


def test_an_outlier_that_matters_is_kept() -> None:
    """Nothing is clipped when the output is mostly the outlier."""
    weights = torch.full((400,), 0.01)
    weights[7] = 1.0
    assert parts_of(weights, samples_with_outlier())[1] == 1.0


def test_probes_that_are_too_large_to_keep_choose_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ends are refined by the same probes, kept or made anew, and refining them matters here."""
    weights = torch.ones(400)
    weights[[7, 8]] = 0.0
    samples = samples_with_outlier()
    samples[:, 8] = -8.0
    kept = parts_of(weights, samples)
    monkeypatch.setattr(activation_ranges, "MOST_KEPT", 0)
    assert parts_of(weights, samples) == kept
    monkeypatch.setattr(activation_ranges._ProbesTwice, "second", lambda probes: iter([]))
    assert parts_of(weights, samples) != kept


def test_what_is_best_is_widened(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best range is widened, because unseen inputs reach further."""
    weights = torch.ones(400)
    weights[7] = 0.0
    wide = parts_of(weights, samples_with_outlier())[1]
    monkeypatch.setattr(activation_ranges, "MARGIN", 1.0)
    assert wide == pytest.approx(1.35 * parts_of(weights, samples_with_outlier())[1])


def test_values_are_clipped_to_the_chosen_part() -> None:
    """Clipping keeps what the range holds as it is, and moves the rest to the range's ends."""
    watch = observer()
    watch(torch.linspace(-4.0, 8.0, 100))
    watch.parts = (0.5, 0.25)
    clipped = watch.clipping()(torch.tensor([-3.0, -1.234, 0.0, 1.567, 7.0]))
    assert clipped[1:4].tolist() == pytest.approx([-1.234, 0.0, 1.567])
    assert clipped[[0, 4]].tolist() == pytest.approx([-2.0, 2.0], abs=0.02)


def test_zeros_have_a_scale() -> None:
    """A dead layer, and one that never ran, can be quantised."""
    seen = observer()
    seen(torch.zeros(4))
    for observed in (seen, observer()):
        scale, zero = observed.calculate_qparams()
        assert scale > 0
        assert -128 <= zero <= 127


class Shared(Weighted):
    """Returns the observed tensor and its mean, which shares the observer and matters 100 times as much."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 100 * self.watch(x.mean(1, keepdim=True))  # type: ignore[no-any-return]


def test_tensors_with_one_observer_get_one_range_that_suits_both() -> None:
    """The mean's own range would clip the tensor that it averages."""
    net = Shared(torch.ones(400))
    module = fx.GraphModule(net, Tracer().trace(net))
    calls = [(sample[None],) for sample in torch.linspace(-9, 9, 8)[:, None] + torch.randn(8, 400)]
    for call in calls:
        module(*call)
    (shared,) = activation_ranges._activation_ranges_by_observer(module)
    assert {node.name for node in shared.tensors} == {"x", "mean"}
    activation_ranges.choose_activation_ranges(module, calls)
    assert min(shared.observers[0].parts) > 0.6
