"""Refuses networks whose outputs are random: no artifact can be proven equal to them.

Calling twice is not enough: drop-path with a small probability changes nothing most of the time. So every
random operator of torch is made to draw two extremes, and draws from Python's or NumPy's own generators are
found by the generators' state.
"""

from __future__ import annotations

import contextlib
import linecache
import pickle
import random
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from exporter.capture.calls import array, call, copied, leaves
from exporter.capture.lowering_errors import is_user_code, source_in_text
from exporter.capture.state import same
from exporter.errors import CaptureError

SEEDS = (1, 2, 3)
EXTREMES = (0.25, 0.75)
"""The first and last value that random operators are made to draw, rising or falling; coins draw 0 and 1."""
COINS = ("bernoulli", "dropout")


@dataclass(frozen=True)
class Draw:
    """Where a network draws random numbers."""

    operator: str
    source: str | None
    """`file:line` of the user's code, where known."""


def check(
    module: nn.Module, inputs: Sequence[Tensor], program: torch.export.ExportedProgram | None = None
) -> None:
    """Refuse a network whose outputs depend on random numbers.

    Args:
        module: It is not changed, nor are the generators of torch, NumPy and Python.
        inputs: The inputs of one call.
        program: The network's graph, where it has one: it shows branches that the example does not take, a
            seed set in forward, and code for the export alone.

    Raises:
        CaptureError: They do; the message names the operator and the line.
    """
    graphs = _graphs(program)
    nested = [draw for graph in graphs[1:] if (draw := _drawn_in(graph))]
    draw = nested[0] if nested else None
    with _own_generators():
        # A branch of torch.cond allows no mode: then the operators of the graph decide.
        draw = draw or (_drawn_in(graphs[0]) if len(graphs) > 1 else _torch_draws(module, inputs))
        draw = draw or _other_draws(module, inputs)
        if draw is None and program is not None and len(graphs) == 1 and _drawn_in(graphs[0]):
            draw = _torch_draws(program.module(), inputs)
    if draw is not None:
        raise _refusal(draw)


def _graphs(program: torch.export.ExportedProgram | None) -> list[torch.fx.GraphModule]:
    """List the program's own graph, and then those nested in it."""
    modules = program.graph_module.modules() if program is not None else ()
    return [module for module in modules if isinstance(module, torch.fx.GraphModule)]


def _drawn_in(graph: torch.fx.GraphModule) -> Draw | None:
    """Find the first random operator of a graph, without those nested in it."""
    for node in graph.graph.nodes:
        target = node.target
        if isinstance(target, torch._ops.OpOverload) and _draws(target, node.args, node.kwargs):
            return Draw(_name(target), source_in_text(node.stack_trace or ""))
    return None


def _refusal(draw: Draw) -> CaptureError:
    return CaptureError(
        f"The network draws random numbers in forward: {draw.operator}{_where(draw.source)}. Its outputs "
        "differ from call to call, so no artifact can be proven equal to it.",
        "Leave it out in eval mode (F.dropout needs training=self.training), or draw the numbers once and "
        "register them as a buffer.",
        code="EM-RANDOM",
    )


def _where(source: str | None) -> str:
    if source is None:
        return ""
    file, _, line = source.rpartition(":")
    text = linecache.getline(file, int(line)).strip()
    return f" at {source}" + (f" (`{text}`)" if text else "")


def _torch_draws(module: nn.Module, inputs: Sequence[Tensor]) -> Draw | None:
    """Find the first random operator whose numbers reach an output."""
    outputs, drawn = [], []
    for rising in (True, False):
        with contextlib.suppress(CaptureError), _Forced(rising) as mode:  # some operators allow no mode
            outputs.append(_arrays(call(copied(module), inputs)))
        drawn += mode.draws
    return drawn[0] if drawn and len(outputs) == 2 and not same(*outputs) else None


