"""TorchScript archives that reach for files, the screen or the clock are refused before they do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from exporter import checkpoints, sandbox
from exporter.checkpoints import torchscript_checkpoint, torchscript_operators
from exporter.errors import CheckpointError
from tests.checkpoints import hostile_scripts as hostile
from tests.checkpoints.makers import torchscript_bytes, written

STATEMENTS = {
    f"{group}: {name}, in {method}": (lines, method)
    for group, table in {
        "write": hostile.WRITERS,
        "read": hostile.READERS,
        "speak": hostile.SPEAKERS,
        "other": hostile.OTHERS,
    }.items()
    for name, lines in table.items()
    for method in ("__setstate__", "forward")
}
ARCHIVES: dict[str, Callable[[], bytes]] = {
    **{name: lambda a=a: hostile.with_statements(*a) for name, a in STATEMENTS.items()},  # type: ignore[misc]
    **{f"renamed: {name}": make for name, make in hostile.RENAMED.items()},
    **{f"class: {name}": make for name, make in hostile.CLASSES.items()},
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_that_do_more_than_compute_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    """Reading such an archive writes no file, says nothing, and ends in one message."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torchscript_checkpoint, "CHECK_SECONDS", 5.0)
    path = written(tmp_path, ARCHIVES[name]())
    capfd.readouterr()
    with pytest.raises(CheckpointError):
        checkpoints.read_checkpoint(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("lines", [*hostile.HANGS.values()], ids=[*hostile.HANGS])
def test_endless_code_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str) -> None:
    """Code that never ends, or ends with the memory, is cut off and the message says so."""
    monkeypatch.setattr(torchscript_checkpoint, "CHECK_SECONDS", 1.0)
    path = written(tmp_path, hostile.with_statements(lines))
    began = time.monotonic()
    with pytest.raises(CheckpointError, match=r"more than 1 s|memory|crashes"):
        checkpoints.read_checkpoint(path)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("lines", [*hostile.SWELLING.values()], ids=[*hostile.SWELLING])
def test_memory_is_bounded(tmp_path: Path, lines: str) -> None:
    """Code that allocates without end gets an error instead of the machine's memory."""
    with pytest.raises(CheckpointError, match=r"memory|crashes"):
        checkpoints.read_checkpoint(written(tmp_path, hostile.with_statements(lines)))


@pytest.mark.parametrize("make", [*hostile.CRASHES.values()], ids=[*hostile.CRASHES])
def test_code_that_crashes_the_parser_crashes_only_the_child(
    tmp_path: Path, make: Callable[[], bytes]
) -> None:
    """A stack overflow in PyTorch's parser is a refused file, not the end of the process."""
    with pytest.raises(CheckpointError):
        checkpoints.read_checkpoint(written(tmp_path, make()))


def test_the_operator_is_named(tmp_path: Path) -> None:
    """The message says which operator was refused and how to go on."""
    path = written(tmp_path, hostile.with_statements('getattr(torch, "save")(x_, "MARKER")'))
    with pytest.raises(CheckpointError, match=r"aten::save.*--trust"):
        checkpoints.read_checkpoint(path)


def test_without_a_sandbox_an_archive_needs_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading runs the archive's code: where nothing confines it, it is not loaded unasked."""
    monkeypatch.setattr(sandbox, "sandbox_support", lambda: sandbox.SandboxSupport(0, seccomp=False))
    path = written(tmp_path, torchscript_bytes())
    with pytest.raises(CheckpointError, match=r"no sandbox.*--trust"):
        checkpoints.read_checkpoint(path)
    assert checkpoints.read_checkpoint(path, trust=True).module is not None


