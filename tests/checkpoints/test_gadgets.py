"""Nothing in a checkpoint runs without trust, however it is hidden.

Every gadget would create a marker file; those that need no network are shown to be live by running them.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import io
import json
import operator
import os
import pickle
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter import checkpoints
from exporter.checkpoints import unpickle
from exporter.errors import CheckpointError
from tests.checkpoints import makers
from tests.checkpoints.makers import (
    LAYOUTS,
    Call,
    edited,
    record,
    system,
    torch_bytes,
    touch,
    weights,
    written,
)

Gadget = Callable[[Path], object]


class Stateful:
    """Pickles with a state (BUILD) that is itself a gadget."""

    def __init__(self, inner: object) -> None:
        self.inner = inner


class ListLike(list[object]):
    """Pickles with items (APPENDS) that are gadgets."""


class DictLike(dict[str, object]):
    """Pickles with items (SETITEMS) that are gadgets."""


class Path4:
    """Pickles as a call of a nested dotted name, `Path.touch`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


GADGETS: dict[str, Gadget] = {
    "os.system": system,
    "os.popen": lambda m: Call(Call(getattr, Call(os.popen, touch(m)), "read")),
    "subprocess": lambda m: Call(subprocess.check_output, ["touch", str(m)]),
    "eval": lambda m: Call(builtins.eval, f"open({str(m)!r}, 'w').close()"),
    "exec": lambda m: Call(builtins.exec, f"open({str(m)!r}, 'w').close()"),
    "open": lambda m: Call(builtins.open, str(m), "w"),
    "partial": lambda m: Call(Call(functools.partial, os.system, touch(m))),
    "reduce": lambda m: Call(functools.reduce, operator.call, [os.system, touch(m)]),
    "map": lambda m: Call(list, Call(map, os.system, [touch(m)])),
    "getattr": lambda m: Call(Call(getattr, Call(importlib.import_module, "os"), "system"), touch(m)),
    "methodcaller": lambda m: Call(
        Call(operator.methodcaller, "system", touch(m)), Call(importlib.import_module, "os")
    ),
    "attrgetter": lambda m: Call(
        Call(Call(operator.attrgetter, "system"), Call(importlib.import_module, "os")), touch(m)
    ),
    "operator.call": lambda m: Call(operator.call, os.system, touch(m)),
    "pickle.loads": lambda m: Call(pickle.loads, pickle.dumps(system(m))),
    "torch.load in a storage": lambda m: Call(
        torch.storage._load_from_bytes, torch_bytes(system(m), "legacy")
    ),
    "nested dotted name": Path4,
    "state": lambda m: Stateful(system(m)),
    "list items": lambda m: ListLike([system(m)]),
    "dict items": lambda m: DictLike(a=system(m)),
    "dict key": lambda m: {Call(os.system, touch(m)): 1},
    "in a set": lambda m: Call(set, [system(m)]),
    "rebuild_from_type": lambda m: Call(
        torch._tensor._rebuild_from_type_v2, os.system, torch.Tensor, (touch(m),), {}
    ),
}

DORMANT = {"torch.load in a storage"}
"""Newer torch reads these with weights_only itself; the older ones did not."""


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", GADGETS)
def test_pickle_gadgets_stay_inert(tmp_path: Path, name: str, layout: str) -> None:
    """A gadget beside the weights, inside them, in the optimizer or alone never runs; tensors are read."""
    marker = tmp_path / "ran"
    gadget = GADGETS[name](marker)
    beside = {
        "state_dict": {**weights(), "head.extra": gadget},
        "args": gadget,
        "optimizer": {"state": gadget},
    }
    checkpoint = checkpoints.read_checkpoint(written(tmp_path, torch_bytes(beside, layout, 4)))
    assert checkpoint.tensors is not None
    assert list(checkpoint.tensors) == list(weights())
    with pytest.raises(CheckpointError):
        checkpoints.read_checkpoint(written(tmp_path, torch_bytes(gadget, layout, 4)))
    assert not marker.exists()
    run_for_real(torch_bytes(gadget, layout, 4))
    assert marker.exists() or name in DORMANT


def run_for_real(data: bytes) -> None:
    try:
        torch.load(io.BytesIO(data), weights_only=False)
    except Exception:
        return


