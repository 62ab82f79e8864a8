"""Hostile files for `benchmarks.fuzz`: eight kinds, each made from a seed and written to a folder.

A maker returns what reads the file, as a command would. Attacks that run code would leave a file in `canary`.
"""

from __future__ import annotations

import functools
import io
import json
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.checkpoints.makers import net

Attempt = Callable[[], object]
Maker = Callable[[random.Random, Path, Path], Attempt]


@functools.cache
def _saved(legacy: bool) -> bytes:
    buffer = io.BytesIO()
    value = {"state_dict": net().state_dict(), "epoch": 3, "args": {"arch": "resnet18"}}
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


@functools.cache
def _scripted() -> bytes:
    buffer = io.BytesIO()
    script: Any = torch.jit.script
    torch.jit.save(script(net()), buffer)
    return buffer.getvalue()


@functools.cache
def _program() -> bytes:
    buffer = io.BytesIO()
    batch = torch.export.Dim("batch", min=1, max=8)
    example = torch.zeros(2, 1, 6, 6)
    torch.export.save(torch.export.export(net(), (example,), dynamic_shapes=({0: batch},)), buffer)
    return buffer.getvalue()


@functools.cache
def _tensors() -> bytes:
    from safetensors.torch import save

    return save({name: tensor.contiguous() for name, tensor in net().state_dict().items()})


# --- What is done to bytes -------------------------------------------------------------------------------


def damaged(maker: random.Random, data: bytes) -> bytes:
    """The bytes after a few cuts, flips, copies and insertions."""
    spoilt = bytearray(data)
    for _ in range(maker.choice([1, 1, 2, 5, 20])):
        place = maker.randrange(len(spoilt) + 1)
        match maker.randrange(6):
            case 0:
                del spoilt[place:]
            case 1 if spoilt:
                spoilt[place % len(spoilt)] ^= 1 << maker.randrange(8)
            case 2:
                spoilt[place:place] = maker.randbytes(maker.choice([1, 4, 8, 100]))
            case 3:
                spoilt[place : place + 8] = struct.pack("<Q", maker.choice(NUMBERS) % 2**64)
            case 4:
                other = maker.randrange(len(spoilt) + 1)
                spoilt[place:place] = spoilt[other : other + maker.choice([10, 1000])]
            case _:
                del spoilt[place : place + maker.choice([1, 10, 200])]
    return bytes(spoilt)


NUMBERS = (0, 1, -1, 2, 127, 2**16, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 10**30, 10**300)
NAMES = (
    "../../escape",
    "/etc/passwd",
    "a\nb",
    "\x1b[2J\x1b[32mEvery claim holds.",
    "x" * 5_000,
    "",
    ".",
    "..",
    "data.pkl",
    "DATA.PKL",
    "code/x.py",
    "CODE/x.PY",
    "constants.pkl",
    "data/0",
    "byteorder",
    "\u202eevil",
    "a:b",
    "a\\b",
)


