"""Tests of `verify` on releases: a changed, missing or foreign file is reported before anything runs."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from exporter.errors import ExportError, UsageError, VerificationError
from exporter.release import check, sha256sums, sign
from exporter.release import zip as archive
from tests.release.forging import forged, library, repacked, resummed

pytestmark = pytest.mark.usefixtures("numerics")
Keys = tuple[Path, Path]
TITLE = "It is net 1.4.0 of com.example."


def holds(path: Path, key: Path | None = None) -> bool:
    try:
        return check.check_release(path, key).holds
    except VerificationError:
        return False


@contextmanager
def changed(path: Path, position: int, bit: int) -> Iterator[None]:
    original = path.read_bytes()
    data = bytearray(original)
    data[position] ^= 1 << bit
    path.write_bytes(data)
    yield
    path.write_bytes(original)


def test_a_signed_release_holds(signed: Path, keys: Keys, numerics: list[Path]) -> None:
    """The folder and the zip verify with and without the key, and verify says which."""
    for path in (signed, signed / "net-1.4.0.zip"):
        assert check.check_release(path, keys[1]).facts == (TITLE, "Signed with the private half of pub.pem.")
        assert check.check_release(path).facts == (TITLE, check.NOT_CHECKED)
        assert check.check_release(path, keys[1]).holds
    assert len(numerics) == 6


def test_a_zip_alone(signed: Path, keys: Keys, tmp_path: Path) -> None:
    """The zip verifies with its signature next to it, and without one."""
    lone = Path(shutil.copy(signed / "net-1.4.0.zip", tmp_path / "net-1.4.0.zip"))
    assert check.check_release(lone).facts == (TITLE, check.UNSIGNED)
    with pytest.raises(VerificationError, match="has no signature"):
        check.check_release(lone, keys[1])
    shutil.copy(signed / "signatures" / "net-1.4.0.zip.sig", tmp_path)
    assert check.check_release(lone, keys[1]).holds


@pytest.mark.parametrize("with_key", [True, False])
def test_50_random_bytes(with_key: bool, signed: Path, keys: Keys, numerics: list[Path]) -> None:
    """Half of the bytes are anywhere, half in a file drawn first, so that small files are hit."""
    seeded = random.Random(20)
    files = [path for path in sorted(signed.rglob("*")) if path.is_file() and path.stat().st_size]
    weights = [path.stat().st_size for path in files]
    key = keys[1] if with_key else None
    assert holds(signed, key)
    numerics.clear()
    for number in range(50):
        path = seeded.choice(files) if number % 2 else seeded.choices(files, weights)[0]
        position, bit = seeded.randrange(path.stat().st_size), seeded.randrange(8)
        with changed(path, position, bit):
            assert not holds(signed, key), (path.relative_to(signed), position, bit)
    assert numerics == []
    assert holds(signed, key)


def test_a_byte_of_every_file(signed: Path, numerics: list[Path]) -> None:
    """The first byte, and the case of hexadecimal digits, count in every file."""
    for path in sorted(signed.rglob("*")):
        if path.is_file() and path.stat().st_size:
            with changed(path, 0, 5):
                assert not holds(signed), path
    assert numerics == []


def test_hashes_in_capitals(signed: Path, tmp_path: Path) -> None:
    """A hash in capitals is refused, although it is the same number."""
    path = signed / "SHA256SUMS"
    position = next(i for i, c in enumerate(path.read_text()) if c in "abcdef")
    with changed(path, position, 5):
        assert not holds(signed)


def test_50_random_bytes_of_the_zip_alone(signed: Path, tmp_path: Path, numerics: list[Path]) -> None:
    """Bytes outside of files' contents count, too, when there is no signature."""
    lone = Path(shutil.copy(signed / "net-1.4.0.zip", tmp_path / "net-1.4.0.zip"))
    seeded = random.Random(21)
    for _ in range(50):
        with changed(lone, seeded.randrange(lone.stat().st_size), seeded.randrange(8)):
            assert not holds(lone)
    assert numerics == []


