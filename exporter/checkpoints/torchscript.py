"""A TorchScript archive (`torch.jit.save`): weights and network in one.

`torch.jit.load` runs no Python, but it may run the archive's own TorchScript (`__setstate__`), which can
write and read files. So the code is looked through first, and what was looked through is what is loaded.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from exporter.checkpoints import contents, tensors
from exporter.checkpoints.archive import Archive, packed
from exporter.checkpoints.source import Source
from exporter.errors import CheckpointError, CodeInFileError
from exporter.records import Checkpoint

if TYPE_CHECKING:
    import torch

FILE_OPERATORS = re.compile(rb"\.[\s\\]*(save|from_file|load_tensor|read_file|write_file)\b")
"""Operators that touch the file system: aten::save, aten::from_file, debugprims::load_tensor, image::…"""

NAMESPACES = re.compile(rb"\bops[\s\\]*\.[\s\\]*(\w+)")
KNOWN_NAMESPACES = frozenset(
    {b"aten", b"prim", b"prims", b"prepacked", b"quantized", b"_quantized", b"quantization", b"sparse",
     b"mkldnn", b"torchvision", b"onednn", b"profiler"}
)  # fmt: skip


def matches(source: Source) -> bool:
    """Whether `torch.jit.save` wrote it: only it writes constants.pkl."""
    return source.archive is not None and "constants.pkl" in source.archive


def read(source: Source, trust: bool) -> Checkpoint:
    """Load the module; without trust, only if its code stays away from files.

    Raises:
        CheckpointError: It is damaged, was saved in half precision, or its code touches files.
    """
    assert source.archive is not None
    records = {name: source.archive.read(name) for name in source.archive.names}
    if not trust:
        _look_through(source, records)
    module = _load(records, source.archive)
    values = dict(module.state_dict())
    check_module(values)
    return Checkpoint(
        path=source.path,
        sha256=source.sha256,
        kind="torchscript",
        tensors=None,
        module=module,
        notes=(f"TorchScript archive: {contents.plural(len(values), 'tensor')} and the network's own code",),
        contents=_contents(records, values),
    )


def check_module(values: dict[str, torch.Tensor]) -> None:
    """Refuse a self-contained module whose weights are no finite float32: its code is written for their type.

    Raises:
        CheckpointError: Names the first such tensor.
    """
    import torch

    for name, tensor in values.items():
        if tensor.is_quantized or (tensor.is_floating_point() and tensor.dtype != torch.float32):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"The tensor {name!r} is {kind}, expected float32: the saved code is fixed to that type.",
                "Export it again from model.float().",
            )
        tensors.check_finite(name, tensor)


def _look_through(source: Source, records: dict[str, bytes]) -> None:
    for name, data in records.items():
        if not name.startswith("code/") or not name.endswith(".py"):
            continue
        found = FILE_OPERATORS.search(data)
        strange = next((m for m in NAMESPACES.findall(data) if m not in KNOWN_NAMESPACES), None)
        if found or strange:
            what = found.group(1) if found else b"ops." + (strange or b"")
            raise CodeInFileError(
                f"The TorchScript code of {source.path} uses {what.decode()!r} ({name!r}), which may reach "
                "files or operators of others.",
                "Pass --trust if you trust whoever made the file.",
            )


def _load(records: dict[str, bytes], archive: Archive) -> torch.jit.ScriptModule:
    import torch

    load: Any = torch.jit.load
    try:
        module: torch.jit.ScriptModule = load(packed(records, archive.root or "archive/"), map_location="cpu")
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise CheckpointError(
            f"The TorchScript archive cannot be loaded: {contents.printable(reason)}.",
            "Save it again with the torch that made it, or give the state_dict.",
        ) from error
    return module.eval()


def _contents(records: dict[str, bytes], values: dict[str, torch.Tensor]) -> tuple[tuple[str, str], ...]:
    code = [name for name in records if name.startswith("code/") and name.endswith(".py")]
    size = sum(t.numel() * t.element_size() for t in values.values())
    extra = [name for name in records if name.startswith("extra/")]
    return (
        ("code", contents.plural(len(code), "TorchScript file")),
        ("tensors", f"{contents.plural(len(values), 'tensor')}, {contents.megabytes(size)}"),
        *((contents.printable(name), f"{len(records[name])} bytes") for name in extra),
    )
