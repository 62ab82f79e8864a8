"""Tests of the closed set of a release's files: attacks fail with the key and without."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from exporter.cli.app import app
from exporter.errors import VerificationError
from exporter.release import bundle, check, sha256sums
from exporter.release.check import CheckedIdentity
from exporter.release.release_request import ReleaseRequest
from tests.release import outs
from tests.release.forging import (
    AAR,
    RESOURCE,
    TITLE,
    Damage,
    edited,
    forged,
    library,
    repacked,
    resummed,
    with_code,
)

pytestmark = pytest.mark.usefixtures("numerics")
Keys = tuple[Path, Path]
SIGNATURE = f"{TITLE}.zip.sig"


def complaints(path: Path, key: Path | None = None, wanted: CheckedIdentity = check.ANY) -> str:
    """Return verify's problems; an empty string when the release holds."""
    try:
        audit = check.check_release(path, key, wanted=wanted)
    except VerificationError as error:
        return str(error)
    return " ".join(audit.problems)


def file(name: str, text: str = "x") -> Damage:
    """Return a change that adds a file."""

    def add(signed: Path) -> None:
        (signed / name).parent.mkdir(parents=True, exist_ok=True)
        (signed / name).write_text(text)

    return add


def folder(name: str) -> Damage:
    """Return a change that adds an empty folder."""
    return lambda signed: (signed / name).mkdir(parents=True)


def gone(name: str) -> Damage:
    def remove(signed: Path) -> None:
        path = signed / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


def signatures(change: Damage) -> Damage:
    """Return a change of the folder that no signature covers, with matching hashes."""

    def damage(signed: Path) -> None:
        change(signed / "signatures")
        sha256sums.write_sha256sums(signed / "signatures")

    return damage


def summed(change: Damage) -> Damage:
    """Return a change of an unpacked zip, with matching hashes."""

    def damage(inside: Path) -> None:
        change(inside)
        sha256sums.write_sha256sums(inside)

    return damage


def moved(name: str, to: str) -> Damage:
    return lambda signed: (signed / name).rename(signed / to)


def wrong_bytes(name: str) -> Damage:
    """Return a change that adds a file whose name is invalid UTF-8."""
    return lambda signed: Path(f"{signed}/{name}").write_text("x")


WITH_THE_KEY: dict[str, tuple[Damage, str]] = {
    "a file in signatures": (signatures(file("more.txt")), r"signatures/more.txt is not part"),
    "a program in signatures": (signatures(file("run.sh")), r"signatures/run.sh is not part"),
    "a folder in signatures": (signatures(file("sub/more.txt")), r"signatures/sub is not part"),
    "an empty folder in signatures": (folder("signatures/sub"), r"sub is an empty folder"),
    "another release's signature": (signatures(file("net-1.3.0.zip.sig")), r"net-1.3.0.zip.sig is not"),
    "the zip's signature is spoilt": (signatures(file(SIGNATURE, "{}")), r"zip does not hold"),
    "the zip's signature is gone": (signatures(gone(SIGNATURE)), r"has no signature"),
    "an empty folder": (folder("hooks"), r"hooks is an empty folder"),
    "an empty folder in maven": (folder("maven/com/example/net/1.5.0"), r"1.5.0 is an empty folder"),
    "empty folders in each other": (folder("a/b/c"), r"is an empty folder"),
    "the zip is renamed": (
        resummed(moved(f"{TITLE}.zip", "net-1.5.0.zip")),
        r"zip.sig is not part",
    ),
}
"""Attack, and the refusal's words for users with the public key."""


@pytest.mark.parametrize("attack", WITH_THE_KEY)
def test_an_attack_on_a_signed_release(attack: str, signed: Path, keys: Keys, numerics: list[Path]) -> None:
    """The attack is refused before anything runs."""
    damage, words = WITH_THE_KEY[attack]
    damage(signed)
    assert re.search(words, complaints(signed, keys[1]))
    assert numerics == []


def other_asset(inside: Path) -> None:
    """Add another model under another name to the library."""
    (inside / "assets/net/onnx-fp32.onnx").unlink()
    (inside / "assets/net/better.onnx").write_bytes(b"other")


def swapped_resource(signed: Path) -> None:
    (signed / RESOURCE / "Data" / "weight.bin").write_bytes(b"other")