@pytest.mark.parametrize(
    "code",
    [
        b"cos\nsystem\n(S'touch MARKER'\ntR.",
        b"(cos\nsystem\nS'touch MARKER'\no.",
        b"(S'touch MARKER'\nios\nsystem\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch MARKER\x85R.",
        b"\x80\x02cbuiltins\ngetattr\ncos\n__dict__\nX\x06\x00\x00\x00system\x86R.",
        b"\x80\x02ctorch.hub\nload\nX\x01\x00\x00\x00aX\x01\x00\x00\x00b\x86R.",
        b"\x80\x02cos\nsystem\nX\x0c\x00\x00\x00touch MARKER\x85\x81.",
        b"\x80\x04cos\nsystem\nX\x0c\x00\x00\x00touch MARKER\x85}\x92.",
    ],
    ids=["global", "obj", "inst", "stack_global", "getattr", "hub", "newobj", "newobj_ex"],
)
def test_handwritten_opcodes_stay_inert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: bytes) -> None:
    """Every opcode that calls is covered, not only what Python's own pickler writes."""
    monkeypatch.chdir(tmp_path)
    archive = edited(torch_bytes(weights()), {"data.pkl": code})
    with pytest.raises(CheckpointError, match="holds no weights"):
        checkpoints.read_checkpoint(written(tmp_path, archive))
    assert not (tmp_path / "MARKER").exists()


@pytest.mark.parametrize("function", [print, os.system, len, dict, functools.partial(print)])
def test_only_stand_ins_are_called(function: object) -> None:
    """Even if a real callable got onto the unpickler's stack, it would not be called."""
    with pytest.raises(pickle.UnpicklingError, match="it calls"):
        unpickle.call_while_unpickling(function, ())


def test_torchscript_pickles_are_not_pythons(tmp_path: Path) -> None:
    """A gadget in the pickles of a TorchScript archive is refused and does not run."""
    marker = tmp_path / "ran"
    gadget = pickle.dumps(system(marker), 2)
    for name in ("data.pkl", "constants.pkl"):
        with pytest.raises(CheckpointError):
            checkpoints.read_checkpoint(
                written(tmp_path, edited(makers.torchscript_bytes(), {f"/{name}": gadget}))
            )
    assert not marker.exists()


def with_call(archive: bytes, call: str) -> bytes:
    """The archive with one more statement in its forward."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        names = [n for n in opened.namelist() if n.endswith(".py") and b"conv = self.conv" in opened.read(n)]
        code = opened.read(names[0]).decode()
    line = next(text for text in code.splitlines() if "conv = self.conv" in text)
    return edited(archive, {names[0]: code.replace(line, f"    _99 = {call}\n{line}").encode()})


@pytest.mark.parametrize("call", ["torch.save(image, 'MARKER')", "ops.aten.save(image, 'MARKER')"])
def test_torchscript_code_that_touches_files_needs_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """TorchScript can write files: such code is refused before it is loaded, and with trust does run."""
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, with_call(makers.torchscript_bytes(), call))
    with pytest.raises(CheckpointError, match=r"uses 'save'.*--trust"):
        checkpoints.read_checkpoint(path)
    module = checkpoints.read_checkpoint(path, trust=True).module
    assert module is not None
    module(makers.image())
    assert (tmp_path / "MARKER").exists()


def test_torchscript_operators_of_others_need_trust(tmp_path: Path) -> None:
    """Operators of a namespace that is not torch's own are refused by name."""
    with pytest.raises(CheckpointError, match=r"uses 'ops\.mine'.*--trust"):
        checkpoints.read_checkpoint(
            written(tmp_path, with_call(makers.torchscript_bytes(), "ops.mine.run(image)"))
        )


def changed_program(change: Callable[[dict[str, Any]], None]) -> bytes:
    program = json.loads(record(makers.program_bytes(), "models/model.json"))
    change(program)
    return edited(makers.program_bytes(), {"models/model.json": json.dumps(program).encode()})


def graph(program: dict[str, Any]) -> dict[str, Any]:
    return program["graph_module"]["graph"]  # type: ignore[no-any-return]


def first_call(program: dict[str, Any]) -> dict[str, Any]:
    return next(node for node in graph(program)["nodes"] if "conv2d" in node["target"])


def set_expression(text: str) -> Callable[[dict[str, Any]], None]:
    def change(program: dict[str, Any]) -> None:
        graph(program)["tensor_values"]["conv2d"]["sizes"][0]["as_expr"]["expr_str"] = text

    return change


def rename_node(text: str) -> Callable[[dict[str, Any]], None]:
    def change(program: dict[str, Any]) -> None:
        replaced = json.loads(json.dumps(program).replace('"conv2d"', json.dumps(text)))
        program.clear()
        program.update(replaced)

    return change