def link(signed: Path) -> None:
    (signed / "LICENSE").rename(signed.parent / "LICENSE")
    (signed / "LICENSE").symlink_to(signed.parent / "LICENSE")


def other_model(inside: Path) -> None:
    """Put other weights under the right name into a valid library."""
    (inside / "assets" / "net" / "onnx-fp32.onnx").write_bytes(b"other")


def no_release(inside: Path) -> None:
    listed = json.loads((inside / "manifest.json").read_text())
    del listed["release"]
    (inside / "manifest.json").write_text(json.dumps(listed))
    sha256sums.write_sha256sums(inside)


UNSIGNED: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda d: (d / "LICENSE").unlink(), "LICENSE is missing"),
    "more": (lambda d: (d / "extra.txt").write_text("x"), "extra.txt is not part of the release"),
    "hidden": (lambda d: (d / ".gitignore").write_text("x"), "gitignore is not part of the release"),
    "link": (link, "LICENSE is a link"),
    "no list": (lambda d: (d / "SHA256SUMS").unlink(), "SHA256SUMS is missing"),
    "signature gone": (lambda d: (d / "signatures" / "bundle.sig").unlink(), "bundle.sig is missing"),
    "signature more": (lambda d: (d / "signatures" / "x").write_text(""), "x is not part of the release"),
    "two zips": (resummed(lambda d: (d / "b.zip").write_text("x")), "holds 2 zip archives"),
    "inner file": (
        repacked(lambda d: (d / "LICENSE").write_text("x")),
        "LICENSE is not the file that was released",
    ),
    "inner manifest": (repacked(no_release), "does not describe a release"),
    "other model": (
        forged(library(other_model)),
        "onnx-fp32.onnx in net-1.4.0.aar is not the one in the zip",
    ),
    "other bom": (
        forged(lambda d: (d / "net-1.4.0.cdx.json").write_text("{}")),
        "does not list the released artifacts",
    ),
}
"""Damage, and the words that report it to users without a key."""


def complaints(path: Path, key: Path | None = None) -> str:
    try:
        audit = check.check_release(path, key)
    except VerificationError as error:
        return str(error)
    assert not audit.holds
    return " ".join(audit.problems)


@pytest.mark.parametrize("name", UNSIGNED)
def test_damage_without_a_key(name: str, signed: Path) -> None:
    """The message names the damaged file."""
    damage, words = UNSIGNED[name]
    damage(signed)
    assert words in complaints(signed)


@pytest.mark.parametrize("name", UNSIGNED)
def test_damage_with_the_key(name: str, signed: Path, keys: Keys, numerics: list[Path]) -> None:
    """Even consistent damage is refused with the key."""
    UNSIGNED[name][0](signed)
    assert not holds(signed, keys[1])
    assert numerics == []


def test_hashes_made_anew_need_the_key(signed: Path, keys: Keys) -> None:
    """New hashes deceive only users without the key."""
    forged(lambda d: (d / "LICENSE").write_text("Another licence"))(signed)
    assert holds(signed)
    assert "signature of signed does not hold" in complaints(signed, keys[1])


def test_anothers_key(signed: Path, tmp_path: Path) -> None:
    """Another key's signature is refused."""
    from cryptography.hazmat.primitives import serialization as ser
    from cryptography.hazmat.primitives.asymmetric import ec

    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    other = tmp_path / "other.pem"
    other.write_bytes(public.public_bytes(ser.Encoding.PEM, ser.PublicFormat.SubjectPublicKeyInfo))
    assert "does not hold" in complaints(signed, other)
    assert "does not hold" in complaints(signed / "net-1.4.0.zip", other)


def test_a_release_without_signature_needs_one_when_there_is_a_key(signed: Path, keys: Keys) -> None:
    """A release without signatures is refused with a key."""
    shutil.rmtree(signed / "signatures")
    assert check.check_release(signed).facts == (TITLE, check.UNSIGNED)
    assert "has no signature" in complaints(signed, keys[1])