def second_library(signed: Path) -> None:
    shutil.copy(signed / AAR, (signed / AAR).with_name("other.aar"))


def without_list(listed: Any) -> None:
    del listed["release"]["files"]


WITHOUT_A_KEY: dict[str, tuple[Damage, str]] = {
    "a line break in a name": (resummed(file(f"LICENSE\n{'0' * 64}  README.md")), r"not a plain name"),
    "a carriage return in a name": (resummed(file("a\rb")), r"not a plain name"),
    "an escape code in a name": (resummed(file("a\x1b[2Jb")), r"not a plain name"),
    "a backslash in a name": (resummed(file("a\\nb")), r"not a plain name"),
    "a direction mark in a name": (resummed(file("a\u202eb")), r"not a plain name"),
    "bytes that are no text in a name": (wrong_bytes("a\udcffb"), r"not a plain name"),
    "a second archive .ZIP": (resummed(file("net-1.5.0.ZIP")), r"2 zip archives"),
    "a second archive .zIp": (resummed(file("net-1.5.0.zIp")), r"2 zip archives"),
    "a second archive below": (resummed(file("snippets/b.zip")), r"b.zip is not in the manifest's list"),
    "a file with new hashes": (resummed(file("run.sh")), r"run.sh is not in the manifest's list"),
    "a changed licence with new hashes": (resummed(file("LICENSE")), r"LICENSE is not the file that the man"),
    "a changed card with new hashes": (resummed(file("MODEL_CARD.md")), r"MODEL_CARD.md is not the file"),
    "maven is gone": (resummed(gone("maven")), r"\.aar is missing"),
    "maven is gone from the list too": (forged(gone("maven")), r"net-1.4.0.aar is missing"),
    "swift is gone": (resummed(gone("swift")), r"Package.swift is missing"),
    "swift is gone from the list too": (forged(gone("swift")), r"Swift package is not the one in the zip"),
    "a checksum of maven is gone": (forged(gone(f"{AAR}.sha512")), r"sha512 is missing"),
    "snippets are gone": (resummed(gone("snippets")), r"LoadAndRun.kt is missing"),
    "a file in the list": (forged(file("maven/more.txt")), r"maven/more.txt is not part of the release"),
    "a file in the package": (forged(file("swift/NetModel/x.c")), r"NetModel/x.c is not part"),
    "a resource in the package": (forged(file(f"{RESOURCE}/../b.onnx")), r"b.onnx is not part"),
    "another model in the package": (forged(swapped_resource), r"Swift package is not the one in the zip"),
    "an asset that is another model": (forged(library(other_asset)), r"is not the one in the zip"),
    "an asset more": (forged(library(file("assets/net/b.onnx"))), r"b.onnx of net-1.4.0.aar is not part"),
    "an asset of another folder": (forged(library(file("assets/b.onnx"))), r"assets/b.onnx of net"),
    "a native library": (forged(library(file("jni/arm64-v8a/libx.so"))), r"libx.so of net-1.4.0.aar is not"),
    "code in the library": (forged(library(with_code)), r"holds code"),
    "a second library": (forged(second_library), r"other.aar is not part of the release"),
    "no list of files": (edited(without_list), r"does not list the files of its folder"),
    "a file in the zip": (repacked(file("more.txt")), r"more.txt is not part of the release"),
    "a page with new hashes in the zip": (
        repacked(summed(file("report.html"))),
        r"report.html is not the file that the manifest lists",
    ),
    "a file with new hashes in the zip": (
        repacked(summed(file("more.txt"))),
        r"more.txt is not in the manifest's list",
    ),
    "a renamed zip": (resummed(moved(f"{TITLE}.zip", "a.zip")), r"a.zip is not in the manifest's list"),
    "another version in the manifest": (
        edited(lambda listed: listed["release"].update(version="1.5.0")),
        r"net-1.4.0.zip is not in the manifest's list",
    ),
    "a BOM of endless depth": (forged(file(f"{TITLE}.cdx.json", "[" * 200_000)), r"BOM does not list"),
    "no BOM": (forged(gone(f"{TITLE}.cdx.json")), r"BOM does not list"),
}
"""Attack with matching hashes, and the refusal's words for users without a key."""


