"""The plugin by which QEMU counts instructions, compiled on first use."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from exporter.errors import MissingDependencyError

SOURCE = Path(__file__).with_name("plugin.c")
QEMU = "qemu-aarch64"
"""Only dynamically linked builds take plugins; `qemu-aarch64-static` never does."""
COMPILERS = ("gcc", "cc", "clang")
PACKAGES = "apt install qemu-user gcc"
FIRST_WITH_VERSION_2 = 9
"""QEMU 9 refuses plugins of version 1; QEMU 7 and 8 refuse those of version 2."""
SECONDS = 60.0


@dataclass(frozen=True)
class Plugin:
    """A QEMU that takes plugins, and the compiled plugin."""

    qemu: Path
    library: Path

    def options(self, answer: Path) -> tuple[str, ...]:
        """Return QEMU's options that count into a file."""
        return ("-plugin", f"{self.library},out={answer}")


def missing_for_qemu_plugin() -> str:
    """Return what keeps the plugin from being compiled here, as a command; empty where nothing does."""
    qemu = shutil.which(QEMU)
    return "" if qemu and _compiler_for_qemu_plugin() and _takes_qemu_plugins(Path(qemu)) else PACKAGES


def make_qemu_plugin(folder: Path) -> Plugin:
    """Return the plugin; compile it the first time.

    Args:
        folder: Where the library is kept.

    Raises:
        MissingDependencyError: QEMU or a compiler is missing, or the compiler refuses the source.
    """
    if command := missing_for_qemu_plugin():
        raise MissingDependencyError(
            "Counting instructions needs a dynamically linked QEMU and a C compiler.",
            f"Debian: {command}.",
            code="EM-ARM64",
        )
    qemu = Path(str(shutil.which(QEMU)))
    version = 2 if _qemu_major_for_plugin(qemu) >= FIRST_WITH_VERSION_2 else 1
    key = hashlib.sha256(SOURCE.read_bytes() + bytes([version])).hexdigest()[:24]
    library = folder / f"count-{key}.so"
    if not library.is_file():
        library.parent.mkdir(parents=True, exist_ok=True)
        _compile_qemu_plugin(library, version)
    return Plugin(qemu, library)


def _compiler_for_qemu_plugin() -> str | None:
    return next((path for name in COMPILERS if (path := shutil.which(name))), None)


def _takes_qemu_plugins(qemu: Path) -> bool:
    """Tell whether QEMU has the option: it then complains about the plugin, not about the option."""
    done = subprocess.run(
        [qemu, "-plugin", "/nonexistent.so", "/nonexistent"],
        capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False,
    )  # fmt: skip
    return "Could not load plugin" in done.stderr


def _qemu_major_for_plugin(qemu: Path) -> int:
    done = subprocess.run([qemu, "--version"], capture_output=True, text=True, timeout=SECONDS, check=False)
    match = re.search(r"version (\d+)", done.stdout)
    return int(match[1]) if match else 0


def _compile_qemu_plugin(library: Path, version: int) -> None:
    """Compile beside the library, then rename: another process may do the same."""
    with tempfile.TemporaryDirectory(dir=library.parent) as name:
        fresh = Path(name) / library.name
        command = [
            str(_compiler_for_qemu_plugin()), "-O2", "-fPIC", "-shared", f"-DPLUGIN_VERSION={version}",
            str(SOURCE), "-o", str(fresh),
        ]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False
        )
        if done.returncode:
            raise MissingDependencyError(
                f"Compiling QEMU's counting plugin failed: {done.stderr.strip()[:400]}",
                "Check the C compiler.",
                code="EM-ARM64",
            )
        fresh.replace(library)
