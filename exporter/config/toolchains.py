"""Lists the sets of framework versions that were tested together, and compares the installed one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata


@dataclass(frozen=True)
class ToolchainSet:
    """Versions of the frameworks that were tested together."""

    name: str
    """The month of the tests, with a letter after it where several were tested in it."""
    versions: Mapping[str, str]


# The first is what scripts/constraints.txt installs in a checkout and in CI: the whole suite runs on it.
# `python -m benchmarks.toolchains` runs the acceptance suite on another.
TOOLCHAIN_SETS: tuple[ToolchainSet, ...] = (
    ToolchainSet(
        "2026.11",
        {
            "torch": "2.13.0",
            "torchvision": "0.28.0",
            "executorch": "1.4.1",
            "torchao": "0.18.0",
            "onnx": "1.23.2",
            "onnxruntime": "1.32.0",
            "onnxscript": "0.7.2",
            "coremltools": "9.0",
        },
    ),
    ToolchainSet(
        "2026.11b",
        {
            "torch": "2.14.1",
            "torchvision": "0.29.1",
            "executorch": "1.5.1",
            "torchao": "0.18.0",
            "onnx": "1.23.2",
            "onnxruntime": "1.32.0",
            "onnxscript": "0.7.2",
            "coremltools": "9.0",
        },
    ),
)


@dataclass(frozen=True)
class InstalledToolchain:
    """What is installed, beside the tested set that it is nearest to."""

    nearest: ToolchainSet
    different: Mapping[str, str]
    """Package -> its version, "none" where it is not installed; empty: it is the tested set."""

    @property
    def text(self) -> str:
        """Return one sentence: the tested set, or what differs from the nearest one."""
        if not self.different:
            return f"tested set {self.nearest.name}"
        listed = ", ".join(
            f"{name} {version} (tested: {self.nearest.versions[name]})"
            for name, version in self.different.items()
        )
        return f"no tested set; nearest {self.nearest.name}, but {listed}"


def installed_toolchain() -> InstalledToolchain:
    """Compare the installed packages with the tested sets; imports none of them."""
    return compare_toolchain(
        {name: _installed_toolchain_version(name) for name in TOOLCHAIN_SETS[0].versions}
    )


def compare_toolchain(installed: Mapping[str, str]) -> InstalledToolchain:
    """Find the set with the fewest differences; the first of several.

    Args:
        installed: Package -> version. What was built for a processor (2.13.0+cpu) is the version itself.
    """
    plain = {name: version.partition("+")[0] for name, version in installed.items()}
    compared = [
        InstalledToolchain(
            tested,
            {
                name: plain.get(name, "none")
                for name, version in tested.versions.items()
                if plain.get(name, "none") != version
            },
        )
        for tested in TOOLCHAIN_SETS
    ]
    return min(compared, key=lambda toolchain: len(toolchain.different))


def toolchain_warnings() -> tuple[str, ...]:
    """Return a warning where the installed packages are no tested set."""
    toolchain = installed_toolchain()
    if not toolchain.different:
        return ()
    return (f"The installed frameworks are {toolchain.text}. The limits decide as ever.",)


def _installed_toolchain_version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"
