"""Small checkpoints in every format, and hostile ones."""

from __future__ import annotations

import functools
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

LAYOUTS = ("zip", "legacy")


class Net(nn.Module):
    """A convolution, a batch norm and a linear layer: floats, and one integer buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.head = nn.Linear(2, 3)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(image)).relu().mean((2, 3)))  # type: ignore[no-any-return]


@functools.cache
def net() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().eval()


def weights(scale: float = 1.0) -> dict[str, Tensor]:
    return {k: v.detach() * scale if v.is_floating_point() else v for k, v in net().state_dict().items()}


def image() -> Tensor:
    return torch.linspace(0, 1, 36).reshape(1, 1, 6, 6)


def torch_bytes(value: object, layout: str = "zip", protocol: int = 2) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, pickle_protocol=protocol, _use_new_zipfile_serialization=layout == "zip")
    return buffer.getvalue()


def torchscript_bytes(module: nn.Module | None = None) -> bytes:
    buffer = io.BytesIO()
    script: Any = torch.jit.script
    torch.jit.save(script(module or net()), buffer)
    return buffer.getvalue()


@functools.cache
def program_bytes() -> bytes:
    batch = torch.export.Dim("batch", min=1, max=8)
    example = image().repeat(2, 1, 1, 1)
    program = torch.export.export(net(), (example,), dynamic_shapes=({0: batch},))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


FORMATS: dict[str, Callable[[], bytes]] = {
    "zip": lambda: torch_bytes(weights()),
    "legacy": lambda: torch_bytes(weights(), "legacy"),
    "safetensors": lambda: save_safetensors(weights()),
    "torchscript": torchscript_bytes,
    "exported_program": program_bytes,
}


def edited(archive: bytes, changes: dict[str, bytes | None], compression: int = zipfile.ZIP_STORED) -> bytes:
    """The archive with records (by the end of their name) replaced, or with None left out."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(archive)) as old,
        zipfile.ZipFile(buffer, "w", compression) as new,
    ):
        for entry in old.infolist():
            data = next((d for n, d in changes.items() if entry.filename.endswith(n)), old.read(entry))
            if data is not None:
                new.writestr(entry.filename, data)
    return buffer.getvalue()


def record(archive: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return next(opened.read(entry) for entry in opened.infolist() if entry.filename.endswith(name))


def written(directory: Path, data: bytes, name: str = "checkpoint.bin") -> Path:
    path = directory / name
    path.write_bytes(data)
    return path


class Call:
    """Pickles as `function(*arguments)`; may itself stand for a function."""

    def __init__(self, function: Callable[..., object] | Call, *arguments: object) -> None:
        self.function = function
        self.arguments = arguments

    def __call__(self) -> None: ...

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        return self.function, self.arguments


def touch(marker: Path) -> str:
    return f"touch '{marker}'"


def system(marker: Path) -> Call:
    return Call(os.system, touch(marker))
