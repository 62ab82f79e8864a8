"""Tests of how far outputs may reach on scenes that calibration did not show."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from exporter.quantize import output_reach
from exporter.quantize.activation_ranges import RangeObserver
from exporter.quantize.int8_recipe import Int8Program, int8_recipe_runner, quantize_by_static_int8_recipe


def observer(extremes: list[tuple[float, float]]) -> RangeObserver:
    """Return an observer that saw these extremes, one call after the other."""
    seen = RangeObserver(
        dtype=torch.int8, quant_min=-128, quant_max=127, qscheme=torch.per_tensor_affine, eps=2**-12
    )
    for low, high in extremes:
        seen(torch.tensor([low, high]))
    return seen


def test_outputs_of_unlike_scenes_get_more_room() -> None:
    """The more scenes differ in reach, the more is added: from nothing to one bit."""
    alike, unlike, wild = (
        [(-1.0, high) for high in ends] for ends in ([5] * 8, [3, 4, 5, 6] * 2, [0.1] * 7 + [9])
    )
    factors = [output_reach.reach_of_outputs([observer(ends)], range(8)) for ends in (alike, unlike, wild)]
    assert [low for low, _ in factors] == [1.0] * 3
    assert factors[0][1] == 1.0
    assert 1.2 < factors[1][1] < 1.6
    assert factors[2][1] == output_reach.MOST


@pytest.mark.parametrize("count", [8, 60])
def test_the_range_holds_scenes_to_come(count: int) -> None:
    """It holds 96 of 100 exponentially distributed scenes to come; what eight scenes show holds fewer."""
    generator = torch.Generator().manual_seed(count)
    wide: list[float] = []
    narrow: list[float] = []
    for _ in range(40):
        scenes = 10 - 2 * torch.rand(count + 128, generator=generator).log()
        seen = observer([(0.0, float(high)) for high in scenes[:count]])
        _, factor = output_reach.reach_of_outputs([seen], range(count))
        for shares, reach in ((wide, factor), (narrow, 1.0)):
            shares.append(float((scenes[count:] <= reach * float(seen.high)).float().mean()))
    assert sum(wide) / 40 > 0.96
    assert sum(narrow) / 40 < 0.92 or count == 60


def test_frames_of_a_scene_are_one_scene() -> None:
    """Eight samples of two scenes promise as much room as two samples, and those of one scene none."""
    frames = observer([(0.0, high) for high in (5.0, 5.0, 4.0, 3.0, 7.0, 7.0, 7.0, 1.0)])
    two = output_reach.reach_of_outputs([observer([(0.0, 5.0), (0.0, 7.0)])], [0, 1])
    assert output_reach.reach_of_outputs([frames], [0, 0, 0, 0, 1, 1, 1, 1]) == two
    assert output_reach.reach_of_outputs([frames], [0] * 8) == (1.0, 1.0)


class Classifier(nn.Module):
    """Compares its input with patterns of signs; the last two differ in the weight of one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 8, bias=False)
        patterns = torch.randint(0, 2, (8, 16), generator=torch.Generator().manual_seed(1)) * 2.0 - 1
        patterns[6] = patterns[7]
        patterns[6, 0] *= 0.3
        self.layer.weight = nn.Parameter(patterns)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).unsqueeze(1).flatten(1)  # type: ignore[no-any-return]


def test_two_large_classes_of_an_unseen_scene_stay_two() -> None:
    """A scene reaches a quarter further than those of calibration; its two likeliest classes are no tie."""
    generator = torch.Generator().manual_seed(0)
    calls = [(torch.randn(1, 16, generator=generator) * reach,) for reach in (2, 3, 3, 4, 2, 3, 4, 3)]
    network = Classifier().eval()
    furthest = max(float(network(*call).max()) for call in calls)
    program = torch.export.export(network, calls[0])
    quantized: Int8Program = quantize_by_static_int8_recipe(program, calls)
    unseen = network.layer.weight[7:].sign().detach() * furthest / 16 * 1.25
    (outputs,) = int8_recipe_runner(quantized.module)((unseen.numpy(),))
    assert outputs.argmax() == 7
    assert outputs[0, 7] > outputs[0, 6]
