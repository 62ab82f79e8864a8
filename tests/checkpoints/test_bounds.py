"""Small files that would take minutes or gigabytes are read or refused at once, with one short message."""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as save_safetensors
from torch import nn

from exporter import checkpoints
from exporter.checkpoints import checkpoint_contents, choose_weights, exported_program_json, inert_values
from exporter.config import toml_file
from exporter.errors import BoundsError, CheckpointError, ExportError, UsageError, brief_error
from tests.checkpoints import makers
from tests.checkpoints.makers import edited, program_bytes, record, torch_bytes, torchscript_bytes, written

SECONDS = 10.0
"""The most processor time. Each takes well under a second; before they were bounded, minutes or more."""
GROWTH_BYTES = 1 << 30


def pickled(code: bytes) -> bytes:
    """A checkpoint whose pickle is these opcodes."""
    return edited(torch_bytes(makers.weights()), {"data.pkl": b"\x80\x02" + code + b"."})


def text(value: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value


def nested_lists(width: int, depth: int) -> bytes:
    """A list of `width` references to a list of `width` references, `depth` deep, as memo entry 0."""
    return b"]q\x00" + (b"](" + b"h\x00" * width + b"eq\x00") * depth


def copies(function: bytes, item: bytes, count: int) -> bytes:
    """One large item, copied again and again by a stand-in, every copy kept."""
    return b"](" + item + b"q\x01" + function + b"q\x02" + b"h\x02h\x01\x85R" * count + b"e"


def metadata(code: bytes) -> bytes:
    """An OrderedDict whose `_metadata` is what the opcodes make."""
    return b"ccollections\nOrderedDict\n)R}" + text(b"_metadata") + code + b"sb"


def tensor(shape: bytes, strides: bytes, key: bytes = b"0", numel: int = 18) -> bytes:
    storage = (
        b"("
        + text(b"storage")
        + b"ctorch\nFloatStorage\n"
        + text(key)
        + text(b"cpu")
        + b"K"
        + bytes([numel])
        + b"tQ"
    )
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00" + shape + strides + b"\x89N" + b"tR"


HUGE = b"\x8b" + struct.pack("<i", 20_000) + b"\x7f" * 20_000
"""A whole number of 20,000 bytes."""
BIG_LIST = b"](" + b"N" * 20_000 + b"e"

PICKLES: dict[str, Callable[[], bytes]] = {
    "lists of lists of lists": lambda: b"}" + text(b"a") + nested_lists(2_000, 6) + b"h\x00s",
    "as extra state": lambda: b"}" + text(b"a._extra_state") + nested_lists(1_000, 4) + b"h\x00s",
    "as layer versions": lambda: metadata(
        b"}" + text(b"a") + b"}" + text(b"v") + nested_lists(1_000, 4) + b"h\x00sss"
    ),
    "shared layer notes": lambda: metadata(
        b"}q\x01(" + b"".join(text(b"k%d" % i) + b"N" for i in range(3_000)) + b"u0"
        b"}(" + b"".join(text(b"l%d" % i) + b"h\x01" for i in range(3_000)) + b"u"
    ),
    "doubled to 2^10000": lambda: b"}" + text(b"a") + b"]q\x00" + b"(h\x00h\x00lq\x00" * 10_000 + b"s",
    "doubled as a size": lambda: tensor(b"]q\x00" + b"(h\x00h\x00lq\x00" * 10_000, b")"),
    "doubled as a number": lambda: b"cbuiltins\ncomplex\n(]q\x00" + b"(h\x00h\x00lq\x00" * 10_000 + b"tR",
    "a list copied 20,000 times": lambda: copies(b"cbuiltins\nlist\n", BIG_LIST, 20_000),
    "a tuple copied": lambda: copies(b"cbuiltins\ntuple\n", BIG_LIST, 20_000),
    "a text encoded": lambda: copies(b"c_codecs\nencode\n", text(b"x" * 60_000), 20_000),
    "a dictionary copied": lambda: copies(
        b"cbuiltins\ndict\n", b"}(" + b"".join(text(b"k%d" % i) + b"N" for i in range(5_000)) + b"u", 20_000
    ),
    "one big list under 10,000 keys": lambda: (
        BIG_LIST + b"q\x010}(" + b"".join(text(b"k%d" % i) + b"](h\x01e" for i in range(10_000)) + b"u"
    ),
    "a size of 160,000 bits": lambda: tensor(HUGE + b"\x85", b"K\x01\x85"),
    "a product of 4,000 sizes": lambda: tensor(
        b"(" + (b"\x8a\x08" + b"\xff" * 7 + b"\x7f") * 4_000 + b"t", b"(" + b"K\x00" * 4_000 + b"t"
    ),
    "an offset of 160,000 bits": lambda: tensor(b"K\x01\x85", b"K\x01\x85").replace(
        b"K\x00K", HUGE + b"K", 1
    ),
    "a stride of zero": lambda: tensor(b"J\xff\xff\xff\x7fK\x10\x86", b"K\x00K\x00\x86"),
    "a storage of 2^100 numbers": lambda: tensor(b")", b")").replace(
        b"K\x12tQ", b"\x8a\x0d" + b"\xff" * 12 + b"\x0ftQ"
    ),
    "a key of a huge number": lambda: b"}" + HUGE + b"Ns",
    "a key of nested tuples": lambda: b"}" + b")" + b"\x85" * 30_000 + b"Ns",
    "keys that are sets": lambda: b"}(" + b"\x8f(K\x01K\x02\x90N" * 100 + b"(K\x01K\x02\x91Nu",
    "keys that are tuples of tuples": lambda: b"}(" + b"K\x01K\x02\x86\x85N" * 100 + b"u",
    "a name of 60,000 control codes": lambda: b"cnowhere\n" + b"\x1b[2J" * 15_000 + b"\n)R",
    "module. 9,000 times": lambda: (
        b"}" + text(b"module." * 9_000 + b"w") + tensor(b"K\x01\x85", b"K\x01\x85") + b"s"
    ),
}


def attempted(tmp_path: Path, data: bytes) -> str:
    """Read a checkpoint; returns what was said of it, after checking the time and the memory it took."""
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        said = str(checkpoints.read_checkpoint(written(tmp_path, data)).contents)
    except CheckpointError as error:
        said = str(error)
        assert len(said) < 1_600
        assert all(c.isprintable() or c == "\n" for c in said)
    assert time.process_time() - began < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < GROWTH_BYTES
    return said


@pytest.mark.parametrize("name", PICKLES)
def test_pickles(tmp_path: Path, name: str) -> None:
    """A pickle of some 60 KB takes neither long nor much memory, whatever it says."""
    data = pickled(PICKLES[name]())
    assert len(data) < 300_000
    attempted(tmp_path, data)


def test_many_views_of_one_storage(tmp_path: Path) -> None:
    """Views that begin at different places share the bytes they lie in."""
    stored = torch.zeros(2_000_000)
    attempted(tmp_path, torch_bytes({f"v{i}": stored[i : i + 10] for i in range(1_000)}))


@pytest.mark.parametrize("nesting", [1, 3])
def test_ten_thousand_candidates(tmp_path: Path, nesting: int) -> None:
    """Finding the network among 10,000 dictionaries takes time in proportion to their number."""
    root: dict[str, Any] = {f"part{i}": {"w": torch.zeros(1)} for i in range(10_000)}
    for _ in range(nesting - 1):
        root = {"all": root}
    assert "several sets of weights" in attempted(tmp_path, torch_bytes(root))


def outweighs(other: choose_weights.ChosenWeights, one: choose_weights.ChosenWeights) -> bool:
    """The rule as it reads, comparing each with each."""
    shorter, longer = sorted((one.path, other.path), key=len)
    if one is other or longer[: len(shorter)] != shorter:
        return False
    counts = len(other.tensors), len(one.tensors)
    return counts[0] > counts[1] or (counts[0] == counts[1] and len(other.path) > len(one.path))


def test_candidates_are_those_that_none_outweighs() -> None:
    """The quick way finds what the comparison of each with each finds."""
    import random

    maker = random.Random(0)
    ref = inert_values.TensorRef(inert_values.Storage("0", "float32", 1), "float32", 0, (), ())

    def tree(depth: int) -> dict[str, Any]:
        node: dict[str, Any] = {f"t{i}": ref for i in range(maker.randrange(4))}
        return node | {f"k{i}": tree(depth - 1) for i in range(maker.randrange(3) if depth else 0)}

    for _ in range(200):
        root = tree(4)
        found = list(choose_weights._search_weights_to_choose(root, (), set()))
        slow = [c.path for c in found if not any(outweighs(other, c) for other in found)]
        assert [c.path for c in choose_weights.weights_to_choose(root)] == slow


class Expanded(nn.Module):
    """A weight that repeats one number 4 * 10^10 times."""

    def __init__(self) -> None:
        super().__init__()
        self.huge = nn.Parameter(torch.zeros(1).expand(200_000, 200_000), requires_grad=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image + torch.select(torch.select(self.huge, 0, 0), 0, 0)


def expanded_program() -> bytes:
    config = json.loads(record(program_bytes(), "model_weights_config.json"))
    meta = config["config"]["head.weight"]["tensor_meta"]
    meta["sizes"] = [{"as_int": 200_000}, {"as_int": 200_000}]
    meta["strides"] = [{"as_int": 0}, {"as_int": 0}]
    return edited(program_bytes(), {"model_weights_config.json": json.dumps(config).encode()})


@pytest.mark.parametrize(
    "make", [lambda: torchscript_bytes(Expanded()), expanded_program], ids=["torchscript", "pt2"]
)
def test_weights_that_expand(tmp_path: Path, make: Callable[[], bytes]) -> None:
    """A stride of zero makes gigabytes of one number: refused before anything walks through them."""
    assert "claim to hold 160000000" in attempted(tmp_path, make())


def tower(template: str, height: int) -> str:
    expression = "Symbol('s0')"
    for _ in range(height):
        expression = template.format(expression)
    return expression


SUMS = [f"Add(Symbol('s{i}'), Integer(1))" for i in range(40)]
TOWERS = {
    "doubled products": tower("Mul({0}, {0})", 14),
    "products of sums": f"Mul({', '.join(f'Add(Symbol(s{i!r}), Integer(1))' for i in range(40))})".replace(
        "s'", "'s"
    ),
    "a long sum": f"Add({', '.join('Integer(1)' for _ in range(5_000))})",
    "deep sums": tower("Add({0}, Integer(1))", 120),
    "deep remainders": tower("Mod({0}, Integer(7))", 200),
    "deep maxima": tower("Max({0}, Symbol('s1'))", 150),
    "powers": "Symbol('s0')**Integer(9)**Integer(9)",
    "a call of a power": "Pow(Integer(9), Integer(99999999))",
    "a million digits": f"Integer({'9' * 1_000_000})",
    "many brackets": f"{'(' * 150}1{')' * 150}" + " " * 4_000,
}


@pytest.mark.parametrize("name", TOWERS)
def test_expressions(name: str) -> None:
    """A size's expression that sympy would work on for ever is refused before sympy sees it."""
    began = time.process_time()
    with pytest.raises(CheckpointError):
        exported_program_json._exported_program_json_expression(TOWERS[name])
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize("height", [1, 10])
def test_honest_expressions(height: int) -> None:
    """What a network of strided convolutions makes of a free size passes."""
    honest = tower("Add(FloorDiv(Add({0}, Integer(-1)), Integer(2)), Integer(1))", height)
    assert exported_program_json._exported_program_json_expression(honest) == honest


def test_a_long_listing_is_cut() -> None:
    """A million entries are not a million lines."""
    listed = checkpoint_contents.describe_checkpoint_contents(
        {f"k{i}": i for i in range(checkpoint_contents.MAX_ENTRIES + 5)}
    )
    assert len(listed) == checkpoint_contents.MAX_ENTRIES + 1
    assert listed[-1] == ("…", "and 5 entries more")


def test_safetensors_with_many_names(tmp_path: Path) -> None:
    """Names are as long as they like; the listing and the message are not."""
    said = attempted(tmp_path, save_safetensors({"x" * 50_000: torch.tensor([float("nan")])}))
    assert "NaN" in said


@pytest.mark.parametrize("kind", [ExportError, CheckpointError, BoundsError, UsageError])
def test_messages_fit_a_screen(kind: type[ExportError]) -> None:
    """Whatever a file puts into a message, it is short and holds no control codes."""
    error = kind("\x1b[2J\x1b[32mEverything holds." * 1_000, "\r\x07" * 5_000 + "\n" * 500)
    assert len(str(error)) < 3_000
    assert str(error).count("\n") < 40
    assert all(c.isprintable() or c == "\n" for c in str(error))


def test_brief_leaves_honest_text_alone() -> None:
    """A message of a few lines, in any language, stays as it is."""
    assert brief_error("Größe: 3 zu 224 — “ok”\nzweite Zeile") == "Größe: 3 zu 224 — “ok”\nzweite Zeile"


@pytest.mark.parametrize("make", ["fifo", "device"])
def test_settings_that_are_no_regular_file(tmp_path: Path, make: str) -> None:
    """A named pipe as a card or nightly.toml is refused and does not block."""
    path = Path("/dev/zero")
    if make == "fifo":
        path = tmp_path / "card.toml"
        os.mkfifo(path)
    with pytest.raises(UsageError, match="not a regular file"):
        toml_file.read_toml(path, "Card x", toml_file.Table)


@pytest.mark.parametrize("command", [["targets"], ["targets", "--json"], ["export", "--help"]])
def test_a_reader_that_leaves_early(command: list[str]) -> None:
    """`export-mobile … | head -1` ends with 0 and without a traceback."""
    run = "from exporter.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", run, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read().decode()
    assert (process.wait(), said) == (0, "")
    process.stderr.close()
