"""A `torch.export.save`d `.pt2`: weights and network as a graph of ATen operators.

`torch.export.load` unpickles, evaluates and imports what the archive names. Without trust it gets an
archive of ours instead: the graph checked (`program_json`), raw weights only, the example inputs read by
the restricted unpickler and written again, nothing else.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from exporter.checkpoints import checkpoint_contents, checkpoint_tensors, exported_program_json, torchfile
from exporter.checkpoints.checkpoint_source import CheckpointSource
from exporter.checkpoints.inert_values import MAX_DIMENSIONS, TensorRef
from exporter.checkpoints.packed_archive import DAMAGED, Archive, pack_archive
from exporter.checkpoints.torchscript_checkpoint import check_torchscript_checkpoint_module
from exporter.errors import CheckpointError, CodeInFileError, DamagedFileError
from exporter.records import Checkpoint

if TYPE_CHECKING:
    import torch

GRAPH = "models/model.json"
EXAMPLE = "data/sample_inputs/model.pt"
CONFIGS = {
    "data/weights/": "data/weights/model_weights_config.json",
    "data/constants/": "data/constants/model_constants_config.json",
}
COPIED = ("archive_format", "archive_version", "byteorder", ".data/version")
OLD_GRAPH = "serialized_exported_program.json"

TRAINING_FLAGS = {"aten.batch_norm.default": 5, "aten.dropout.default": 2, "aten.dropout_.default": 2}
"""Operator -> position of its `training` argument."""


def is_exported_program(source: CheckpointSource) -> bool:
    """Tell whether `torch.export.save` wrote it, now or before torch 2.8."""
    archive = source.archive
    return archive is not None and ("archive_format" in archive or OLD_GRAPH in archive)


def read_exported_program(source: CheckpointSource, trust: bool) -> Checkpoint:
    """Load the program; its module takes and returns what the exported model did.

    Raises:
        CheckpointError: It is damaged, of an old format, compiled, captured in training mode, or asks for
            more than a plain model does.
    """
    archive = source.archive
    assert archive is not None
    if GRAPH not in archive:
        raise CheckpointError(
            _why_no_exported_program_graph(archive),
            "Export it again: torch.export.save(program, …) with this torch.",
        )
    example = _exported_program_example(archive)
    if trust:
        source.file.seek(0)
        program = _load_exported_program(io.BytesIO(source.file.read()))
    else:
        program = _load_exported_program(
            pack_archive(_safe_exported_program_records(archive, example), archive.root or "model/")
        )
    _check_exported_program_inference(program)
    values = {
        **program.state_dict,
        **{k: v for k, v in program.constants.items() if _is_exported_program_tensor(v)},
    }
    check_torchscript_checkpoint_module(values, source.size_bytes)
    return Checkpoint(
        path=source.path,
        sha256=source.sha256,
        kind="exported_program",
        tensors=None,
        module=_exported_program_module(program),
        example=example or None,
        notes=_exported_program_notes(archive, program, values, trust),
        contents=_exported_program_contents(archive, values),
    )


def _exported_program_module(program: torch.export.ExportedProgram) -> torch.nn.Module:
    """Return the program as a module that may be a part of others.

    torch's raises an error when a module around it is set to eval mode, which it is in.
    """
    module: torch.nn.Module = program.module(check_guards=False)
    for method in ("train", "eval"):
        vars(module).pop(method, None)
    return module.eval()


def _why_no_exported_program_graph(archive: Archive) -> str:
    if OLD_GRAPH in archive:
        return "The exported program was written by a torch older than 2.8."
    if any(name.startswith("data/aotinductor/") for name in archive.names):
        return "The .pt2 holds a compiled (AOTInductor) model, expected an exported program."
    return f"The .pt2 holds no exported program named 'model' (no {GRAPH})."


def _safe_exported_program_records(archive: Archive, example: tuple[torch.Tensor, ...]) -> dict[str, bytes]:
    records = {name: archive.read(name) for name in COPIED if name in archive}
    records[GRAPH] = exported_program_json.sanitize_exported_program_json(archive.read(GRAPH))
    for folder, config_name in CONFIGS.items():
        config = json.loads(archive.read(config_name))
        for payload in config["config"].values():
            name = folder + _exported_program_payload(payload, archive, folder)
            records[name] = archive.read(name)
        records[config_name] = exported_program_json.sanitize_exported_program_json(
            json.dumps(config).encode()
        )
    records[EXAMPLE] = _save_exported_program(example)
    return records


def _exported_program_payload(payload: dict[str, Any], archive: Archive, folder: str) -> str:
    """The file of one weight; raw numbers only."""
    name, meta = payload["path_name"], payload["tensor_meta"]
    if payload["use_pickle"] or meta is None or not str(name).startswith(("weight_", "tensor_")):
        raise CodeInFileError(
            f"The exported program stores {str(name)[:60]!r} as a pickled object, expected plain tensors.",
            exported_program_json.TRUST,
        )
    shape: list[int] = [int(size["as_int"]) for size in meta["sizes"]]
    if len(shape) > MAX_DIMENSIONS or not all(0 <= size < 2**63 for size in shape):
        raise DamagedFileError(f"The exported program declares impossible sizes for {name!r}.", DAMAGED)
    # torch makes up zeros, however many, where the record is empty.
    if archive.size_bytes(folder + name) == 0 and 0 not in shape:
        raise DamagedFileError(
            f"The exported program declares {shape} for the empty record {name!r}.", DAMAGED
        )
    return str(name)


def _exported_program_example(archive: Archive) -> tuple[torch.Tensor, ...]:
    """The example inputs, when they are plain tensors given by position; else none."""
    if EXAMPLE not in archive:
        return ()
    data = archive.read(EXAMPLE)
    if not data:
        return ()
    pickled = torchfile.read_torchfile_zip(Archive(io.BytesIO(data), len(data)))
    match pickled.root:
        case (tuple(args), {}) if (
            args and all(isinstance(a, TensorRef) for a in args) and not pickled.root[1]
        ):
            named = {f"example input {i}": a for i, a in enumerate(args)}
            return tuple(checkpoint_tensors.load_checkpoint_tensors(named, pickled, len(data))[0].values())
    return ()


def _save_exported_program(example: tuple[torch.Tensor, ...]) -> bytes:
    import torch

    if not example:
        return b""
    buffer = io.BytesIO()
    torch.save((example, {}), buffer)
    return buffer.getvalue()


def _load_exported_program(buffer: io.BytesIO) -> torch.export.ExportedProgram:
    import torch

    try:
        with _quiet_exported_program():
            return torch.export.load(buffer)
    # torch's deserialiser fails with whatever its own asserts and look-ups raise.
    except Exception as error:
        reason = checkpoint_contents.printable_checkpoint_content(
            str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        )
        raise CheckpointError(
            f"The exported program cannot be loaded: {reason}.", "Export it again with this torch."
        ) from error


@contextmanager
def _quiet_exported_program() -> Iterator[None]:
    """Keep torch from logging a traceback before it raises."""
    logger = logging.getLogger("torch.export")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _check_exported_program_inference(program: torch.export.ExportedProgram) -> None:
    for node in program.graph.nodes:
        position = TRAINING_FLAGS.get(str(node.target))
        if position is not None and len(node.args) > position and node.args[position] is True:
            raise CheckpointError(
                f"The exported program was captured in training mode ({node.target} trains).",
                "Export it again from model.eval().",
            )


def _is_exported_program_tensor(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _exported_program_notes(
    archive: Archive, program: torch.export.ExportedProgram, values: dict[str, torch.Tensor], trust: bool
) -> tuple[str, ...]:
    calls = sum(node.op == "call_function" for node in program.graph.nodes)
    notes = [
        f"exported program: {checkpoint_contents.plural_in_checkpoint_contents(calls, 'operator')}, "
        f"{checkpoint_contents.plural_in_checkpoint_contents(len(values), 'tensor')}"
    ]
    if any(name.startswith("data/aotinductor/") for name in archive.names):
        notes.append("compiled code beside the program " + ("left as it is" if trust else "left out"))
    return tuple(notes)


def _exported_program_contents(
    archive: Archive, values: dict[str, torch.Tensor]
) -> tuple[tuple[str, str], ...]:
    size = sum(t.numel() * t.element_size() for t in values.values())
    expected = (GRAPH, EXAMPLE, *COPIED, *CONFIGS.values())
    other = [n for n in archive.names if n not in expected and not n.startswith((*CONFIGS, ".data/"))]
    return (
        (GRAPH, f"graph, {archive.size_bytes(GRAPH)} bytes"),
        (
            "data/weights",
            f"{checkpoint_contents.plural_in_checkpoint_contents(len(values), 'tensor')}, "
            f"{checkpoint_contents.checkpoint_contents_megabytes(size)}",
        ),
        *(
            (checkpoint_contents.printable_checkpoint_content(name), f"{archive.size_bytes(name)} bytes")
            for name in other
        ),
    )