def set_tree(kind: str, context: object) -> Callable[[dict[str, Any]], None]:
    def change(program: dict[str, Any]) -> None:
        tree = [1, {"type": kind, "context": json.dumps(context), "children_spec": []}]
        program["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = json.dumps(tree)

    return change


EVIL = "__import__('os').system('touch MARKER')"

PROGRAM_GADGETS: dict[str, Callable[[dict[str, Any]], None]] = {
    "operator": lambda p: first_call(p).update(target="torch.os.system"),
    "operator below math": lambda p: first_call(p).update(target="math.__loader__.load_module"),
    "from_file": lambda p: first_call(p).update(target="torch.ops.aten.from_file.default"),
    "methodcaller": lambda p: first_call(p).update(target="_operator.methodcaller"),
    "expression": set_expression(EVIL),
    "nested expression": set_expression(f"Add(sympify({EVIL!r}), Integer(1))"),
    "quoted expression": set_expression(f"Add({EVIL!r}, Integer(1))"),
    "lambda": set_expression("(lambda: Integer(1))()"),
    "attribute": set_expression("Integer.__class__"),
    "power tower": set_expression("9**9**9**9"),
    "node name": rename_node(f"a = {EVIL}; b"),
    "node name with newline": rename_node(f"a\n    {EVIL}\n    b"),
    "dunder name": rename_node("__builtins__"),
    "parameter name": lambda p: p["graph_module"]["signature"]["input_specs"][0]["parameter"].update(
        parameter_name=f"a;{EVIL}"
    ),
    "argument name": lambda p: first_call(p)["inputs"][0].update(name=f"input={EVIL}, x"),
    "argument of forward": lambda p: p["graph_module"]["module_call_graph"][0]["signature"].update(
        forward_arg_names=[f"x={EVIL}"]
    ),
    "tree enum": set_tree("builtins.dict", {"__enum__": True, "fqn": "os:system", "name": "x"}),
    "tree import": set_tree("collections.defaultdict", {"default_factory_module": "antigravity"}),
}


@pytest.mark.parametrize("name", PROGRAM_GADGETS)
def test_program_gadgets_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What `torch.export.load` would evaluate, import or paste into source code is refused."""
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, changed_program(PROGRAM_GADGETS[name]), "model.pt2")
    # Refused by our check: torch "cannot load" most of these too, but only after it tried.
    with pytest.raises(CheckpointError, match=r"exported program (has|takes|nests)"):
        checkpoints.read_checkpoint(path)
    assert not (tmp_path / "MARKER").exists()


def test_program_gadgets_are_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The expression gadget does run in plain torch.export.load, so refusing it is no theatre."""
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, changed_program(PROGRAM_GADGETS["expression"]), "model.pt2")
    try:
        torch.export.load(path)
    except Exception:
        assert (tmp_path / "MARKER").exists()
    assert (tmp_path / "MARKER").exists()


def test_program_guards_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards are Python source: they are taken out, and the program reads."""
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, changed_program(lambda p: p.update(guards_code=[EVIL])))
    assert checkpoints.read_checkpoint(path).module is not None
    assert not (tmp_path / "MARKER").exists()


def test_program_example_pickle_stays_inert(tmp_path: Path) -> None:
    """A gadget as the example inputs is not run; the program reads without an example."""
    marker = tmp_path / "ran"
    archive = edited(makers.program_bytes(), {"sample_inputs/model.pt": torch_bytes(((system(marker),), {}))})
    checkpoint = checkpoints.read_checkpoint(written(tmp_path, archive))
    assert checkpoint.example is None
    assert not marker.exists()
    run_program(archive)
    assert marker.exists()


def run_program(archive: bytes) -> None:
    try:
        torch.export.load(io.BytesIO(archive))
    except Exception:
        return


def test_program_pickled_weight_is_refused(tmp_path: Path) -> None:
    """A weight stored as a pickle is refused."""
    marker = tmp_path / "ran"
    archive = makers.program_bytes()
    config = json.loads(record(archive, "model_weights_config.json"))
    config["config"]["conv.weight"]["use_pickle"] = True
    name = config["config"]["conv.weight"]["path_name"]
    changes: dict[str, bytes | None] = {
        "model_weights_config.json": json.dumps(config).encode(),
        f"/{name}": torch_bytes(system(marker)),
    }
    with pytest.raises(CheckpointError, match="pickled object"):
        checkpoints.read_checkpoint(written(tmp_path, edited(archive, changes)))
    assert not marker.exists()


def test_program_old_pickled_weights_are_ignored(tmp_path: Path) -> None:
    """A weights file of the first 2.8 format, a pickle that would win over the raw ones, is left out."""
    marker = tmp_path / "ran"
    buffer = io.BytesIO(makers.program_bytes())
    with zipfile.ZipFile(buffer, "a") as archive:
        root = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{root}/data/weights/model.pt", torch_bytes(system(marker)))
    assert checkpoints.read_checkpoint(written(tmp_path, buffer.getvalue())).module is not None
    assert not marker.exists()
