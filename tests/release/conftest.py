"""Fixtures: a measured export, a key pair, and a signed release of it, made once."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from exporter.pipeline import audit
from exporter.pipeline.audit import Audit, AuditFinding
from exporter.release import bundle
from exporter.release.release_request import ReleaseRequest
from tests.release import outs

LICENCE = "Licence of a test\n\nDo what you like.\n"


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Make a private and a public key as the README does."""
    folder = tmp_path_factory.mktemp("keys")
    private, public = folder / "key.pem", folder / "pub.pem"
    new = ["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", str(private)]
    subprocess.run(new, check=True, capture_output=True)
    half = ["openssl", "ec", "-in", str(private), "-pubout", "-out", str(public)]
    subprocess.run(half, check=True, capture_output=True)
    return private, public


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Make an export whose choice a phone has measured to be fast enough."""
    return outs.write(tmp_path / "out", outs.report("pass"))


@pytest.fixture
def request_(out: Path, tmp_path: Path) -> ReleaseRequest:
    """Return the smallest request for a release."""
    return ReleaseRequest(out=out, version="1.4.0", destination=tmp_path / "released")


@pytest.fixture(scope="session")
def _signed(tmp_path_factory: pytest.TempPathFactory, keys: tuple[Path, Path]) -> Path:
    folder = tmp_path_factory.mktemp("signed")
    licence = folder / "licence.txt"
    licence.write_text(LICENCE)
    request = ReleaseRequest(
        out=outs.write(folder / "out", outs.report("pass")),
        version="1.4.0",
        destination=folder / "released",
        name="net",
        licence=licence,
        allow_unverified=("coreml-fp16",),
        key=keys[0],
    )
    return bundle.release_bundle(request).directory


@pytest.fixture
def signed(_signed: Path, tmp_path: Path) -> Path:
    """Copy a signed release with an Android library and a Swift package; tests may damage it."""
    return Path(shutil.copytree(_signed, tmp_path / "signed"))


@pytest.fixture
def numerics(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Record the folders whose artifacts would run; made-up artifacts cannot, and "pass"."""
    seen: list[Path] = []

    def pretend(out: Path, workers: int = 1, observer: object = None, arm64: object = None) -> Audit:
        seen.append(out)
        return Audit((AuditFinding("onnx-fp32", "passed", "passed", ""),), "onnx-fp32", ())

    monkeypatch.setattr(audit, "verify_export", pretend)
    return seen
