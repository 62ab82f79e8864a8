"""Whatever happens to a file: its tensors, other finite tensors, or a CheckpointError."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter import checkpoints
from exporter.errors import CheckpointError
from exporter.records import Checkpoint
from tests.checkpoints.makers import FORMATS, LAYOUTS, Call, edited, torch_bytes, weights, written
from tests.checkpoints.test_kinds import last_reading

QUICK = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
SLOW_FORMATS = {"exported_program": 20}

PREFIXES = st.lists(st.sampled_from(["module.", "_orig_mod.", "model."]), max_size=4).map("".join)
KEYS = st.lists(
    st.sampled_from(
        ["state_dict", "model", "model_state_dict", "net", "network", "weights", "checkpoint", "inner"]
    ),
    max_size=4,
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
BESIDE = st.dictionaries(
    st.sampled_from(["epoch", "optimizer", "scaler", "lr_scheduler", "args", "hyper_parameters", "best"]),
    st.recursive(
        SCALARS | st.just(Call(print, "ran")),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
        ),
    ),
)


def read_or_refuse(path: Path) -> Checkpoint | None:
    try:
        return checkpoints.read_checkpoint(path)
    except CheckpointError:
        return None


def is_sound(checkpoint: Checkpoint | None) -> bool:
    if checkpoint is None:
        return True
    held = checkpoint.tensors if checkpoint.module is None else checkpoint.module.state_dict()
    assert held is not None
    return all(bool(torch.isfinite(t).all()) for t in held.values() if t.is_floating_point())


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_truncated_anywhere(tmp_path: Path, name: str) -> None:
    """A file cut anywhere is refused."""
    data = FORMATS[name]()

    @settings(QUICK)
    @given(st.integers(0, len(data) - 1))
    def check(length: int) -> None:
        assert read_or_refuse(written(tmp_path, data[:length])) is None

    check()


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_one_byte_changed(tmp_path: Path, name: str) -> None:
    """Any byte changed to any other: finite tensors or a refusal, never a crash."""
    data = FORMATS[name]()

    @settings(QUICK, max_examples=SLOW_FORMATS.get(name, 200))
    @given(st.integers(0, len(data) - 1), st.integers(1, 255))
    def check(where: int, difference: int) -> None:
        changed = bytearray(data)
        changed[where] ^= difference
        assert is_sound(read_or_refuse(written(tmp_path, bytes(changed))))

    check()


@QUICK
@given(
    data=st.binary(max_size=300),
    head=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x04", bytes(8) + b"{"]),
)
def test_random_bytes(tmp_path: Path, data: bytes, head: bytes) -> None:
    """Random bytes, also behind the first bytes of each format, are refused."""
    assert read_or_refuse(written(tmp_path, head + data)) is None


@pytest.mark.slow
@settings(QUICK, max_examples=300)
@given(
    code=st.lists(
        st.sampled_from([bytes([i]) for i in b"(.0NK\x01]})tsubaeR\x81\x85q\x00h\x00Qdl2"]), max_size=40
    )
)
def test_random_opcodes(tmp_path: Path, code: list[bytes]) -> None:
    """Random sequences of opcodes end in an error or in harmless records."""
    path = written(tmp_path, edited(torch_bytes({}), {"data.pkl": b"\x80\x02" + b"".join(code)}))
    assert is_sound(read_or_refuse(path))


@QUICK
@given(prefix=PREFIXES, keys=KEYS, beside=BESIDE, layout=st.sampled_from(LAYOUTS), protocol=st.integers(2, 5))
def test_nesting_and_prefixes(
    tmp_path: Path, prefix: str, keys: list[str], beside: dict[str, Any], layout: str, protocol: int
) -> None:
    """Any nesting of containers, any wrappers' prefixes, any objects beside: the same tensors come back."""
    value: dict[str, Any] = {prefix + name: tensor for name, tensor in weights().items()}
    for key in reversed(keys):
        value = {**beside, key: value}
    tensors = last_reading(
        checkpoints.read_checkpoint(written(tmp_path, torch_bytes(value, layout, protocol)))
    )
    assert tensors is not None
    assert list(tensors) == list(weights())
    assert all(torch.equal(weights()[name], tensor) for name, tensor in tensors.items())
