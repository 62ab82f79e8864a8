"""Every channel against its own variation, on made-up outputs of many kinds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2, f

from exporter.records import Array, Variant
from exporter.verify.channel_groups import group_channels
from exporter.verify.noise_by_chance import noise_by_chance, noise_ratio_by_chance, quiet_noise_by_chance
from tests.variants import FP16, FP32, INT8
from tests.verify.observed import fp16, int8, judged, made_references

PRECISIONS = {"fp16": FP16, "int8": INT8}


def detector(samples: int = 32, anchors: int = 50, classes: int = 6, seed: int = 0) -> Array:
    """Boxes in pixels and class scores in one tensor, [N, 1, 4 + classes, anchors]."""
    random = np.random.default_rng(seed)
    grid = random.uniform(50, 600, (1, 1, 4, anchors))
    boxes = grid + 20 * random.normal(size=(samples, 1, 4, anchors))
    scores = random.uniform(size=(samples, 1, classes, anchors)) ** 8
    return np.concatenate([boxes, scores], axis=2)


@pytest.mark.parametrize("transposed", [False, True])
def test_scores_that_boxes_drown_fail_by_name(transposed: bool) -> None:
    """One 8-bit range for boxes and scores leaves of each score 0 or a step of 2.6: in either orientation."""
    y = detector()
    y = y.swapaxes(2, 3) if transposed else y
    references = made_references(y, names=["boxes"])
    verdict = judged(INT8, references, int8(y))
    channel = "boxes[..., " if transposed else "boxes[:, "
    assert verdict.status == "failed"
    assert verdict.worst_channel is not None
    assert verdict.worst_channel.channel.startswith(channel)
    index = int(verdict.worst_channel.channel.removeprefix(channel).partition(",")[0].rstrip("]"))
    assert index >= 4
    assert "is dead" in str(verdict.reason)
    assert "(6 of 10 such channels are wrong)" in str(verdict.reason)


@pytest.mark.parametrize("axis", [2, 3])
def test_ranges_of_their_own_keep_boxes_and_scores(axis: int) -> None:
    """8 bits are enough when every quantity has its own."""
    y = detector() if axis == 2 else detector().swapaxes(2, 3)
    assert judged(INT8, made_references(y), int8(y, axis)).reason is None


def test_a_logit_score_beside_boxes_is_seen_too() -> None:
    """Objectness before its sigmoid is no probability: its range alone tells it from the boxes."""
    random = np.random.default_rng(1)
    y = np.concatenate(
        [random.uniform(0, 640, (32, 1, 20, 4)), random.normal(scale=0.4, size=(32, 1, 20, 1))], axis=3
    )
    verdict = judged(INT8, made_references(y), int8(y))
    assert "out0[..., 4]" in str(verdict.reason)


def few_beside_pixels(pixels: int, few: int, kind: str, samples: int = 32) -> Array:
    """Coordinates of tens to hundreds of pixels, and after them a few channels of another kind."""
    random = np.random.default_rng(11)
    coordinates = random.uniform(0, 1, (samples, 1, pixels)) * random.uniform(30, 640, pixels)
    normal = random.normal(size=(samples, 1, few))
    others = {"sigmoid": 1 / (1 + np.exp(-3 * normal)), "logit": 0.5 * normal, "tanh": np.tanh(normal)}
    others["hard sigmoid"] = np.clip(normal - 0.3, 0, 1)
    return np.concatenate([coordinates, others[kind]], axis=2)


FEW_BESIDE_PIXELS = [
    (63, 1, "sigmoid"),
    (40, 2, "sigmoid"),
    (100, 4, "sigmoid"),
    (99, 5, "sigmoid"),
    (216, 1, "sigmoid"),
    (20, 1, "logit"),
    (24, 1, "logit"),
    (990, 10, "logit"),
    (132, 1, "tanh"),
    (63, 1, "hard sigmoid"),
]


@pytest.mark.parametrize(("pixels", "few", "kind"), FEW_BESIDE_PIXELS)
@pytest.mark.parametrize("samples", [32, 64])
def test_a_few_channels_are_not_excused_by_the_noise_of_many(
    pixels: int, few: int, kind: str, samples: int
) -> None:
    """One presence score beside 63 coordinates: a step of 2.5 pixels leaves nothing of it."""
    y = few_beside_pixels(pixels, few, kind, samples)
    worst = judged(INT8, made_references(y), int8(y)).worst_channel
    assert worst is not None
    assert worst.fault
    assert int(worst.channel[10:-1]) >= pixels


@pytest.mark.parametrize(("pixels", "few", "kind"), FEW_BESIDE_PIXELS)
def test_a_few_channels_with_a_range_of_their_own_pass(pixels: int, few: int, kind: str) -> None:
    """The same output is right when 8 bits are spent on every channel."""
    y = few_beside_pixels(pixels, few, kind)
    assert judged(INT8, made_references(y), int8(y, axis=2)).reason is None


@pytest.mark.parametrize("fires", [1, 3, 12])
@pytest.mark.parametrize("units", [64, 1280])
def test_a_unit_that_fires_a_few_times_is_no_fault_of_int8(units: int, fires: int) -> None:
    """A ReLU's unit that is zero for most inputs, and weak otherwise, is the tail of the other units."""
    random = np.random.default_rng(12)
    y = np.maximum(random.normal(size=(32, 1, units)), 0) * random.uniform(1, 5, units)
    y[:, :, :2] = 0
    y[:fires, :, :2] = random.uniform(1e-3, 5e-3, (fires, 1, 2))
    assert judged(INT8, made_references(y, resting=True), int8(y)).reason is None


