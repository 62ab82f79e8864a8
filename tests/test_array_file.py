"""Hostile `.npz` files are refused by what they list, before anything is unpacked."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from exporter import array_file
from exporter.data import npz
from exporter.errors import CalibrationError, VerificationError
from exporter.records import Array, TensorSpec
from exporter.verify import reference_io

GIB = 2**30


def header(descr: object, shape: tuple[int, ...]) -> bytes:
    """An array's first bytes."""
    stream = io.BytesIO()
    fields = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, fields)
    return stream.getvalue()


def archive(*members: tuple[str, bytes]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
            for name, content in members:
                made.writestr(name, content)

    return write


def one(content: bytes) -> Callable[[Path], None]:
    return archive(("x.npy", content))


def text_header(text: bytes) -> bytes:
    """An array whose header is any text."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def declares(size_bytes: int) -> Callable[[Path], None]:
    """The zip's directory says that an array unpacks to so much."""

    def write(path: Path) -> None:
        one(header("<f4", (1,)) + b"\0" * 4)(path)
        content = bytearray(path.read_bytes())
        at = content.index(b"PK\x01\x02") + 24
        content[at : at + 4] = struct.pack("<I", size_bytes)
        path.write_bytes(content)

    return write


def twice(path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        archive(("x.npy", header("<f4", (0,))), ("x.npy", header("<f4", (0,))))(path)


def no_zip(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + b"\0" * 100)


def encrypted(path: Path) -> None:
    one(header("<f4", (0,)))(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    content[6] |= 1
    path.write_bytes(content)


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "swells to 2 GiB": (declares(2 * GIB), r"unpacks to 2.0 GiB"),
    "swells to 4 GiB": (declares(2**32 - 2), r"unpacks to 4.0 GiB"),
    "a terabyte in its header": (one(header("<f4", (2**38,))), r"claims 1,099,511,627,776 bytes"),
    "a product of huge sizes": (one(header("<f4", (2**62,) * 30)), r"claims|not a readable"),
    "a negative size": (one(header("<f4", (-1,))), r"claims|readable"),
    "two negative sizes": (one(header("<f4", (-4, -4)) + b"\0" * 64), r"claims"),
    "objects": (one(header("|O", (1,)) + pickle.dumps(print)), r"Python objects"),
    "objects in a record": (one(header([("a", "|O")], (1,)) + b"x"), r"Python objects"),
    "records": (one(header([("a", "<f4"), ("b", "<i8")], (1,)) + b"\0" * 12), r"expected numbers"),
    "raw bytes": (one(header("|V8", (1,)) + b"\0" * 8), r"expected numbers"),
    "dates": (one(header("<M8[ns]", (1,)) + b"\0" * 8), r"expected numbers"),
    "a pickle": (one(pickle.dumps([print])), r"not a readable"),
    "no array": (one(b"text"), r"not a readable"),
    "nothing": (one(b""), r"not a readable"),
    "a header of brackets": (one(text_header(b"[" * 9000)), r"not a readable"),
    "a header of digits": (one(text_header(b"{'shape': (" + b"9" * 9000 + b",)}")), r"not a readable"),
    "a header that is longer than allowed": (one(text_header(b" " * 60_000)), r"not a readable"),
    "a header that calls": (one(text_header(b"__import__('os').abort()")), r"not a readable"),
    "a future version": (one(b"\x93NUMPY\x09\x00" + b"\0" * 64), r"not a readable"),
    "cut short": (one(header("<f4", (4,)) + b"\0" * 8), r"claims 16 bytes|expected 16 bytes got 8"),
    "too many arrays": (archive(*((f"{i}.npy", b"") for i in range(10_001))), r"10001 arrays"),
    "two arrays of one name": (twice, r"two arrays of one name"),
    "encrypted": (encrypted, r"not a readable"),
    "no zip": (no_zip, r"not a readable"),
    "empty": (lambda path: path.touch(), r"not a readable"),
}
"""How the file is made, and what the refusal says."""


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_wherever_arrays_are_read(name: str, tmp_path: Path) -> None:
    """As evidence of an export and as calibration data, in one short message."""
    write, words = HOSTILE[name]
    path = tmp_path / "x.npz"
    write(path)
    for read, error in (
        (lambda: reference_io.load_reference_io(path), VerificationError),
        (lambda: reference_io.load_reference_io_lowering(path), VerificationError),
        (lambda: npz.read_npz(path, (TensorSpec("x", (1, 4)),)), CalibrationError),
        (lambda: npz.read_npz_labels(path), CalibrationError),
    ):
        with pytest.raises(error, match=words) as caught:
            read()
        assert len(str(caught.value)) < 400
        assert "\n" not in str(caught.value)


def test_the_bound_depends_on_the_files_own_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stored as it is may be large; what was pressed into little may not."""
    monkeypatch.setattr(array_file, "SMALL_BYTES", 1000)
    np.savez(tmp_path / "stored.npz", x=np.zeros(100_000))
    np.savez_compressed(tmp_path / "pressed.npz", x=np.zeros(100_000))
    assert array_file.read_array_file(tmp_path / "stored.npz")["x"].size == 100_000
    with pytest.raises(array_file.ArrayFileError, match="unpacks to"):
        array_file.read_array_file(tmp_path / "pressed.npz")
    assert array_file.array_file_limit_bytes(10**12) == array_file.MOST_BYTES


def test_what_numpy_writes_is_read(tmp_path: Path) -> None:
    """Every kind that an export or a user's own script saves."""
    made: dict[str, Array] = {
        "f": np.arange(6, dtype=np.float16).reshape(2, 3),
        "c": np.ones(2, np.complex64),
        "i": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "b": np.array([True, False]),
        "names": np.array(("zeros", "tiny")),
        "scalar": np.array(3.5),
        "empty": np.zeros((0, 3)),
    }
    np.savez_compressed(tmp_path / "x.npz", **made)  # type: ignore[arg-type]
    found = array_file.read_array_file(tmp_path / "x.npz")
    assert {name: array.dtype for name, array in found.items()} == {n: a.dtype for n, a in made.items()}
    assert all(np.array_equal(found[name], array) for name, array in made.items())
