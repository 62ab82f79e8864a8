"""Tests of corrections for rounded inputs, which held-out scenes must confirm."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from exporter.quantize import int8_recipe, layer_correction, scene_folds
from exporter.quantize.layer_correction import LayerMoments

GROUPS, OUTPUTS, INPUTS, PLACES = 2, 5, 12, 400


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def weight() -> Tensor:
    return random(1, GROUPS, OUTPUTS, INPUTS)


def exact(seed: int) -> Tensor:
    """Return the inputs of a scene, whose channels go together as a network's do."""
    mixing = random(2, GROUPS, INPUTS, 3)
    return mixing @ random(seed, GROUPS, 3, PLACES) + 0.05 * random(seed + 100, GROUPS, INPUTS, PLACES)


def rounded(seed: int) -> Tensor:
    return (exact(seed) / 0.8).round() * 0.8


def moments_of(rounded: Tensor, exact: Tensor) -> LayerMoments:
    """Return the moments of one sample's rounded and float inputs."""
    return LayerMoments.of_columns([(rounded, exact - rounded)])


def folds(lose: dict[int, Tensor] | None = None) -> list[LayerMoments]:
    """Return the moments of four scenes; `lose` says what their rounded inputs lack, instead of rounding."""
    return [moments_of(exact(seed) - lose[seed] if lose else rounded(seed), exact(seed)) for seed in range(4)]


