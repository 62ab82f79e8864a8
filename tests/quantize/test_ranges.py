"""Ranges of least squared error."""

from __future__ import annotations

import torch

from exporter.quantize.ranges import VALUES, LeastSquaresObserver


def observer() -> LeastSquaresObserver:
    return LeastSquaresObserver(
        dtype=torch.int8, quant_min=-128, quant_max=127, qscheme=torch.per_tensor_affine, eps=2**-12
    )


def error(values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> float:
    steps = (torch.round(values / scale) + zero).clamp(-128, 127)
    return float(((steps - zero) * scale - values).square().sum())


def test_a_far_outlier_is_clipped() -> None:
    """The error on all values, most of which were not kept, is smaller than that of the full range."""
    values = torch.randn(50 * VALUES, generator=torch.Generator().manual_seed(1))
    values[7] = 30.0
    seen = observer()
    for part in values.reshape(50, -1):
        assert seen(part) is part
    scale, zero = seen.calculate_qparams()
    full = seen._calculate_qparams(values.min(), values.max())
    assert scale < 0.9 * full[0]
    assert error(values, scale, zero) < 0.9 * error(values, *full)


def test_even_values_keep_their_range() -> None:
    """Nothing is clipped where that only loses."""
    values = torch.linspace(-1, 3, 4000)
    seen = observer()
    seen(values)
    scale, _ = seen.calculate_qparams()
    torch.testing.assert_close(scale, torch.tensor([4 / 255]))


def test_it_is_the_same_each_time() -> None:
    """Which values are kept does not depend on the process' random state."""
    found = []
    for seed in range(2):
        torch.manual_seed(seed)
        seen = observer()
        seen(torch.linspace(-1, 1, 10 * VALUES) ** 5)
        found.append((seen.calculate_qparams(), seen._drawn))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1][0], found[1][1][0])


def test_zeros_have_a_scale() -> None:
    """A dead layer, and one that never ran, can be quantised."""
    seen = observer()
    seen(torch.zeros(4))
    for one in (seen, observer()):
        scale, zero = one.calculate_qparams()
        assert scale > 0
        assert -128 <= zero <= 127