def test_a_few_constants_share_the_noise_of_the_others() -> None:
    """A class that never moves is rounded with the rest, and has no noise of its own to be measured by."""
    y = classifier()
    y[:, :, 3] = 0.01
    a = int8(y)
    assert np.abs(a[:, :, 3] - 0.01).max() > 2 / 127 * 0.01
    assert judged(INT8, made_references(y), a).reason is None


def test_interleaved_keypoints_keep_their_confidence() -> None:
    """x, y, confidence, x, y, confidence, …: the small ones lie anywhere."""
    random = np.random.default_rng(2)
    y = random.uniform(0, 500, (32, 1, 51))
    y[..., 2::3] = random.uniform(size=(32, 1, 17))
    verdict = judged(INT8, made_references(y), int8(y))
    assert verdict.worst_channel is not None
    assert int(verdict.worst_channel.channel[10:-1]) % 3 == 2


@pytest.mark.parametrize("spread", [50.0, 300.0, 450.0])
def test_a_large_offset_hides_nothing(spread: float) -> None:
    """A pressure around 101,325 in steps of 397 says nothing, with 50 dB against its square."""
    y = 101_325 + np.random.default_rng(3).normal(scale=spread, size=(64, 1, 1))
    verdict = judged(INT8, made_references(y, names=["pressure"]), int8(y))
    assert verdict.comparison is not None
    assert verdict.comparison.sqnr_db > 50
    assert "pressure" in str(verdict.reason)
    assert "different value" in str(verdict.reason) or "is dead" in str(verdict.reason)


def test_a_right_pressure_passes() -> None:
    """The same in float32: a step of 0.008 beside a variation of 300."""
    y = 101_325 + np.random.default_rng(3).normal(scale=300, size=(64, 1, 1))
    assert judged(FP32, made_references(y), y.astype(np.float32)).reason is None


def classifier(samples: int = 48, classes: int = 200, seed: int = 4) -> Array:
    """Logits whose classes vary unequally, around means of their own."""
    random = np.random.default_rng(seed)
    spread = random.uniform(0.6, 5, classes)
    return random.normal(size=(samples, 1, classes)) * spread + random.normal(size=classes)


def noisy(y: Array, decibels: float, seed: int = 5) -> Array:
    noise = np.random.default_rng(seed).normal(size=y.shape)
    level: float = np.sqrt((y**2).mean()) * 10 ** (-decibels / 20)
    return y + level * noise


@pytest.mark.parametrize(("variant", "decibels"), [(FP16, 45), (INT8, 24), (FP32, 125)])
def test_one_dead_class_fails_by_its_label(variant: Variant, decibels: float) -> None:
    """One of 200 is half a percent of the classes: no overall figure sees it."""
    y = classifier()
    a = noisy(y, decibels)
    assert judged(variant, made_references(y), a).reason is None
    a[:, :, 17] = a[:, :, 17].mean()
    reason = judged(variant, made_references(y), a, labels=[f"animal {i}" for i in range(200)]).reason
    assert "out0[..., 17], class 'animal 17', is dead" in str(reason)


@pytest.mark.parametrize("variant", [FP16, INT8])
def test_many_dead_classes_do_not_excuse_each_other(variant: Variant) -> None:
    """The quietest eighty percent stand still: the others' noise is the measure, not theirs."""
    y = classifier()
    quiet = np.argsort(y.std(axis=(0, 1)))[:160]
    a = noisy(y, 45)
    a[:, :, quiet] = a[:, :, quiet].mean(axis=0)
    assert "(160 of 200 such channels are wrong)" in str(judged(variant, made_references(y), a).reason)


@pytest.mark.parametrize(("variant", "decibels"), [(FP16, 45), (INT8, 24)])
def test_two_rare_classes_exchanged_are_named(variant: Variant, decibels: float) -> None:
    """Neither is ever the answer, so the agreement stays whole."""
    y = classifier()
    first, second = np.argsort(y.std(axis=(0, 1)))[20:22]
    a = noisy(y, decibels)
    a[:, :, [first, second]] = a[:, :, [second, first]]
    worst = judged(variant, made_references(y), a).worst_channel
    assert worst is not None
    assert worst.fault
    assert worst.channel in {f"out0[..., {first}]", f"out0[..., {second}]"}


