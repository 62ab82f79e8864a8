"""`android_harness.history.packed_samples`: raw samples become bytes and back."""

from __future__ import annotations

import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from android_harness.history.packed_samples import Damaged, pack_samples, unpack_samples
from android_harness.history.records import Samples
from android_harness.records import Clock, LaunchSamples
from tests.history.stored import samples

NANOSECONDS = st.integers(0, 2**62)


@st.composite
def launches(draw: st.DrawFn) -> LaunchSamples:
    durations = draw(st.lists(NANOSECONDS, max_size=20))
    starts = draw(st.lists(NANOSECONDS, min_size=len(durations), max_size=len(durations)))
    texts = draw(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2))
    return LaunchSamples(
        index=draw(st.integers(0, 9)),
        load_ns=draw(NANOSECONDS),
        first_ns=draw(NANOSECONDS),
        warmup_calls=3,
        warm=draw(st.booleans()),
        peak_bytes=draw(st.none() | NANOSECONDS),
        durations_ns=tuple(durations),
        offsets_ns=tuple(starts),
        clocks=(Clock(5, texts),),
    )


@settings(max_examples=60)
@given(st.lists(launches(), max_size=3), st.lists(st.lists(NANOSECONDS, max_size=3).map(tuple), max_size=3))
def test_samples_survive(runs: list[LaunchSamples], canary: list[tuple[int, ...]]) -> None:
    """All samples are restored to the nanosecond."""
    known = Samples(tuple(runs), tuple(canary))
    assert unpack_samples(pack_samples(known)) == known


def test_a_session_takes_a_few_bytes_a_sample() -> None:
    """A duration and its start would take 16 bytes unpacked."""
    known = samples()
    known = replace(known, launches=tuple(replace(launch, clocks=()) for launch in known.launches))
    assert len(pack_samples(known)) < 4 * sum(len(launch.durations_ns) for launch in known.launches)


GOOD = pack_samples(samples())


def repacked(change: bytes) -> bytes:
    return GOOD[:4] + zlib.compress(zlib.decompress(GOOD[4:]) + change)


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"JUNK" + GOOD[4:],
        GOOD[:-9],
        GOOD[:4] + b"junk",
        repacked(b"more"),
        GOOD[:4] + zlib.compress(b"{}"),
    ],
    ids=["empty", "foreign", "cut off", "no zlib", "too long", "no header"],
)
def test_damage_is_found(blob: bytes) -> None:
    """Damaged bytes are refused instead of read as numbers."""
    with pytest.raises(Damaged):
        unpack_samples(blob)


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes must not fill the memory."""
    monkeypatch.setattr("android_harness.history.packed_samples.MAX_BYTES", 10**6)
    with pytest.raises(Damaged, match="too much"):
        unpack_samples(GOOD[:4] + zlib.compress(bytes(2 * 10**6)))
