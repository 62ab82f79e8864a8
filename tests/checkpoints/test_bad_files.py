"""Files that are no checkpoint, or no longer one: always one clear CheckpointError."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save as save_safetensors

from exporter import checkpoints
from exporter.checkpoints.unpickle import unpickle
from exporter.errors import CheckpointError
from tests.checkpoints import makers
from tests.checkpoints.makers import FORMATS, LAYOUTS, Call, edited, record, torch_bytes, weights, written


def refused(path: Path, trust: bool = False) -> str:
    """The message of the only exception there may be."""
    with pytest.raises(CheckpointError) as caught:
        checkpoints.read_checkpoint(path, trust=trust)
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return str(caught.value)


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.ones(3))
    return buffer.getvalue()


WRONG: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "one byte": (b"\x00", "no known kind"),
    "random": (np.random.default_rng(0).bytes(4096), "no known kind"),
    "zeros": (bytes(4096), "no known kind"),
    "text": (b"hello world, this is text", "no known kind"),
    "jpeg": (jpeg(), "a JPEG picture"),
    "npz": (npz(), "zip archive of 1 files"),
    "gzip": (b"\x1f\x8b\x08" + bytes(100), "gzip archive: unpack it first"),
    "onnx": (b"\x08\x0a\x12\x07pytorch" + bytes(50), "ONNX model"),
    "pte": (b"\x1c\x00\x00\x00ET12" + bytes(50), "ExecuTorch"),
    "tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(50), "TensorFlow Lite"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
    "web page": (b"<!DOCTYPE html><html>", "a web page"),
    "plain pickle": (pickle.dumps({"a": 1}), "torch.save did not write"),
    "other pickle": (pickle.dumps(list(range(50))), "torch.save did not write"),
    "pickle start": (b"\x80", "damaged"),
    "zip start": (b"PK\x03\x04", "damaged"),
    "safetensors of 2^63 bytes": (
        struct.pack("<Q", 2**63) + b"{" + bytes(50),
        "header of 9223372036854775808 bytes",
    ),
    "safetensors of 99 MB": (
        struct.pack("<Q", 99_000_000) + b'{"a":' + bytes(50),
        "header of 99000000 bytes",
    ),
    "safetensors not JSON": (struct.pack("<Q", 20) + b"{" + b"x" * 60, "damaged"),
    "safetensors empty": (struct.pack("<Q", 2) + b"{}", "no tensors"),
    "safetensors deep": (struct.pack("<Q", 200_000) + b'{"a":' + b"[" * 199_995, "damaged"),
    "tar": (b"pickle" + bytes(251) + b"ustar" + bytes(300), "tar archive"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("trust", [False, True])
def test_wrong_files(tmp_path: Path, name: str, trust: bool) -> None:
    """What the file looks like is said, whatever its name, trusted or not."""
    data, words = WRONG[name]
    assert words in refused(written(tmp_path, data, "model.pt"), trust)


def test_paths(tmp_path: Path) -> None:
    """A missing file, a directory, a device, a name that cannot be one."""
    assert "There is no file" in refused(tmp_path / "missing.pt")
    assert "is a directory" in refused(tmp_path)
    assert "not a regular file" in refused(Path(os.devnull))
    assert "cannot be read" in refused(tmp_path / ("x" * 300))
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoints.read_checkpoint(Path("a\0b"))


def test_named_pipe_does_not_block(tmp_path: Path) -> None:
    """A pipe nobody writes to is refused at once."""
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refused(tmp_path / "pipe")


def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that may not be opened says why (root may open anything, so the refusal is made up)."""
    path = written(tmp_path, b"x")

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", deny)
    assert "cannot be read: Permission denied" in refused(path)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_truncated(tmp_path: Path, name: str, share: float) -> None:
    """A file cut short is refused."""
    data = FORMATS[name]()
    refused(written(tmp_path, data[: int(len(data) * share)]))


@pytest.mark.parametrize("trust", [False, True])
def test_zip_damage_is_found_by_checksum(tmp_path: Path, trust: bool) -> None:
    """One changed byte of a weight is noticed: torch itself would read it without a word."""
    data = bytearray(torch_bytes(weights()))
    where = bytes(data).index(weights()["conv.weight"].numpy().tobytes())
    data[where] ^= 1
    assert "'data/0' of the archive is damaged" in refused(written(tmp_path, bytes(data)), trust)


