"""The records of the question "will it load in the app?": needs, offers, libraries and answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Runtime = Literal["ExecuTorch", "ONNX Runtime"]
Loads = Literal["yes", "no", "unknown"]


@dataclass(frozen=True)
class Operator:
    """An operator that an artifact calls."""

    name: str
    """"aten::add.out" in ExecuTorch; "Conv" in ONNX, without its domain."""
    domain: str = ""
    """ONNX only; empty is ONNX's own domain."""
    version: int = 0
    """ONNX only: the opset version that defined the operator as this file uses it; 0 where it is unknown."""
    body: tuple[Operator, ...] = ()
    """ONNX only: the operators that a runtime without a kernel calls instead; empty where there are none."""

    @property
    def title(self) -> str:
        version = f" (version {self.version})" if self.version else ""
        return f"{self.domain}.{self.name}{version}" if self.domain else f"{self.name}{version}"


@dataclass(frozen=True)
class Needs:
    """What an artifact needs from its runtime, as read from the file."""

    runtime: Runtime
    operators: tuple[Operator, ...]
    backends: tuple[str, ...] = ()
    """ExecuTorch: the delegates, "XnnpackBackend"."""
    delegate_operators: tuple[str, ...] = ()
    """ExecuTorch: the kinds of nodes in XNNPACK's graphs, "XNNConv2d"."""
    identifier: str = ""
    """ExecuTorch: the file's mark with the version of its layout, "ET12"."""
    ir_version: int = 0
    """ONNX: the version of an .onnx file's layout; 0 in an .ort file."""
    opsets: tuple[tuple[str, int], ...] = ()
    """ONNX: the opset that an .onnx file imports from each domain."""
    ort_format: int = 0
    """ONNX: the version of an .ort file's layout; 0 in an .onnx file."""


@dataclass(frozen=True)
class Library:
    """A shared library, as read from its ELF file."""

    name: str
    """Where it is: a file's name, or the path in an AAR or APK."""
    abi: str = ""
    """"arm64-v8a", "x86_64", …; the machine's number where Android has no such ABI."""
    page_bytes: int = 0
    """The smallest alignment of its loadable segments: it loads on devices with pages up to this size."""
    min_sdk: int | None = None
    """The Android API level that it was built for; None where it has no note of the NDK."""
    ndk: str = ""
    """The NDK's release, "r27c"; empty where it has no note."""
    executorch: bool = False
    """Whether it is a part of ExecuTorch, or registers kernels or backends with it."""
    onnx_runtime: bool = False
    """Whether it is ONNX Runtime."""
    names: frozenset[str] = frozenset()
    """The names, of those looked for, that are texts in its read-only data."""
    tails: frozenset[str] = frozenset()
    """The names, of those looked for, that are only the end of another text there.

    A linker puts a name at the end of a longer one, and a compiler may put bytes without an end before it.
    """
    identifiers: tuple[str, ...] = ()
    """ExecuTorch: the marks of the files that it reads, "ET12"; empty where it names none."""
    version: str = ""
    """ONNX Runtime's version; empty where it is not known."""
    reads_onnx: bool = False
    """ONNX Runtime: whether it reads .onnx files; a minimal build reads .ort files only."""
    problem: str = ""
    """Why its file cannot be used; empty when it can."""
    unaligned_offset: int | None = None
    """Where an APK stores it uncompressed, if the place is no multiple of 16 KB; else None."""


@dataclass(frozen=True)
class Container:
    """A file that was given: a library, an AAR or an APK."""

    name: str
    libraries: tuple[Library, ...]
    min_sdk: int | None = None
    """The minimum SDK that an AAR's manifest declares; None where it is not known."""
    problem: str = ""


@dataclass(frozen=True)
class Answer:
    """Whether one artifact loads in one place."""

    artifact: str
    place: str
    """"onnxruntime-android 1.32.0", or the libraries that were given."""
    loads: Loads
    problems: tuple[str, ...] = ()
    """Why it does not load."""
    unknown: tuple[str, ...] = ()
    """What neither the artifact's file nor the library's tells."""
    since: str = ""
    """The oldest described version of the package that loads it; empty where none does, or for files."""


@dataclass(frozen=True)
class Check:
    """The answers of `verify --for-app` for all artifacts."""

    answers: tuple[Answer, ...]
    containers: tuple[Container, ...] = ()
    problems: tuple[str, ...] = ()
    """What is wrong with OUT or with a library, whatever the artifact."""
    unknown: tuple[str, ...] = ()
    """What files cannot tell about any artifact."""

    @property
    def holds(self) -> bool:
        """Whether every artifact loads for certain, and nothing is wrong with a library."""
        return bool(self.answers) and not self.problems and all(a.loads == "yes" for a in self.answers)