@pytest.mark.parametrize("samples", [4, 8, 32, 64])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_noise_alone_condemns_no_channel(samples: int, classes: int) -> None:
    """Right artifacts of 21 dB, thirty times over: few samples and many classes make unlucky channels."""
    for seed in range(30):
        y = classifier(samples, classes, seed)
        worst = judged(INT8, made_references(y), noisy(y, 21, seed)).worst_channel
        assert worst is not None
        assert worst.fault == "", (seed, worst)


def test_the_margin_grows_with_channels_and_shrinks_with_samples() -> None:
    """The loudest of a thousand is louder than the loudest of ten; many samples leave less to luck."""
    for margin in (noise_by_chance, noise_ratio_by_chance, quiet_noise_by_chance):
        assert margin(64, 1000) > margin(64, 10) > margin(1000, 10) > 1
    assert noise_by_chance(64, 1000) == pytest.approx(chi2.isf(1e-6, 64) / 64, rel=0.02)
    assert noise_ratio_by_chance(64, 1000) == pytest.approx(f.isf(1e-6, 64, 63), rel=0.2)
    assert quiet_noise_by_chance(8, 64) == pytest.approx((chi2.ppf(1e-3 / 64, 7) / 7) ** -0.5, rel=0.05)
    assert quiet_noise_by_chance(64, 64) >= (chi2.ppf(1e-3 / 64, 63) / 63) ** -0.5


@pytest.mark.parametrize(("offset", "status"), [(100, "passed"), (1000, "passed"), (8000, "failed")])
def test_half_precision_may_round_an_offset_but_not_drown_the_rest(offset: float, status: str) -> None:
    """Around 8,000 float16 has steps of 4: a variation of 5 is gone, whatever the decibels say."""
    y = offset + 5 * np.random.default_rng(10).normal(size=(64, 1, 1))
    verdict = judged(FP16, made_references(y), fp16(y))
    assert verdict.status == status


def test_rare_probabilities_below_a_step_are_no_fault_of_int8() -> None:
    """A softmax over 100 classes of which five are ever likely: 8 bits round the others to nothing."""
    random = np.random.default_rng(6)
    logits = random.normal(size=(48, 1, 100))
    logits[np.arange(48), 0, random.integers(0, 5, 48)] += 9
    y = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    assert judged(INT8, made_references(y), int8(y)).reason is None


def test_only_an_activation_excuses_a_unit_that_hardly_moves() -> None:
    """The same values without one: a channel of a thousandth of the others' range is judged by its own."""
    random = np.random.default_rng(7)
    y = np.maximum(random.normal(size=(64, 1, 64)), 0)
    y[:, :, 5] *= 1e-3
    assert judged(INT8, made_references(y, resting=True), int8(y)).reason is None
    assert "out0[..., 5] is dead" in str(judged(INT8, made_references(y), int8(y)).reason)


def score_map(quiet: int) -> Array:
    """Return two scores over 24 x 32 positions; in one column hardly anything is seen."""
    random = np.random.default_rng(8)
    y = random.uniform(0, 1, (16, 1, 2, 24, 32)) * (random.uniform(size=(16, 1, 1, 24, 32)) < 0.2)
    y[..., quiet] = random.uniform(0, 0.01, (16, 1, 2, 24))
    return y - 0.01  # no probability, which would excuse it, too


def test_a_column_of_a_score_map_may_be_quiet_by_chance() -> None:
    """What a position shows in a few samples is the samples' doing; the graph must say that it is one."""
    y = score_map(30)
    assert judged(INT8, made_references(y, positions=(2, 3)), int8(y)).reason is None
    assert "out0[..., 30]" in str(judged(INT8, made_references(y), int8(y)).reason)


@pytest.mark.parametrize("fault", ["dead class", "dead column", "noisy class"])
def test_positions_excuse_no_fault(fault: str) -> None:
    """A class of the map, which is no position, or a column that moves by more than the noise."""
    y = score_map(30)
    a = int8(y)
    if fault == "dead class":
        a[:, :, 1] = a[:, :, 1].mean()
    elif fault == "dead column":
        a[..., 7] = 0
    else:
        a[:, :, 1] += np.random.default_rng(9).normal(0, 0.2, a[:, :, 1].shape)
    assert judged(INT8, made_references(y, positions=(2, 3)), a).status == "failed"