@pytest.mark.parametrize("choosing", [1, 128])
def test_a_correction_lowers_the_error_on_a_scene_that_it_never_saw(
    choosing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding noise in directions that inputs hardly use is taken back, whoever chose the damping."""
    monkeypatch.setattr(layer_correction, "MOST_OUTPUTS", choosing)
    correction = layer_correction.find_layer_correction(weight(), folds())
    assert correction is not None
    expected, seen = weight() @ exact(9), rounded(9)
    plain = (weight() @ seen - expected).square().sum()
    corrected = (weight() + correction.weight.float()) @ seen + correction.bias.float()
    assert (corrected - expected).square().sum() < 0.7 * plain


def test_a_mean_error_goes_into_the_bias_alone() -> None:
    """Where inputs lack a constant, the weights stay as they are."""
    lack = random(3, GROUPS, INPUTS, 1).expand(-1, -1, PLACES)
    correction = layer_correction.find_layer_correction(weight(), folds(dict.fromkeys(range(4), lack)))
    assert correction is not None
    torch.testing.assert_close(correction.bias.float(), weight() @ lack[..., :1], rtol=1e-3, atol=1e-3)
    assert correction.weight.abs().max() < 1e-3


def test_what_one_scene_alone_shows_is_not_learnt() -> None:
    """An error that is constant in a scene, and another in every scene, corrects nothing."""
    lack = {seed: random(seed + 20, GROUPS, INPUTS, 1).expand(-1, -1, PLACES) for seed in range(4)}
    scattered = [layer_correction.find_layer_correction(weight(), folds({**lack, 0: -sum_of(lack)}))]
    assert scattered == [None]


def sum_of(lack: dict[int, Tensor]) -> Tensor:
    return sum((lack[seed] for seed in (1, 2, 3)), torch.zeros(GROUPS, INPUTS, PLACES))


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_scenes_confirm_nothing(count: int) -> None:
    """A layer stays as it is where no other scene can judge."""
    assert layer_correction.find_layer_correction(weight(), folds()[:count]) is None


HARDLY_VARYING: dict[str, Callable[[Tensor], Tensor]] = {
    "a large offset": lambda x: 300 + 1e-5 * x,
    "a constant": lambda x: torch.full_like(x, 7.0),
    "zeros": torch.zeros_like,
    "one channel varies, far from zero": lambda x: (
        torch.cat([x[:, :1], torch.full_like(x[:, 1:], 50.0)], 1) + 100
    ),
    "two equal channels": lambda x: torch.cat([x[:, :1]] * INPUTS, 1),
    "tiny values": lambda x: 1e-12 * x,
}


@pytest.mark.parametrize("name", HARDLY_VARYING)
def test_inputs_that_hardly_vary_leave_weights_finite(name: str) -> None:
    """Sums of such inputs are no more accurate than float32: no matrix of them can be solved as it is."""
    scenes = [HARDLY_VARYING[name](exact(seed)) for seed in range(4)]
    moments = [moments_of(x + 0.01 * rounded(seed), x) for seed, x in enumerate(scenes)]
    correction = layer_correction.find_layer_correction(weight(), moments)
    assert correction is None or all(change.isfinite().all() for change in correction)


def test_a_dozen_places_correct_nothing() -> None:
    """As few held-out places confirm by chance: a classifier's last layer has one for each sample."""
    few = [exact(seed)[..., :3] for seed in range(4)]
    moments = [moments_of(0.9 * x - 1, x) for x in few]
    assert layer_correction.find_layer_correction(weight(), moments) is None


@pytest.mark.parametrize("scenes", [(0, 0, 0, 0), (0, 1, 0, 1), (7, 3, 3, 5, 9, 11, 3), tuple(range(20))])
def test_folds_share_no_scene(scenes: tuple[int, ...]) -> None:
    """A scene is in one fold, every sample is in one, and there are four folds if possible."""
    parts = scene_folds.folds_of_scenes(scenes)
    assert sorted(place for part in parts for place in part) == list(range(len(scenes)))
    assert len(parts) == min(4, len(set(scenes)))
    of = [{scenes[place] for place in part} for part in parts]
    assert sum(map(len, of)) == len(set().union(*of))


def test_the_error_is_what_the_sums_say() -> None:
    """The error that a correction is chosen by equals the one that is computed place by place."""
    moments = folds()[0]
    correction = layer_correction.LayerCorrection(0.1 * random(5, GROUPS, OUTPUTS, INPUTS).double(),
                                           random(6, GROUPS, OUTPUTS, 1).double())  # fmt: skip
    expected = weight().double() @ exact(0).double()
    plain = weight().double() @ rounded(0).double() - expected
    corrected = plain + correction.weight @ rounded(0).double() + correction.bias
    difference = corrected.square().sum() - plain.square().sum()
    error = layer_correction._error_of_layer_correction(moments.of_outputs(weight().double()), correction)
    assert error == pytest.approx(float(difference), rel=1e-4)


def test_moments_of_samples_are_the_sums_over_their_places() -> None:
    """The sums of several samples, added to others and taken away again, are those of all places at once."""
    samples = [(rounded(seed), exact(seed) - rounded(seed)) for seed in range(3)]
    moments = LayerMoments.of_columns(samples) + folds()[3] - folds()[3]
    seen, lost = (torch.cat(parts, 2).double() for parts in zip(*samples, strict=True))
    assert moments.places == 3 * PLACES
    for actual, expected in (
        (moments.products, seen @ seen.transpose(1, 2)),
        (moments.lost_products, lost @ seen.transpose(1, 2)),
        (moments.total, seen.sum(2, keepdim=True)),
        (moments.lost, lost.sum(2, keepdim=True)),
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-2)
    nothing = LayerMoments.of_columns([(rounded(0), None)])
    assert not nothing.lost_products.any()
    assert not nothing.lost.any()


class Layers(torch.nn.Module):
    """Two convolutions and an activation, or the first convolution twice."""

    def __init__(self, again: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(4, 4, 1)
        self.last = self.first if again else torch.nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.first(x).relu())
        return y


def changed_biases(scenes: tuple[int, ...], again: bool) -> bool:
    """Return whether an int8 program's biases are others than with calls of one scene."""
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(4, 2, generator=generator)
    calls = [((mixing @ torch.randn(2, 256, generator=generator)).reshape(1, 4, 16, 16),) for _ in scenes]
    program = torch.export.export(Layers(again).eval(), calls[0])
    plain, corrected = (
        dict(int8_recipe.quantize_by_static_int8_recipe(program, calls, of).module.named_parameters())
        for of in ((0,) * len(scenes), scenes)
    )
    names = [name for name in plain if name.endswith("bias")]
    return any(not torch.equal(plain[name], corrected[name]) for name in names)


@pytest.mark.parametrize(
    ("scenes", "again", "changed"), [((0, 1) * 4, False, True), ((0, 1) * 4, True, False)]
)
def test_scenes_correct_layers_with_weights_of_their_own(
    scenes: tuple[int, ...], again: bool, changed: bool
) -> None:
    """Two scenes correct what one does not; a bias that two layers share stays as it is."""
    assert changed_biases(scenes, again) == changed
