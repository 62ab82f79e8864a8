"""A TorchScript archive (`torch.jit.save`): weights and network in one.

To load it is to run it: `torch.jit.load` calls the archive's own `__setstate__`. So a confined child loads it
first and names the operators of every function; only when all of them are allowed is it loaded here, from
the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from exporter import sandbox
from exporter.checkpoints import checkpoint_contents, checkpoint_tensors, torchscript_operators
from exporter.checkpoints.checkpoint_source import CheckpointSource
from exporter.checkpoints.packed_archive import pack_archive
from exporter.errors import BoundsError, CheckpointError, CodeInFileError
from exporter.records import Checkpoint
from exporter.sandbox import child

if TYPE_CHECKING:
    import torch

CHECK_SECONDS = 20.0
"""For loading the archive in the confined child; an honest one takes well under a second."""

CLASSES = re.compile(rb"torch[.\n]classes[.\n](\w+)")
"""A class written in C++, by its namespace, in one of the archive's pickles."""
KNOWN_CLASSES = frozenset({b"quantized", b"rnn", b"sparse", b"xnnpack", b"mkldnn", b"profiler"})

UNKNOWN_OPERATOR = re.compile(r"Unknown builtin op: ([\w:]+)")
"""What torch says of an operator whose library is not loaded."""

INTERPRETER = "operation failed in the TorchScript interpreter"
SAVE_AGAIN = "Save it again with the torch that made it, or give the state_dict."


def is_torchscript_checkpoint(source: CheckpointSource) -> bool:
    """Tell whether `torch.jit.save` wrote it: only it writes constants.pkl."""
    return source.archive is not None and "constants.pkl" in source.archive


def read_torchscript_checkpoint(source: CheckpointSource, trust: bool) -> Checkpoint:
    """Load the module; without trust, only if it uses no operator but those that compute.

    Raises:
        CheckpointError: It is damaged, was saved in half precision, uses other operators, takes too long to
            load, or this machine has no sandbox to look at it in.
    """
    assert source.archive is not None
    records = {name: source.archive.read(name) for name in source.archive.names}
    archive = pack_archive(records, source.archive.root or "archive/").getvalue()
    if not trust:
        _check_torchscript_checkpoint_classes(records)
        check_torchscript_checkpoint_operators(archive, source.size_bytes)
    module = _load_torchscript_checkpoint(archive)
    values = dict(module.state_dict())
    check_torchscript_checkpoint_module(values, source.size_bytes)
    return Checkpoint(
        path=source.path,
        sha256=source.sha256,
        kind="torchscript",
        tensors=None,
        module=module,
        notes=(
            "TorchScript archive: "
            f"{checkpoint_contents.plural_in_checkpoint_contents(len(values), 'tensor')} "
            "and the network's own code",
        ),
        contents=_torchscript_checkpoint_contents(records, values),
    )


def check_torchscript_checkpoint_module(values: dict[str, torch.Tensor], file_bytes: int) -> None:
    """Refuse a self-contained module whose weights are no finite float32: its code is written for their type.

    Args:
        values: Name -> tensor.
        file_bytes: Size of the file they come from.

    Raises:
        CheckpointError: Names the first such tensor.
    """
    import torch

    checkpoint_tensors.check_total_of_checkpoint_tensors(
        sum(t.numel() * t.element_size() for t in values.values()), file_bytes
    )
    for name, tensor in values.items():
        if tensor.is_quantized or (tensor.is_floating_point() and tensor.dtype != torch.float32):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"The tensor {name!r} is {kind}, expected float32: the saved code is fixed to that type.",
                "Export it again from model.float().",
            )
        checkpoint_tensors.check_checkpoint_tensors_finite(name, tensor)