def rezipped(maker: random.Random, data: bytes, hostile: Callable[[str, bytes], bytes]) -> bytes:
    """The archive with records renamed, doubled, left out, compressed, swollen or replaced."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.infolist():
            name, content = entry.filename, old.read(entry)
            kind = zipfile.ZIP_STORED
            match maker.randrange(14):
                case 0:
                    name = name.rpartition("/")[0] + "/" + maker.choice(NAMES)
                case 1:
                    name = maker.choice([name.upper(), maker.choice(NAMES)])
                case 2:
                    continue
                case 3:
                    content = damaged(maker, content)
                case 4:
                    content, kind = bytes(maker.choice([10, 10**6, 80 * 10**6])), zipfile.ZIP_DEFLATED
                case 5:
                    new.writestr(name.swapcase(), content)
                case _:
                    content = hostile(name, content)
            new.writestr(name or "x", content, kind)
    return buffer.getvalue()


# --- Pickles ---------------------------------------------------------------------------------------------


def opcodes(maker: random.Random, canary: Path) -> bytes:
    """A pickle of random opcodes: calls of whatever runs code, doubling, huge numbers, odd keys."""
    code = bytearray(b"\x80\x02")
    command = f"touch {canary}/ran".encode()
    text = b"X" + struct.pack("<I", len(command)) + command
    opening = f"open({str(canary / 'ran')!r}, 'w')".encode()
    calls = [
        b"cos\nsystem\n" + text + b"\x85R",
        b"cbuiltins\neval\n" + text + b"\x85R",
        b"(S'touch " + str(canary).encode() + b"/ran'\nios\nsystem\n",
        b"\x8c\x02os\x8c\x06system\x93" + text + b"\x85R",
        b"cbuiltins\nexec\nX" + struct.pack("<I", len(opening)) + opening + b"\x85R",
        b"ctorch.hub\nload\n" + text + b"\x85R",
        b"cpathlib\nPath\n" + text + b"\x85Rctorch\nload\n\x86R",
    ]
    plain = [
        b"}",
        b"]",
        b")",
        b"N",
        b"\x88",
        b"K\x05",
        b"J\xff\xff\xff\x7f",
        b"G" + struct.pack(">d", 1e308),
        b"\x8a\x7f" + b"\xff" * 127,
        b"X\x01\x00\x00\x00a",
        b"U\x03abc",
        b"C\x02\x00\xff",
        b"(",
        b"q\x01",
        b"h\x01",
        b"2",
        b"0",
        b"\x85",
        b"\x86",
        b"\x87",
        b"t",
        b"l",
        b"d",
        b"s",
        b"u",
        b"a",
        b"e",
        b"b",
        b"R",
        b"\x81",
        b"\x8f",
        b"\x90",
        b"(\x91",
        b"Q",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ccollections\nOrderedDict\n)R",
        b"cbuiltins\nlist\n",
        b"cbuiltins\nset\n",
        b"ctorch\nFloatStorage\n",
        b"cnumpy\ndtype\n",
        b"r\xff\xff\xff\x7f",
        b"j\xff\xff\xff\x7f",
        b"cbuiltins\ncomplex\n",
        b"c_codecs\nencode\n",
        b"\x8e" + struct.pack("<Q", 2**40),
        b"\x95" + struct.pack("<Q", 2**62),
        b"\x82\x01",
    ]
    for _ in range(maker.choice([3, 20, 200])):
        code += maker.choice(calls) if maker.random() < 0.15 else maker.choice(plain)
    return bytes(code) + b"."


def doubling(maker: random.Random) -> bytes:
    """A list of two of a list of two of …, as deep as asked for, somewhere in a state dict."""
    depth = maker.choice([30, 100, 2_000, 10_000])
    end = maker.choice([b"s.", b"u.", b"."])
    return b"\x80\x02}X\x01\x00\x00\x00k]q\x00" + b"(h\x00h\x00lq\x00" * depth + end


def wide(maker: random.Random) -> bytes:
    """Lists of a thousand references to lists of a thousand references, five levels deep."""
    code = b"\x80\x02]q\x00"
    for _ in range(maker.choice([4, 6])):
        code += b"](" + b"h\x00" * maker.choice([100, 2_000]) + b"eq\x00"
    name = maker.choice([b"a", b"_metadata", b"layer._extra_state", b"state_dict"])
    return code + b"}X" + struct.pack("<I", len(name)) + name + b"h\x00s."


class Pickled:
    """Objects that torch itself can save, hostile in size or shape rather than in code."""

    def __init__(self, maker: random.Random) -> None:
        self.maker = maker

    def value(self) -> object:
        weights = dict(net().state_dict())
        match self.maker.randrange(9):
            case 0:
                return {
                    f"net{i}": {"w": weights["head.bias"]} for i in range(self.maker.choice([10, 10_000]))
                }
            case 1:
                return {"w": torch.zeros(1).expand(self.maker.choice([10, 10**5]), 10**5), **weights}
            case 2:
                return {
                    (1, 2): weights,
                    frozenset((1, 2)): weights,
                    "set": {(1, (2, 3)), 4},
                    "state_dict": weights,
                }
            case 3:
                return {name * self.maker.choice([1, 1_000]): tensor for name, tensor in weights.items()}
            case 4:
                return {self.maker.choice(NAMES): tensor for tensor in weights.values()} | {
                    "\x1b[2J": weights
                }
            case 5:
                return {"module." * self.maker.choice([1, 9, 3_000]) + name: t for name, t in weights.items()}
            case 6:
                return {
                    "state_dict": weights,
                    "n": self.maker.choice(NUMBERS),
                    "f": float("nan"),
                    "b": b"x" * 10**5,
                }
            case 7:
                value: Any = weights
                for _ in range(self.maker.choice([3, 300])):
                    value = {"state_dict": value, "model": value}
                return value
            case _:
                views = torch.zeros(10**6)
                return {f"v{i}": views[i:] for i in range(self.maker.choice([5, 400]))}


def checkpoint_pickle(maker: random.Random, place: Path, canary: Path) -> Attempt:
    choice = maker.randrange(6)
    if choice < 3:
        pickled = maker.choice([opcodes(maker, canary), doubling(maker), wide(maker)])
        if choice == 0:
            head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
            return _inspecting(place, head + pickled + pickle.dumps([], 2))
        return _inspecting(place, rezipped_with(_saved(False), "data.pkl", pickled))
    if choice == 3:
        return _inspecting(place, damaged(maker, _saved(True)))
    buffer = io.BytesIO()
    torch.save(Pickled(maker).value(), buffer, _use_new_zipfile_serialization=choice == 4)
    return _inspecting(place, buffer.getvalue())


def rezipped_with(data: bytes, ending: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, content if entry.filename.endswith(ending) else old.read(entry))
    return buffer.getvalue()


def checkpoint_zip(maker: random.Random, place: Path, canary: Path) -> Attempt:
    def hostile(name: str, content: bytes) -> bytes:
        return opcodes(maker, canary) if name.endswith(".pkl") and maker.random() < 0.2 else content

    data = rezipped(maker, maker.choice([_saved(False), _scripted(), _program()]), hostile)
    return _inspecting(place, data if maker.random() < 0.8 else damaged(maker, data))


# --- The other kinds -------------------------------------------------------------------------------------


def safetensors(maker: random.Random, place: Path, canary: Path) -> Attempt:
    data = _tensors()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    match maker.randrange(6):
        case 0:
            return _inspecting(place, damaged(maker, data))
        case 1:
            header[maker.choice(list(header))]["shape"] = [
                maker.choice(NUMBERS) for _ in range(maker.choice([1, 3, 90]))
            ]
        case 2:
            header[maker.choice(list(header))]["data_offsets"] = [
                maker.choice(NUMBERS),
                maker.choice(NUMBERS),
            ]
        case 3:
            header |= {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(20_000)}
        case 4:
            header["__metadata__"] = {name: maker.choice(NAMES) for name in NAMES}
        case _:
            header = {maker.choice(NAMES) + str(i): value for i, value in enumerate(header.values())}
    text = json.dumps(header).encode()
    if maker.random() < 0.1:
        text = b'{"a":' + b"[" * maker.choice([100, 200_000])
    return _inspecting(place, struct.pack("<Q", len(text)) + text + body)


SET_STATE = (
    "  def __setstate__(self, state: int) -> NoneType:\n    image = torch.zeros([1])\n    STATEMENT\n"
    "    return None\n"
)
STATEMENTS = (
    "torch.save(image, 'CANARY/ran')",
    "ops.aten.save(image, 'CANARY/ran')",
    "getattr(torch, \"save\")(image, 'CANARY/ran')",
    "(torch. # c\n    save)(image, 'CANARY/ran')",
    "image = torch.from_file('CANARY/ran', True, 8)",
    "print('\\033[2JEvery claim holds.')",
    "while True:\n      pass",
    "image = ops.mine.run(image)",
    "image = torch.zeros([1000000000000])",
    "raise 'x'",
    "_y = " + "(" * 20_000 + "1" + ")" * 20_000,
    "for _i in range(4611686018427387904):\n      image = torch.add(image, 1)",
    "_y = " + "[" * 3_000 + "]" * 3_000,
    "image = torch.add(image, torch.load('CANARY/ran'))",
    "import os",
    "@",
    "return image",
    "image = image.foo()",
)


def torchscript(maker: random.Random, place: Path, canary: Path) -> Attempt:
    statement = maker.choice(STATEMENTS).replace("CANARY", str(canary))
    method = SET_STATE.replace("STATEMENT", statement) if maker.random() < 0.3 else ""

    def hostile(name: str, content: bytes) -> bytes:
        if not name.endswith(".py") or b"conv = self.conv" not in content:
            return content
        text = content.decode()
        line = next(part for part in text.splitlines() if "conv = self.conv" in part)
        return text.replace(line, f"    {statement}\n{line}").encode() + method.encode()

    if maker.random() < 0.6:
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(_scripted())) as old, zipfile.ZipFile(buffer, "w") as new:
            cases: list[Callable[[str], str]] = [
                str,
                str.upper,
                lambda name: name.replace("/code/", "/CODE/"),
            ]
            case = maker.choice(cases)
            for entry in old.infolist():
                name = case(entry.filename) if "/code/" in entry.filename else entry.filename
                new.writestr(name, hostile(entry.filename, old.read(entry)))
        return _inspecting(place, buffer.getvalue())
    return _inspecting(place, rezipped(maker, _scripted(), hostile))


def _tower(maker: random.Random) -> str:
    text = "Symbol('s0')"
    for _ in range(maker.choice([3, 40, 3_000])):
        text = maker.choice(
            [
                "Mul({0}, {0})",
                "Add({0}, Mul({0}, Integer(9223372036854775807)))",
                "FloorDiv(Add({0}, Integer(1)), Integer(2))",
                "Mod({0}, Integer(7))",
                "Max({0}, Symbol('s1'))",
                "Pow({0}, {0})",
                "{0}**{0}",
            ]
        ).format(text)
        if len(text) > 200_000:
            break
    return text


def program(maker: random.Random, place: Path, canary: Path) -> Attempt:
    evil = f"__import__('os').system('touch {canary}/ran')"

    def spoil(value: Any) -> Any:
        if isinstance(value, dict):
            return {(evil if maker.random() < 0.001 else key): spoil(item) for key, item in value.items()}
        if isinstance(value, list):
            return [spoil(item) for item in value] * (2 if maker.random() < 0.003 else 1)
        if maker.random() < 0.01:
            return maker.choice([evil, *NAMES, *NUMBERS[:12], None, [], {}, _tower(maker), True, 1e300])
        return value

    def hostile(name: str, content: bytes) -> bytes:
        if name.endswith(".json") and maker.random() < 0.7:
            text = json.dumps(spoil(json.loads(content)))
            return (
                text.replace('"expr_str": "', f'"expr_str": {json.dumps(_tower(maker))}, "x": "').encode()
                if (maker.random() < 0.3)
                else text.encode()
            )
        return opcodes(maker, canary) if name.endswith(".pt") and maker.random() < 0.3 else content

    if maker.random() < 0.5:
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(_program())) as old, zipfile.ZipFile(buffer, "w") as new:
            for entry in old.infolist():
                new.writestr(entry.filename, hostile(entry.filename, old.read(entry)))
        return _inspecting(place, buffer.getvalue())
    return _inspecting(place, rezipped(maker, _program(), hostile))


def npz(maker: random.Random, place: Path, canary: Path) -> Attempt:
    import numpy as np

    from exporter.data import npz as arrays
    from exporter.records import TensorSpec
    from exporter.verify import reference_io

    buffer = io.BytesIO()
    shape = [maker.choice([0, 1, 2, *NUMBERS]) for _ in range(maker.choice([1, 2, 40]))]
    head = str(
        {
            "descr": maker.choice(["<f4", "|O", "<f8", "<i8", "<U5"]),
            "fortran_order": False,
            "shape": tuple(shape),
        }
    )
    with zipfile.ZipFile(buffer, "w", maker.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as file:
        for name in ("x", "inputs/0", "reference/0", "floor", "edge_floor", "edge_names", "reference_dtype"):
            stream = io.BytesIO()
            if maker.random() < 0.4:
                stream.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode())
                stream.write(opcodes(maker, canary) if "|O" in head else bytes(maker.choice([0, 64, 10**7])))
            else:
                np.save(stream, np.zeros((2, 3), np.float32))
            file.writestr(maker.choice([name, name, maker.choice(NAMES)]) + ".npy", stream.getvalue())
    data = buffer.getvalue() if maker.random() < 0.7 else damaged(maker, buffer.getvalue())
    path = place / "data.npz"
    path.write_bytes(data)
    if maker.random() < 0.5:
        return lambda: bounded(lambda: arrays.read_npz(path, (TensorSpec("x", (1, 3)),)))
    return lambda: bounded(lambda: reference_io.load_reference_io(path))


def _manifest(maker: random.Random) -> bytes:
    def value(depth: int) -> Any:
        if depth == 0 or maker.random() < 0.5:
            return maker.choice([*NAMES, *NUMBERS[:13], 1.5, None, True, "passed", "executorch"])
        if maker.random() < 0.5:
            return [value(depth - 1) for _ in range(maker.randrange(4))]
        return {maker.choice(KEYS): value(depth - 1) for _ in range(maker.randrange(6))}

    whole = {key: value(4) for key in KEYS if maker.random() < 0.8} | {
        "schema_version": maker.choice([1, 1, 2, "1"])
    }
    text = json.dumps(whole).encode()
    if maker.random() < 0.1:
        text = b'{"artifacts":' + b"[" * maker.choice([100, 100_000])
    return text if maker.random() < 0.8 else damaged(maker, text)


KEYS = (
    "schema_version",
    "tool",
    "source",
    "target",
    "budget_ms",
    "inputs",
    "outputs",
    "calibration",
    "artifacts",
    "selected",
    "verdict",
    "evidence",
    "files",
    "file",
    "sha256",
    "name",
    "status",
    "limits",
    "verification",
    "release",
    "labels",
    "path",
)


def manifest(maker: random.Random, place: Path, canary: Path) -> Attempt:
    from exporter.pipeline import audit

    (place / "out").mkdir()
    (place / "out" / "manifest.json").write_bytes(_manifest(maker))
    return lambda: bounded(lambda: audit.verify_export(place / "out"))


def release(maker: random.Random, place: Path, canary: Path) -> Attempt:
    from exporter.release import check

    path = place / "net-1.0.zip"
    with zipfile.ZipFile(path, "w", maker.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as file:
        file.writestr(maker.choice(["manifest.json", "net/manifest.json"]), _manifest(maker))
        for _ in range(maker.randrange(6)):
            entry = zipfile.ZipInfo(maker.choice(["net/", ""]) + maker.choice(NAMES))
            entry.external_attr = maker.choice([0o644, 0o120777, 0o010644, 0o040755]) << 16
            file.writestr(entry, bytes(maker.choice([0, 10, 10**7])), zipfile.ZIP_DEFLATED)
    if maker.random() < 0.4:
        path.write_bytes(damaged(maker, path.read_bytes()))
    return lambda: bounded(lambda: check.check_release(path))


def _inspecting(place: Path, data: bytes) -> Attempt:
    """Write the file; the job of `inspect` reads it, without the sandbox that would hide the canary."""
    from exporter.config.request import ModelRequest
    from exporter.pipeline.inspect import inspect_checkpoint_here

    path = place / "checkpoint.bin"
    path.write_bytes(data)
    return lambda: bounded(lambda: inspect_checkpoint_here(ModelRequest(path)))


def bounded(read: Callable[[], object]) -> object:
    """Read within the bounds that a job has, and turn a stop into the refusal that a job makes of it."""
    from exporter import sandbox
    from exporter.errors import BoundsError
    from exporter.sandbox import resource_limits

    resource_limits.enter_resource_limits(sandbox.Confinement(seconds=sandbox.confinement_seconds(0)))
    try:
        return read()
    except MemoryError:
        raise BoundsError("It needed more than 4 GiB of memory.") from None


KINDS: dict[str, Maker] = {
    "zip": checkpoint_zip,
    "pickle": checkpoint_pickle,
    "safetensors": safetensors,
    "torchscript": torchscript,
    "pt2": program,
    "npz": npz,
    "manifest": manifest,
    "release": release,
}
