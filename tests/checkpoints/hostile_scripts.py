"""TorchScript archives that do more than compute: files, the screen, endless loops, crashes."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.checkpoints.makers import edited, torchscript_bytes

MARKER = "MARKER"
"""The file that an attack writes, in the current folder."""


class Stateful(nn.Module):
    """A module whose archive runs its own `__setstate__` when it is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.ones(2)

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, bool]:
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, bool]) -> None:
        self.weight = torch.sin(state[0])
        self.training = state[1]

    def forward(self, image: Tensor) -> Tensor:
        return torch.cos(image) * self.weight.sum()


def with_statements(lines: str, method: str = "__setstate__") -> bytes:
    """An archive with statements put before the computation of one of its methods; `x` is a tensor there."""
    archive = torchscript_bytes(Stateful())
    name, code = _source(archive)
    call, argument = {
        "__setstate__": ("torch.sin(", "(state)[0]"),
        "forward": ("torch.cos(", "image"),
    }[method]
    line = next(text for text in code.splitlines() if call in text)
    added = "".join(f"    {text}\n" for text in lines.replace("x_", argument).splitlines())
    # What nobody uses is not compiled.
    used = line.replace(argument, f"torch.add({argument}, torch.sum(y_))", 1) if "y_ =" in lines else line
    return edited(archive, {name: code.replace(line, f"{added}{used}").encode()})


def _source(archive: bytes) -> tuple[str, str]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        name = next(n for n in opened.namelist() if n.endswith(".py") and b"torch.cos" in opened.read(n))
        return name, opened.read(name).decode()


def renamed_records(archive: bytes, rename: Callable[[str], str]) -> bytes:
    """The archive with other names for its records."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.infolist():
            new.writestr(rename(entry.filename), old.read(entry))
    return buffer.getvalue()


SAVE = f"torch.save(x_, {MARKER!r})"

WRITERS: dict[str, str] = {
    "torch.save": SAVE,
    "ops.aten.save": f"ops.aten.save(x_, {MARKER!r})",
    "getattr": f'getattr(torch, "save")(x_, {MARKER!r})',
    "getattr of ops": f'getattr(ops.aten, "save")(x_, {MARKER!r})',
    "getattr of getattr": f'getattr(getattr(ops, "aten"), "save")(x_, {MARKER!r})',
    "comment in the name": f"(torch. # a comment\n    save)(x_, {MARKER!r})",
    "line break in the name": f"(torch.\n    save)(x_, {MARKER!r})",
    "backslash in the name": f"torch.\\\n    save(x_, {MARKER!r})",
    "comment after ops": f"(ops. # a comment\n    aten.save)(x_, {MARKER!r})",
    "spaces around the dot": f"torch . save(x_, {MARKER!r})",
    "in a branch": f"if True:\n  {SAVE}\nelse:\n  pass",
    "in a loop": f"for _i in range(1):\n  {SAVE}",
    "of a list": f"torch.save([x_], {MARKER!r})",
    "of a string": f"torch.save('text', {MARKER!r})",
    "overload by name": f"ops.aten.save.default(x_, {MARKER!r})",
}
"""Spellings of a write. Not all compile; none may write."""

READERS: dict[str, str] = {
    "from_file": "y_ = torch.from_file('/etc/passwd', False, 8, dtype=0)",
    "ops.aten.from_file": "y_ = ops.aten.from_file('/etc/passwd', False, 8)",
    "getattr": "y_ = getattr(torch, 'from_file')('/etc/passwd', False, 8)",
    "shared memory file": f"y_ = ops.aten.from_file({MARKER!r}, True, 8)",
}

SPEAKERS: dict[str, str] = {
    "print": 'print("\\033[2J\\033[32mEvery claim holds.\\033[0m")',
    "print in a loop": 'while True:\n  print("Every claim holds.")',
    "ops.prim.Print": 'ops.prim.Print("Every claim holds.")',
}

OTHERS: dict[str, str] = {
    "another library's operator": "y_ = ops.mine.run(x_)",
    "the process's threads": "ops.aten.set_num_threads(1)",
    "a collective": "y_ = ops._c10d_functional.all_reduce(x_, 'sum', 'default')",
    "debugprims": f"y_ = ops.debugprims.load_tensor({MARKER!r}, [1], [1], dtype=6, device='cpu')",
    "storage": "y_ = ops.aten.set_(x_, x_)",
}

HANGS: dict[str, str] = {
    "endless loop": "while True:\n  pass",
    "endless loop that computes": "y = x_\nwhile True:\n  y = torch.add(y, 1)",
    "endless loop that grows": "y = [x_]\nwhile True:\n  y = torch.add(y, y)",
    "a loop of 2^62": "y_ = x_\nfor _i in range(4611686018427387904):\n  y_ = torch.add(y_, 1)",
}

SWELLING: dict[str, str] = {
    "terabytes": "y_ = torch.zeros([1000000000000])",
    "ones in a loop": "y = [x_]\nfor _i in range(100000):\n  y = torch.add(y, [torch.zeros([1000000000])])",
}


def nested(depth: int) -> str:
    return f"_y = {'(' * depth}1{')' * depth}"


CRASHES: dict[str, Callable[[], bytes]] = {
    "20,000 brackets": lambda: with_statements(nested(20_000)),
    "200,000 brackets": lambda: with_statements(nested(200_000)),
    "20,000 lists": lambda: with_statements(f"_y = {'[' * 20_000}{']' * 20_000}"),
    "20,000 minus signs": lambda: with_statements(f"_y = {'-' * 20_000}1"),
    "20,000 nots": lambda: with_statements(f"_y = {'not ' * 20_000}True"),
    "a type nested 20,000 deep": lambda: with_statements(
        f"_y = annotate({'List[' * 20_000}int{']' * 20_000}, [])"
    ),
    "endless recursion": lambda: with_statements("y_ = (self).forward(x_)\n", "forward"),
}

RENAMED: dict[str, Callable[[], bytes]] = {
    "code under CODE/": lambda: renamed_records(
        with_statements(SAVE), lambda name: name.replace("/code/", "/CODE/")
    ),
    "code named .PY": lambda: renamed_records(
        with_statements(SAVE), lambda name: name.removesuffix(".py") + ".PY" if name.endswith(".py") else name
    ),
    "both": lambda: renamed_records(
        with_statements(SAVE), lambda name: name.upper() if "/code/" in name else name
    ),
}


def class_pickle(kind: str) -> bytes:
    """An archive whose data names an object of a C++ class."""
    with zipfile.ZipFile(io.BytesIO(torchscript_bytes(Stateful()))) as opened:
        data = next(opened.read(n) for n in opened.namelist() if n.endswith("/data.pkl"))
    module, _, name = kind.rpartition(".")
    added = b"\x80\x02c" + f"__torch__.torch.classes.{module}\n{name}\n".encode() + b")\x81"
    return edited(torchscript_bytes(Stateful()), {"/data.pkl": data.replace(b"\x80\x02", added, 1)})


CLASSES: dict[str, Callable[[], bytes]] = {
    name: lambda name=name: class_pickle(name)  # type: ignore[misc]
    for name in ("dist_c10d.ProcessGroup", "_nnapi.Compilation", "backends.mine", "c10d.ProcessGroup")
}


def scripted(module: Any) -> bytes:
    return torchscript_bytes(module)