def test_zip_bomb(tmp_path: Path) -> None:
    """Records that unpack to far more than the file are refused before they are unpacked."""
    bomb = edited(torch_bytes(weights()), {"data/0": bytes(200 << 20)}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 1 << 20
    assert "claims to unpack to" in refused(written(tmp_path, bomb))


def test_duplicate_records(tmp_path: Path) -> None:
    """Two records of one name (two readers would take different ones) are refused."""
    buffer = io.BytesIO(torch_bytes(weights()))
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.namelist()[0], b"x")
    assert "two records of one name" in refused(written(tmp_path, buffer.getvalue()))


def test_encrypted_zip(tmp_path: Path) -> None:
    """An encrypted archive is refused as such."""
    data = bytearray(torch_bytes(weights()))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert "encrypted" in refused(written(tmp_path, bytes(data)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("shape", "strides", "offset", "words"),
    [
        ((4,), (1,), 0, "reaches element 3 of 3"),
        ((3,), (1,), 1, "reaches element 3 of 3"),
        ((2,), (2**62,), 0, "reaches element"),
        ((2**40,), (0,), 0, "claim to hold"),
        ((2**30, 2**30), (0, 0), 0, "claim to hold"),
        ((-3,), (1,), 0, "shape is"),
        ((3,), (-1,), 2, "strides is"),
        ((3,), (1,), -1, "offset is"),
        ((3, 1), (1,), 0, "2 sizes and 1 strides"),
        ((3.0,), (1,), 0, "shape is"),
        ("abc", (1,), 0, "shape is"),
    ],
)
def test_declared_shapes(
    tmp_path: Path, shape: Any, strides: Any, offset: Any, words: str, layout: str
) -> None:
    """A tensor that reaches outside its storage, or is absurdly large, is refused before it is made."""

    class Lie:
        def __reduce__(self) -> tuple[Any, ...]:
            ones: Any = torch.ones(3)
            storage = ones._typed_storage()  # torch's own name for what it pickles
            return torch._utils._rebuild_tensor_v2, (storage, offset, shape, strides, False, {})

    assert words in refused(written(tmp_path, torch_bytes({"a.b": Lie(), "a.c": torch.ones(1)}, layout)))


def test_storage_smaller_than_declared(tmp_path: Path) -> None:
    """A record shorter or longer than its tensor declares is refused."""
    for size in (71, 73, 0):
        data = edited(torch_bytes(weights()), {"data/0": bytes(size)})
        assert f"holds {size} bytes, but its tensor declares 72" in refused(written(tmp_path, data))


def test_storage_missing(tmp_path: Path) -> None:
    """A record that is not there is named."""
    assert "no record 'data/0'" in refused(
        written(tmp_path, edited(torch_bytes(weights()), {"data/0": None}))
    )


def test_other_byte_order(tmp_path: Path) -> None:
    """Numbers of the other byte order are not read as if they were ours."""
    data = edited(torch_bytes(weights()), {"byteorder": b"big"})
    assert "byte order" in refused(written(tmp_path, data))


HOSTILE_PICKLES: dict[str, bytes] = {
    "memo index": b"\x80\x02]r\xff\xff\xff\x7f.",
    "long bytes": b"\x80\x05\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.",
    "long bytearray": b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.",
    "long frame": b"\x80\x04\x95\xff\xff\xff\xff\xff\x00\x00\x00.",
    "long text": b"\x80\x04\x8d\xff\xff\xff\xff\xff\x00\x00\x00.",
    "deep tuples as a key": b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s.",
    "deep tuples in a set": b"\x80\x04\x8f()" + b"\x85" * 200_000 + b"\x90.",
    "deep tuples in a frozenset": b"\x80\x04()" + b"\x85" * 200_000 + b"\x91.",
    "deep tuples": b"\x80\x02)" + b"\x85" * 200_000 + b".",
    "deep lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "deep tuples as a shape": b"\x80\x02ctorch\nSize\n)" + b"\x85" * 200_000 + b"\x85R.",
    "list as a key": b"\x80\x02}]K\x01s.",
    "call of a number": b"\x80\x02K\x01)R.",
    "append to a number": b"\x80\x02K\x01K\x01a.",
    "unknown opcode": b"\x80\x02\xff.",
    "stack underflow": b"\x80\x02R.",
    "no mark": b"\x80\x02e.",
    "extension": b"\x80\x02\x82\x01.",
    "out of band": b"\x80\x05\x97.",
    "persistent text": b"Phello\n.",
    "protocol 99": b"\x80\x63.",
    "many digits": b"I" + b"9" * 100_000 + b"\n.",
    "name not UTF-8": b"c\xff\xfe\n\xff\n.",
    "bad codec": b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00bz2\x86R.",
    "huge bytearray": b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\xff\xff\xff\xff\xff\x00\x85R.",
}