def test_a_clipped_class_does_not_loosen_its_own_limit() -> None:
    """The clipped class is never the answer: agreement is whole while the output falls below 20 dB."""
    y = np.random.default_rng(3).normal(size=(16, 1, 6))
    y[:, :, 2] = 4 * y[:, :, 2] - 12
    a = noisy(y, 60)
    a[:, :, 2] = np.minimum(a[:, :, 2], -13)
    verdict = judged(INT8, made_references(y), a)
    assert verdict.comparison is not None
    assert verdict.comparison.agreement == 1.0
    assert "out0[..., 2] is clipped" in str(verdict.reason)


def test_units_that_hardly_fire_are_no_fault_of_int8() -> None:
    """An embedding after its ReLU: some units move by less than a step of the tensor."""
    random = np.random.default_rng(7)
    y = np.maximum(random.normal(size=(64, 1, 256)) * random.lognormal(sigma=1.5, size=256), 0)
    y[:, :, 5:9] = np.maximum(y[:, :, 5:9] - 1, 0) * 1e-3
    y[:, :, 9] = 0
    assert judged(INT8, made_references(y, resting=True), int8(y)).reason is None


@pytest.mark.parametrize("clip", [np.minimum, np.maximum], ids=["above", "below"])
def test_a_clipped_channel_is_called_so(clip: np.ufunc) -> None:
    """A class whose scores go on where the calibrated range ends."""
    y = classifier()
    a = noisy(y, 30)
    a[:, :, 3] = clip(a[:, :, 3], y[:, :, 3].mean())
    assert "out0[..., 3] is clipped" in str(judged(INT8, made_references(y), a).reason)


@pytest.mark.parametrize("variant", [FP32, FP16, INT8])
def test_a_wrong_imaginary_part_is_found(variant: Variant) -> None:
    """A complex output is compared whole: its real parts are right to the last bit."""
    random = np.random.default_rng(8)
    y = random.normal(size=(16, 1, 33)) + 1j * random.normal(size=(16, 1, 33))
    assert judged(variant, made_references(y), y.astype(np.complex64)).reason is None
    assert judged(variant, made_references(y), y.conj()).status == "failed"


def test_a_small_imaginary_part_is_a_channel_of_its_own() -> None:
    """Beside real parts a thousand times larger it is 60 dB down, and may not be dropped for that."""
    random = np.random.default_rng(8)
    y = random.normal(size=(16, 1, 33)) * 1000 + 1j * random.normal(size=(16, 1, 33))
    assert "out0.imag is dead" in str(judged(FP16, made_references(y), y.real + 0j).reason)


def test_constant_channels_are_compared_as_constants() -> None:
    """Anchors beside scores: a constant off by one percent is wrong, and one kept to the bit is right."""
    y = classifier(classes=10)
    y[:, :, 7] = 0.25
    a = fp16(y)
    assert judged(FP16, made_references(y), a).reason is None
    a[:, :, 7] *= 1.02
    assert "out0[..., 7] is a constant in the model and is off by 0.005" in str(
        judged(FP16, made_references(y), a).reason
    )


@pytest.mark.parametrize("axis", [3, 4])
def test_a_dead_border_of_an_image_is_found(axis: int) -> None:
    """Rows and columns are channels too: a wrong padding leaves the last one black."""
    y = np.random.default_rng(9).uniform(size=(16, 1, 3, 24, 24)) * 200
    a = y.copy()
    np.moveaxis(a, axis, 0)[-1] = 100
    reason = str(judged(INT8, made_references(y), a).reason)
    assert ("out0[:, :, 23, :]" if axis == 3 else "out0[..., 23]") in reason


def test_groups_are_found_by_range_or_as_probabilities() -> None:
    """Boxes and scores differ; a class that is rare in the photos stays with the other classes."""
    low = np.zeros(10)
    high = np.array([640, 600, 640, 500, 1.0, 0.9, 1e-4, 0.3, 0.01, 1.0])
    groups = group_channels(low, high, 64, idle=np.zeros(10, bool))
    assert len(set(groups[:4])) == len(set(groups[4:])) == 1
    assert groups[0] != groups[4]


def test_ranges_that_lead_up_to_another_do_not_join_it() -> None:
    """Coordinates of 640 down to 2 pixels, each three quarters of the next, and a score of 1: it is alone."""
    high = np.append(640 * 0.75 ** np.arange(21), 1.0)
    groups = group_channels(np.zeros(22), high, 64, idle=np.zeros(22, bool))
    assert (groups == groups[-1]).sum() == 1
    assert len(set(groups[1:15])) == 1


def test_a_verdict_shows_its_worst_channel_also_when_it_passes() -> None:
    """The worst channel is shown with its figure and limit, as the room that is left."""
    y = classifier()
    worst = judged(FP16, made_references(y), fp16(y)).worst_channel
    assert worst is not None
    assert worst.sqnr_db > worst.limit_db > 20
    assert worst.fault == ""