def check_torchscript_checkpoint_operators(archive: bytes, file_bytes: int) -> None:
    """Load the archive in a confined child and hold the operators of all its functions to the allowed ones.

    Args:
        archive: What is loaded afterwards, byte for byte.
        file_bytes: Size of the checkpoint; bounds the child's memory.

    Raises:
        CheckpointError: An operator is not allowed, the archive cannot be loaded within its bounds, or
            there is no sandbox on this machine.
    """
    if not sandbox.sandbox_support().confines:
        raise CodeInFileError(
            "A TorchScript archive runs its own code when it is loaded, and this machine has no sandbox for "
            "it (Landlock or seccomp, both of Linux).",
            "Give the state_dict, or pass --trust if you trust whoever made the file.",
        )
    confinement = sandbox.Confinement(
        seconds=CHECK_SECONDS, memory_bytes=sandbox.confinement_memory(file_bytes)
    )
    try:
        names = child.call_in_child(lambda: sorted(_torchscript_checkpoint_operators(archive)), confinement)
    except child.ChildFailed as error:
        unknown = UNKNOWN_OPERATOR.search(str(error))
        if unknown is None:
            kind = BoundsError if error.over_bounds else CheckpointError
            raise kind(
                f"The TorchScript archive cannot be loaded: {_torchscript_checkpoint_reason(error)}.",
                SAVE_AGAIN,
            ) from error
        names = [unknown.group(1)]
    if refused := torchscript_operators.refused_torchscript_operators(map(str, names)):
        raise CodeInFileError(
            f"The TorchScript code {torchscript_operators.torchscript_operators_complaint(refused)}.",
            torchscript_operators.TRUST,
        )


def _torchscript_checkpoint_operators(archive: bytes) -> set[str]:
    """The operators of every function and method that loading the archive has compiled."""
    import torch

    torch.set_num_threads(1)  # OpenMP's threads do not survive the fork
    unit: Any = torch._C.CompilationUnit()
    load: Any = torch._C.import_ir_module_from_buffer
    load(unit, archive, torch.device("cpu"), {}, False)
    graphs = [function.graph for function in unit.get_functions()]
    return {node.kind() for graph in graphs for node in _torchscript_checkpoint_nodes(graph)}


def _torchscript_checkpoint_nodes(graph: Any) -> Iterator[Any]:
    """Every node of a graph, of its blocks, and of graphs that are attributes (`torch.jit.fork`)."""
    pending = [graph]
    while pending:
        for node in pending.pop().nodes():
            yield node
            pending.extend(node.blocks())
            for name in node.attributeNames():
                kind = node.kindOf(name)
                pending.extend([node.g(name)] if kind == "g" else node.gs(name) if kind == "gs" else ())


def _check_torchscript_checkpoint_classes(records: Mapping[str, bytes]) -> None:
    """Refuse objects of C++ classes that are no packed weights: their constructors run on loading."""
    for name, data in records.items():
        strange = next((n for n in CLASSES.findall(data) if n not in KNOWN_CLASSES), None)
        if strange is not None and name.endswith((".pkl", ".py")):
            raise CodeInFileError(
                f"The TorchScript archive holds an object of torch.classes.{strange.decode()[:60]}, "
                "expected a network's own classes and packed weights.",
                torchscript_operators.TRUST,
            )


def _load_torchscript_checkpoint(archive: bytes) -> torch.jit.ScriptModule:
    import torch

    load: Any = torch.jit.load
    try:
        module: torch.jit.ScriptModule = load(io.BytesIO(archive), map_location="cpu")
    except RuntimeError as error:
        raise CheckpointError(
            f"The TorchScript archive cannot be loaded: {_torchscript_checkpoint_reason(error)}.", SAVE_AGAIN
        ) from error
    return module.eval()


def _torchscript_checkpoint_reason(error: Exception) -> str:
    """The error's first line; of an error inside the archive's code its last, which says why."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return checkpoint_contents.printable_checkpoint_content(
        lines[-1 if INTERPRETER in lines[0] else 0]
    ).rstrip(".")


def _torchscript_checkpoint_contents(
    records: dict[str, bytes], values: dict[str, torch.Tensor]
) -> tuple[tuple[str, str], ...]:
    code = [name for name in records if name.startswith("code/") and name.endswith(".py")]
    size = sum(t.numel() * t.element_size() for t in values.values())
    extra = [name for name in records if name.startswith("extra/")]
    return (
        ("code", checkpoint_contents.plural_in_checkpoint_contents(len(code), "TorchScript file")),
        (
            "tensors",
            f"{checkpoint_contents.plural_in_checkpoint_contents(len(values), 'tensor')}, "
            f"{checkpoint_contents.checkpoint_contents_megabytes(size)}",
        ),
        *(
            (checkpoint_contents.printable_checkpoint_content(name), f"{len(records[name])} bytes")
            for name in extra
        ),
    )