@pytest.mark.parametrize("name", HOSTILE_PICKLES)
def test_hostile_pickles(tmp_path: Path, name: str) -> None:
    """Declared sizes, depth, and broken opcodes neither crash nor exhaust anything."""
    refused(written(tmp_path, edited(torch_bytes({}), {"data.pkl": HOSTILE_PICKLES[name]})))


def test_shared_references_are_walked_once(tmp_path: Path) -> None:
    """A "billion laughs" of shared lists is described in no time."""
    lists: list[Any] = [0]
    for _ in range(100):
        lists = [lists] * 10
    checkpoint = checkpoints.read_checkpoint(
        written(tmp_path, torch_bytes({"state_dict": weights(), "laughs": lists}))
    )
    assert ("laughs", "list, 10 items") in checkpoint.contents


def test_legacy_counts(tmp_path: Path) -> None:
    """In the old layout, a count that contradicts the pickle is refused."""
    data = torch_bytes({"a.b": torch.ones(3)}, "legacy")
    wrong = data[:-20] + struct.pack("<q", 2**60) + data[-12:]
    assert "do not fit the tensors" in refused(written(tmp_path, wrong))


def test_safetensors_offsets(tmp_path: Path) -> None:
    """Offsets outside the data are refused."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    assert "not a whole safetensors" in refused(
        written(tmp_path, struct.pack("<Q", len(header)) + header + bytes(8))
    )
    assert refused(written(tmp_path, save_safetensors(weights())[:-1]))


def test_program_declares_zeros_without_end(tmp_path: Path) -> None:
    """An empty record with a huge shape, for which torch would make up zeros, is refused."""
    archive = makers.program_bytes()
    config = json.loads(record(archive, "model_weights_config.json"))
    payload = config["config"]["conv.weight"]
    payload["tensor_meta"]["sizes"] = [{"as_int": 1 << 40}]
    changes: dict[str, bytes | None] = {
        "model_weights_config.json": json.dumps(config).encode(),
        "/" + payload["path_name"]: b"",
    }
    assert "declares [1099511627776]" in refused(written(tmp_path, edited(archive, changes)))


def test_old_and_compiled_programs(tmp_path: Path) -> None:
    """A `.pt2` that holds something else says what."""
    archive = makers.program_bytes()
    no_graph = edited(archive, {"models/model.json": None})
    assert "holds no exported program" in refused(written(tmp_path, no_graph))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as old:
        old.writestr("serialized_exported_program.json", "{}")
        old.writestr("version", "8.2")
    assert "older than 2.8" in refused(written(tmp_path, buffer.getvalue()))


def test_trusted_module_of_a_missing_package(tmp_path: Path) -> None:
    """A trusted module whose classes are not installed says which are missing."""
    data = torch_bytes(makers.net())
    pickled = record(data, "data.pkl").replace(b"tests.checkpoints.makers", b"tests.checkpoints.xxxxxx")
    message = refused(written(tmp_path, edited(data, {"data.pkl": pickled})), trust=True)
    assert "tests.checkpoints.xxxxxx" in message
    assert "not installed here" in message


def test_control_characters_in_messages(tmp_path: Path) -> None:
    """Names from the file cannot move the terminal's cursor."""
    bad = {"a.\x1b[2J": torch.tensor([float("nan")])}
    assert "\x1b" not in refused(written(tmp_path, torch_bytes(bad)))
    foreign = b"\x80\x02cos\x1b[2J\nsystem\n."
    assert "\x1b" not in refused(written(tmp_path, edited(torch_bytes({}), {"data.pkl": foreign})))
    assert "\x1b" not in refused(written(tmp_path, torch_bytes({"\x1b[2J": Call(print, 1)})))


class Frugal(io.BytesIO):
    """Fails when asked for more than it holds: a real file would allocate that much first."""

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert 0 <= size <= len(self.getvalue())
        return super().read(size)


@pytest.mark.parametrize("name", [name for name in HOSTILE_PICKLES if name.startswith("long")])
def test_declared_lengths_are_not_allocated(name: str) -> None:
    """A pickle that declares terabytes is refused before anything is asked of the file."""
    data = HOSTILE_PICKLES[name]
    with pytest.raises(EOFError, match="ends early"):
        unpickle(Frugal(data), len(data))