@pytest.mark.parametrize("attack", WITHOUT_A_KEY)
def test_an_attack_on_an_unsigned_release(attack: str, signed: Path, numerics: list[Path]) -> None:
    """The attack is refused before anything runs."""
    shutil.rmtree(signed / "signatures")
    damage, words = WITHOUT_A_KEY[attack]
    damage(signed)
    assert re.search(words, complaints(signed))
    assert numerics == []


def test_who_makes_everything_fit_deceives_only_those_without_a_key(signed: Path, keys: Keys) -> None:
    """A consistent forgery passes without a key, so the attacks above fail by themselves."""
    forged(file("LICENSE", "Another licence"))(signed)
    assert not complaints(signed)
    assert "does not hold" in complaints(signed, keys[1])


@pytest.fixture(scope="session")
def older(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Path:
    """Make version 1.3.0 of the same model, signed with the same key."""
    base = tmp_path_factory.mktemp("older")
    out = outs.write(base / "out", outs.report("pass"))
    return bundle.release_bundle(
        ReleaseRequest(out, "1.3.0", base / "released", name="net", key=keys[0])
    ).directory


EXPECTED: dict[str, tuple[CheckedIdentity, str]] = {
    "nothing": (CheckedIdentity(), ""),
    "the name": (CheckedIdentity(name="net"), ""),
    "name and version": (CheckedIdentity("net", "1.3.0"), ""),
    "another version": (CheckedIdentity(version="1.4.0"), "version is 1.3.0, expected 1.4.0"),
    "a version it begins with": (CheckedIdentity(version="1.3"), "version is 1.3.0, expected 1.3"),
    "another name": (CheckedIdentity(name="mobilenet"), "name is net, expected mobilenet"),
}


@pytest.mark.parametrize("case", EXPECTED)
@pytest.mark.parametrize("part", [".", "net-1.3.0.zip"])
def test_a_replayed_release(case: str, part: str, older: Path, keys: Keys, numerics: list[Path]) -> None:
    """An older signed release is refused only if another version is expected."""
    wanted, words = EXPECTED[case]
    audit = check.check_release(older / part, keys[1], wanted=wanted)
    assert audit.facts[0] == "It is net 1.3.0 of com.example."
    assert words in " ".join(audit.problems)
    assert bool(words) == (not audit.holds) == (numerics == [])


def test_a_renamed_older_zip(older: Path, keys: Keys, tmp_path: Path) -> None:
    """The manifest in a renamed zip reveals its version."""
    shutil.copy(older / "net-1.3.0.zip", tmp_path / "net-1.4.0.zip")
    shutil.copy(older / "signatures" / "net-1.3.0.zip.sig", tmp_path / "net-1.4.0.zip.sig")
    assert "holds net 1.3.0, whose zip is called net-1.3.0.zip" in complaints(
        tmp_path / "net-1.4.0.zip", keys[1]
    )


def test_an_export_has_no_version(tmp_path: Path) -> None:
    """An export is not taken for a release."""
    out = outs.write(tmp_path / "out", outs.report())
    assert "is no release, expected version 1.4.0" in complaints(out, wanted=CheckedIdentity(version="1.4.0"))
    assert not complaints(out)


def test_the_command_line_expects_and_says_name_and_version(signed: Path, keys: Keys) -> None:
    """Another version exits with 9; name and version are always printed."""
    run: Callable[..., Any] = CliRunner().invoke
    command = ["verify", str(signed), "--key", str(keys[1]), "--expect-name", "net", "--expect-version"]
    good, bad = run(app, [*command, "1.4.0"]), run(app, [*command, "1.5.0"])
    assert "It is net 1.4.0 of com.example." in good.output
    assert isinstance(bad.exception, VerificationError)
    assert "Its version is 1.4.0, expected 1.5.0." in bad.output


def test_a_release_without_libraries_holds(request_: ReleaseRequest, tmp_path: Path) -> None:
    """A release without artifacts for Android or Apple needs no libraries."""
    apple = replace(request_, artifacts=("coreml-fp16",), allow_unverified=("coreml-fp16",))
    assert not complaints(bundle.release_bundle(replace(apple, destination=tmp_path / "apple")).directory)
    assert not complaints(
        bundle.release_bundle(replace(request_, destination=tmp_path / "android")).directory
    )
