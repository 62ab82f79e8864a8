"""Sign and verify offline with OpenSSF model-signing and the user's elliptic-curve key.

ECDSA takes a random number for every signature, so two signatures of one folder differ; what they sign is the
same. They are in their own folder, left out of what is signed and of what two builds must agree on.
`signatures/SHA256SUMS` lets users without a key find accidental changes in them, too.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from exporter.errors import UsageError, VerificationError
from exporter.release import release_extra, sha256sums

FOLDER = "signatures"
BUNDLE = "bundle.sig"
PASSWORD = "EXPORT_MOBILE_KEY_PASSWORD"
MAX_BYTES = 4 << 20


def write_signatures(directory: Path, archive: Path, key: Path) -> None:
    """Sign a folder, and separately the archive in it; then verify both with the key's public half.

    Args:
        directory: The folder, complete except for `FOLDER`; its name goes into the signature.
        archive: The archive in it.
        key: A PEM key on P-256, P-384 or P-521; `EXPORT_MOBILE_KEY_PASSWORD` decrypts an encrypted one.

    Raises:
        MissingDependencyError: model-signing is not installed.
        UsageError: The key cannot be used.
    """
    signing = release_extra.need_release_extra("model_signing.signing", "Signing")
    public = _public_half_of_signing_key(key)  # before anything is written
    folder = directory / FOLDER
    folder.mkdir()
    for path, name in ((archive, f"{archive.name}.sig"), (directory, BUNDLE)):
        config = signing.Config().use_elliptic_key_signer(private_key=key, password=_signing_password())
        config.set_hashing_config(_signature_hashing()).sign(path, folder / name)
    sha256sums.write_sha256sums(folder)
    with tempfile.TemporaryDirectory() as scratch:
        pem = Path(scratch) / "public.pem"
        pem.write_bytes(public)
        check_signature(archive, folder / f"{archive.name}.sig", pem)
        check_signature(directory, folder / BUNDLE, pem)


def check_signature(path: Path, signature: Path, key: Path) -> None:
    """Verify a signature of a file, or of every file of a folder (except `FOLDER` in it).

    Args:
        path: The file or folder.
        signature: The signature that `write_signatures` made.
        key: The public key, PEM.

    Raises:
        MissingDependencyError: model-signing is not installed.
        UsageError: The key cannot be used.
        VerificationError: There is no signature, or it is not this key's signature of these bytes.
    """
    verifying = release_extra.need_release_extra("model_signing.verifying", "Checking a signature")
    if signature.is_symlink() or not signature.is_file() or signature.stat().st_size > MAX_BYTES:
        raise VerificationError(
            f"{path.name} has no signature: {signature.name} is missing.", code="EM-SIGNATURE"
        )
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UsageError(
            f"--key {key} is no public key that can be used: {error}.", KINDS, code="EM-KEY"
        ) from None
    try:
        config.set_hashing_config(_signature_hashing()).verify(path, signature)
    except Exception as error:  # what a damaged signature makes the library raise is of any type
        why = str(error) or type(error).__name__
        raise VerificationError(
            f"The signature of {path.name} does not hold: {why[:300].rstrip('. ')}.",
            code="EM-SIGNATURE",
        ) from None


KINDS = (
    "Make a pair with: openssl ecparam -genkey -name prime256v1 -noout -out key.pem; "
    "openssl ec -in key.pem -pubout -out pub.pem"
)


def _signature_hashing() -> Any:
    """Hash every file, also those that git ignores; leave out one path."""
    hashing = release_extra.need_release_extra("model_signing.hashing", "Signing")
    return hashing.Config().set_ignored_paths(paths=[FOLDER], ignore_git_paths=False)


def _signing_password() -> bytes | None:
    return os.environ[PASSWORD].encode() if os.environ.get(PASSWORD) else None


def _public_half_of_signing_key(key: Path) -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        private = serialization.load_pem_private_key(key.read_bytes(), _signing_password())
    except (OSError, ValueError, TypeError) as error:
        hint = f"Set {PASSWORD}." if "encrypted" in str(error) else KINDS
        raise UsageError(
            f"--key {key} cannot be read as a private key: {error}.", hint, code="EM-KEY"
        ) from None
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name not in CURVES:
        raise UsageError(
            f"--key {key} is of a kind that model-signing does not accept.", KINDS, code="EM-KEY"
        )
    return private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


CURVES = {"secp256r1", "secp384r1", "secp521r1"}