def test_a_folder_of_signatures_that_is_a_link(signed: Path, tmp_path: Path) -> None:
    """A link in place of the folder of signatures is not followed."""
    (signed / "signatures").rename(tmp_path / "signatures")
    (signed / "signatures").symlink_to(tmp_path / "signatures")
    assert not holds(signed)


def test_out_of_the_zip(signed: Path, keys: Keys, tmp_path: Path, numerics: list[Path]) -> None:
    """An unpacked zip is checked by hashes, then numerics; a key is refused there."""
    inside = tmp_path / "inside"
    inside.mkdir()
    archive.unpack_zip(signed / "net-1.4.0.zip", inside)
    assert holds(inside)
    with pytest.raises(VerificationError, match="has no signature"):
        check.check_release(inside, keys[1])
    (inside / "report.html").write_text("other")
    numerics.clear()
    assert "report.html is not the file that was released" in complaints(inside)
    (inside / "SHA256SUMS").unlink()
    assert "SHA256SUMS is missing" in complaints(inside)
    assert numerics == []


def test_openssf_own_program_agrees(signed: Path, keys: Keys) -> None:
    """model-signing's own program accepts the release, and refuses an added file."""
    from model_signing import verifying

    def accepts(path: Path, signature: str) -> None:
        config: Any = verifying.Config()  # type: ignore[no-untyped-call]
        config.use_elliptic_key_verifier(public_key=keys[1]).verify(path, signed / "signatures" / signature)

    accepts(signed, "bundle.sig")
    accepts(signed / "net-1.4.0.zip", "net-1.4.0.zip.sig")
    (signed / "more").write_text("x")
    with pytest.raises(ValueError, match="Extra files"):
        accepts(signed, "bundle.sig")


def test_a_file_that_git_would_hide_is_signed_too(signed: Path, keys: Keys) -> None:
    """Files that git ignores are signed, too."""
    signature = signed / "signatures" / "bundle.sig"
    sign.check_signature(signed, signature, keys[1])
    (signed / ".gitignore").write_text("*")
    with pytest.raises(VerificationError, match="does not hold"):
        sign.check_signature(signed, signature, keys[1])


class TestKeys:
    def test_what_is_no_private_key(self, signed: Path, keys: Keys, tmp_path: Path) -> None:
        """An invalid key gives one message with the command that makes a key."""
        from cryptography.hazmat.primitives import serialization as ser
        from cryptography.hazmat.primitives.asymmetric import ed25519

        kind = ed25519.Ed25519PrivateKey.generate()
        edwards = tmp_path / "edwards.pem"
        edwards.write_bytes(kind.private_bytes(ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.NoEncryption()))
        text = tmp_path / "text.pem"
        text.write_text("hello")
        shutil.rmtree(signed / "signatures")
        for key in (keys[1], text, edwards):
            with pytest.raises(UsageError, match="openssl ecparam"):
                sign.write_signatures(signed, signed / "net-1.4.0.zip", key)
        assert not (signed / "signatures").exists()

    def test_an_encrypted_key(self, signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An encrypted key opens with the variable that the message names."""
        from cryptography.hazmat.primitives import serialization as ser
        from cryptography.hazmat.primitives.asymmetric import ec

        locked = tmp_path / "locked.pem"
        locked.write_bytes(
            ec.generate_private_key(ec.SECP384R1()).private_bytes(
                ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.BestAvailableEncryption(b"secret")
            )
        )
        shutil.rmtree(signed / "signatures")
        with pytest.raises(UsageError, match=sign.PASSWORD):
            sign.write_signatures(signed, signed / "net-1.4.0.zip", locked)
        monkeypatch.setenv(sign.PASSWORD, "secret")
        sign.write_signatures(signed, signed / "net-1.4.0.zip", locked)
        assert holds(signed)

    def test_what_is_no_public_key(self, signed: Path, keys: Keys) -> None:
        """A private key is not accepted as a public one."""
        with pytest.raises(UsageError, match="no public key"):
            check.check_release(signed, keys[0])
        with pytest.raises(ExportError):
            check.check_release(signed, Path("nowhere.pem"))