def _other_draws(module: nn.Module, inputs: Sequence[Tensor]) -> Draw | None:
    """Find a line that draws from Python's or NumPy's generator, or outputs that differ by themselves.

    A network that seeds a generator before it draws leaves it in one state, whatever state it was in.
    """
    outputs, before, after = [], [], []
    for seed in SEEDS:
        _seed(seed)
        before.append(_fingerprint())
        outputs.append(_arrays(call(copied(module), inputs)))
        after.append(_fingerprint())
    states = zip(zip(*before, strict=True), zip(*after, strict=True), strict=True)
    if any(starts != ends and len(set(ends)) > 1 for starts, ends in states):
        return _drawing_line(module, inputs)
    if all(same(outputs[0], more) for more in outputs[1:]):
        return None
    return Draw("something that neither torch's, NumPy's nor Python's global generator decides", None)


def _arrays(outputs: Any) -> list[Any]:
    return [array(leaf) for _, leaf in leaves(outputs)]


def _draws(operator: torch._ops.OpOverload, args: Sequence[Any], kwargs: Any) -> bool:
    """Tell whether a call of an operator draws: dropout in eval mode, for one, does not."""
    if torch.Tag.nondeterministic_seeded not in operator.tags:
        return False
    names = [argument.name for argument in operator._schema.arguments]
    values = dict(zip(names, args, strict=False)) | dict(kwargs)
    defaults = {a.name: a.default_value for a in operator._schema.arguments if a.has_default_value()}
    values = {**defaults, **values}
    if values.get("train") is False or values.get("training") is False:
        return False
    return not any(values.get(name) == 0 for name in ("dropout_p", "dropout") if name in values)


def _name(operator: torch._ops.OpOverload) -> str:
    return operator._schema.name.replace("::", ".")


class _Forced(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Makes random operators draw predetermined values, and remembers the lines that called them."""

    def __init__(self, rising: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rising = rising
        self.draws: list[Draw] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not isinstance(func, torch._ops.OpOverload) or not _draws(func, args, kwargs or {}):
            return result
        self.draws.append(_caller(_name(func)))
        coin = any(word in func._opname for word in COINS)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                leaf.copy_(torch.full(leaf.shape, float(self.rising)) if coin else self._ramp(leaf.shape))
        return result

    def _ramp(self, shape: torch.Size) -> Tensor:
        """Make values between the extremes, different ones, so that a softmax of them is not uniform."""
        first, last = EXTREMES if self.rising else EXTREMES[::-1]
        return torch.linspace(first, last, shape.numel()).reshape(shape)


def _caller(operator: str) -> Draw:
    """Name the function that the user's line calls (`dropout`), or else the operator."""
    frames = traceback.extract_stack()[:-2]
    inner = ""
    for frame in reversed(frames):
        if is_user_code(frame.filename):
            return Draw(f"{operator} (in {inner})" if inner else operator, f"{frame.filename}:{frame.lineno}")
        if frame.name not in ("__torch_dispatch__", "_call_impl", "_wrapped_call_impl", "forward"):
            inner = frame.name
    return Draw(operator, None)


def _drawing_line(module: nn.Module, inputs: Sequence[Tensor]) -> Draw:
    """Call once more and watch, line by line of the user's code, when a generator moves on."""
    watch = _Watch()
    module = copied(module)
    sys.settrace(watch.enter)
    try:
        call(module, inputs)
    finally:
        sys.settrace(None)
    return Draw(watch.generator or "Python's or NumPy's random module", watch.source)


class _Watch:
    """A trace function: compares the generators before and after each line of the user's code."""

    def __init__(self) -> None:
        self.generator = ""
        self.source: str | None = None
        self._state = _fingerprint()

    def enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not is_user_code(frame.f_code.co_filename):
            return None
        last = frame.f_lineno

        def step(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal last
            state = _fingerprint()
            if state != self._state and self.source is None:
                self.generator = next(
                    name for name, a, b in zip(GENERATORS, self._state, state, strict=True) if a != b
                )
                self.source = f"{frame.f_code.co_filename}:{last}"
            last = frame.f_lineno
            return step

        return step


GENERATORS = ("Python's random module", "numpy.random")


def _fingerprint() -> tuple[int, int]:
    """Hash the states of the global generators that torch's operators do not draw from."""
    return hash(random.getstate()), hash(pickle.dumps(np.random.get_state()))


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@contextlib.contextmanager
def _own_generators() -> Iterator[None]:
    """Leave the caller's generators where they were."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