class Busy(nn.Module):
    """An honest network with what scripted ones hold: branches, checks, warnings, forks, dictionaries."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        if image.dim() != 4:
            raise ValueError(f"expected 4 dimensions, not {image.dim()}")
        later = torch.jit.fork(torch.sin, image)  # type: ignore[no-untyped-call]
        total = torch.zeros(1)
        for index in range(image.size(0)):
            total = total + image[index].sum()
        sampled = nn.functional.interpolate(image, scale_factor=2.0, mode="bilinear", antialias=True)
        sine = torch.jit.wait(later)  # type: ignore[no-untyped-call]
        return {"sum": total, "sine": sine, "up": sampled}


def test_an_honest_network_passes(tmp_path: Path) -> None:
    """Control flow, exceptions, forks and dictionaries are no reason to refuse a network."""
    assert checkpoints.read_checkpoint(written(tmp_path, torchscript_bytes(Busy()))).module is not None
    assert (
        checkpoints.read_checkpoint(written(tmp_path, torchscript_bytes(hostile.Stateful()))).module
        is not None
    )


NAMES_FILES = ("aten::save", "aten::from_file", "debugprims::load_tensor")
FREE_TEXT = {
    "aten::__interpolate", "aten::__upsample", "aten::_assert_async", "aten::_assert_scalar",
    "aten::_convolution_mode", "aten::_linalg_eigh", "aten::_linalg_svd", "aten::get_autocast_dtype",
    "mkldnn_prepacked::conv2d_prepack", "prim::RaiseException", "aten::warn", "aten::device",
    "profiler::_record_function_enter", "profiler::_record_function_enter_new", "aten::einsum", "aten::stft",
    "aten::meshgrid", "aten::searchsorted", "aten::segment_reduce", "aten::pad", "aten::pad_sequence",
    "aten::quantile", "aten::nanquantile", "aten::gelu", "aten::gelu_", "aten::index_reduce",
    "aten::index_reduce_", "aten::scatter", "aten::scatter_", "aten::scatter_reduce", "aten::scatter_reduce_",
    "aten::div", "aten::div_", "aten::divide", "aten::divide_", "aten::conv1d", "aten::conv2d",
    "aten::conv3d",
}  # fmt: skip
"""Operators that take a text which chooses how they compute."""


def test_no_allowed_operator_names_a_file() -> None:
    """An operator takes a tensor and a text only where the text is known to choose how it computes."""
    suspicious = set()
    for schema in torch._C._jit_get_all_schemas():
        kinds = [str(argument.type) for argument in schema.arguments]
        takes_text = any("str" in kind for kind in kinds)
        takes_values = any("Tensor" in kind or kind == "t" for kind in kinds)
        if takes_text and (takes_values or len(kinds) == kinds.count("str")):
            suspicious.add(schema.name)
    of_texts = {name for name in suspicious if name.startswith(("aten::linalg_", "aten::fft_"))}
    unknown = (
        (suspicious & torchscript_operators.allowed_torchscript_operators())
        - FREE_TEXT
        - of_texts
        - TEXT_FUNCTIONS
    )
    assert not unknown
    assert not set(NAMES_FILES) & torchscript_operators.allowed_torchscript_operators()


TEXT_METHODS = (
    "Delete", "Float", "Int", "__contains__", "__getitem__", "_set_item", "add", "any", "capitalize",
    "center", "clear", "copy", "count", "dict", "endswith", "eq", "expandtabs", "find", "format", "ge",
    "get", "gt", "index", "isalnum", "isalpha", "isdecimal", "isdigit", "isidentifier", "islower",
    "isnumeric", "isprintable", "isspace", "istitle", "isupper", "items", "join", "keys", "le", "len",
    "list", "ljust", "lower", "lstrip", "lt", "ne", "ord", "partition", "percentFormat", "pop", "popitem",
    "remove", "replace", "rfind", "rindex", "rjust", "rpartition", "rsplit", "rstrip", "setdefault",
    "slice", "sort", "sorted", "split", "splitlines", "startswith", "strip", "swapcase", "title", "update",
    "upper", "values", "zfill",
)  # fmt: skip
TEXT_FUNCTIONS = {
    "prim::StringIndex",
    "prim::ModuleContainerIndex",
    *(f"aten::{name}" for name in TEXT_METHODS),
}
"""Methods of texts, and of dictionaries whose keys are texts."""
