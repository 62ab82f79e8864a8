"""Refuses networks whose outputs are random: no artifact can be proven equal to them.

Calling twice is not enough: drop-path with a small probability changes nothing most of the time. So torch's
random operators are made to draw both ends of their distributions, clocks are set to several instants, and
draws from generators of Python and NumPy are found by the generators' state.
"""

from __future__ import annotations

import contextlib
import linecache
import pickle
import random
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from exporter.capture import random_generators
from exporter.capture.calls import call_array, call_leaves, call_network, copy_module_for_calls
from exporter.capture.forced_draws import (
    UNWRITTEN_TRIALS,
    Draw,
    ForcedDraws,
    forced_draw_patterns,
    operator_forced_draws,
)
from exporter.capture.forced_draws import forced_draw_name as operator_name
from exporter.capture.lowering_errors import is_lowering_error_of_user, lowering_error_source_in_text
from exporter.capture.random_generators import own_random_generators, random_generator_fingerprint
from exporter.capture.replaced_clocks import replaced_clocks
from exporter.capture.state import same_outputs_for_state
from exporter.errors import CaptureError

SEEDS = (1, 2, 3)
INSTANTS = 8
"""How often the clocks are set to another time."""


def check_randomness(
    module: nn.Module, inputs: Sequence[Tensor], program: torch.export.ExportedProgram | None = None
) -> None:
    """Refuse a network whose outputs depend on random numbers or on a clock.

    Args:
        module: It is not changed, nor are the generators of torch, NumPy and Python.
        inputs: The inputs of one call.
        program: The network's graph, where it has one: it shows branches that the example does not take, a
            seed set in forward, and code for the export alone.

    Raises:
        CaptureError: They do; the message names the operator and the line.
    """
    graphs = _graphs_with_randomness(program)
    nested = [draw for graph in graphs[1:] if (draw := _random_operator_in(graph))]
    draw = nested[0] if nested else None
    with _randomness_left_alone(module):
        # A branch of torch.cond allows no mode: then the operators of the graph decide.
        draw = draw or (
            _random_operator_in(graphs[0]) if len(graphs) > 1 else _torch_randomness(module, inputs)
        )
        draw = draw or _other_randomness(module, inputs)
        if draw is None and program is not None and len(graphs) == 1 and _random_operator_in(graphs[0]):
            draw = _torch_randomness(program.module(), inputs)
    if draw is not None:
        raise _randomness_refusal(draw)


def _graphs_with_randomness(program: torch.export.ExportedProgram | None) -> list[torch.fx.GraphModule]:
    """List the program's own graph, and then those nested in it."""
    modules = program.graph_module.modules() if program is not None else ()
    return [module for module in modules if isinstance(module, torch.fx.GraphModule)]


def _random_operator_in(graph: torch.fx.GraphModule) -> Draw | None:
    """Find the first random operator of a graph, without those nested in it."""
    for node in graph.graph.nodes:
        target = node.target
        if isinstance(target, torch._ops.OpOverload) and operator_forced_draws(
            target, node.args, node.kwargs
        ):
            return Draw(operator_name(target), lowering_error_source_in_text(node.stack_trace or ""))
    return None


def _randomness_refusal(draw: Draw) -> CaptureError:
    return CaptureError(
        f"The network {draw.action} in forward: {draw.operator}{_where_random(draw.source)}. Its outputs "
        "differ from call to call, so no artifact can be proven equal to it.",
        "Leave it out in eval mode (F.dropout needs training=self.training), or draw the numbers once and "
        "register them as a buffer.",
        code="EM-RANDOM",
    )


def _where_random(source: str | None) -> str:
    if source is None:
        return ""
    file, _, line = source.rpartition(":")
    text = linecache.getline(file, int(line)).strip()
    return f" at {source}" + (f" (`{text}`)" if text else "")


def _torch_randomness(module: nn.Module, inputs: Sequence[Tensor]) -> Draw | None:
    """Find the first random operator, where the outputs depend on the values that such operators draw."""
    first: list[Any] | None = None
    for trial, pattern in enumerate(forced_draw_patterns()):
        mode, fresh = (
            ForcedDraws(pattern),
            copy_module_for_calls(module),
        )  # saving a TorchScript network allows no mode
        _seed_randomness(SEEDS[0])
        try:
            with mode:
                outputs = _arrays_for_randomness(call_network(fresh, inputs))
        except CaptureError:
            # Some operators allow no mode; but a call that raises for some values only depends on them.
            if first is None:
                continue
            return next(iter((*mode.draws, *mode.unwritten)), None)
        first = first or outputs
        if not same_outputs_for_state(first, outputs):
            return next(iter((*mode.draws, *mode.unwritten)), None)
        if not mode.draws and (not mode.unwritten or trial + 1 >= UNWRITTEN_TRIALS):
            return None
    return None


def _other_randomness(module: nn.Module, inputs: Sequence[Tensor]) -> Draw | None:
    """Find a line that draws from Python's or NumPy's generators or reads a clock, or outputs that differ.

    A network that seeds a generator before it draws leaves it in one state, whatever state it was in.
    """
    outputs, before, after = [], [], []
    for seed in SEEDS:
        _seed_randomness(seed)
        before.append(random_generator_fingerprint())
        outputs.append(_arrays_for_randomness(call_network(copy_module_for_calls(module), inputs)))
        after.append(random_generator_fingerprint())
    states = zip(zip(*before, strict=True), zip(*after, strict=True), strict=True)
    if any(starts != ends and len(set(ends)) > 1 for starts, ends in states):
        return _randomness_line(module, inputs, ())
    draw = _own_randomness(module, inputs) or _random_readings(module, inputs)
    if draw or all(same_outputs_for_state(outputs[0], more) for more in outputs[1:]):
        return draw
    return Draw("something that is neither an operator of torch nor a generator of NumPy or Python", None)


def _own_randomness(module: nn.Module, inputs: Sequence[Tensor]) -> Draw | None:
    """Find a line that draws from a generator that an attribute or a global of the network holds.

    A generator that forward makes anew from a seed ends each call in one state.
    """
    module = copy_module_for_calls(module)
    states: list[list[bytes]] = []
    for _ in range(2):
        if not own_random_generators(module) and not states:
            return None
        call_network(module, inputs)
        states.append(
            [
                pickle.dumps(random_generators.random_generator_state(g))
                for _, g in own_random_generators(module)
            ]
        )
    return _randomness_line(module, inputs, own_random_generators(module)) if states[0] != states[1] else None


def _random_readings(module: nn.Module, inputs: Sequence[Tensor]) -> Draw | None:
    """Find a clock that the outputs depend on, or a line that asks the system for random bytes."""
    first: list[Any] | None = None
    for seed in range(INSTANTS):
        _seed_randomness(SEEDS[0])
        with replaced_clocks(module, seed) as readings:
            try:
                outputs = _arrays_for_randomness(call_network(copy_module_for_calls(module), inputs))
            except CaptureError:  # it ran before: the time of day made it raise
                return readings[0] if readings else None
        if bytes_read := [reading for reading in readings if not reading.action.endswith("clock")]:
            return bytes_read[0]
        if not readings:
            return None
        first = first or outputs
        if not same_outputs_for_state(first, outputs):
            return readings[0]
    return None


def _arrays_for_randomness(outputs: Any) -> list[Any]:
    return [call_array(leaf) for _, leaf in call_leaves(outputs)]


def _randomness_line(module: nn.Module, inputs: Sequence[Tensor], own: Sequence[tuple[str, Any]]) -> Draw:
    """Call once more and watch, line by line of the user's code, when a generator moves on.

    Args:
        module: It is copied where only global generators are watched.
        inputs: The inputs of one call.
        own: The generators to watch, by kind; empty for the global ones.
    """
    watch = _RandomnessWatch(own)
    module = module if own else copy_module_for_calls(module)
    tracer = sys.gettrace()  # a debugger's, or coverage's
    sys.settrace(watch.enter)
    try:
        call_network(module, inputs)
    finally:
        sys.settrace(tracer)
    return Draw(watch.generator or (own[0][0] if own else "Python's or NumPy's random module"), watch.source)


class _RandomnessWatch:
    """A trace function: compares the generators before and after each line of the user's code."""

    def __init__(self, own: Sequence[tuple[str, Any]]) -> None:
        self.generator = ""
        self.source: str | None = None
        self._own = own
        self._state = self._states()

    def _states(self) -> list[tuple[str, Any]]:
        if self._own:
            return [
                (kind, pickle.dumps(random_generators.random_generator_state(generator)))
                for kind, generator in self._own
            ]
        return list(zip(random_generators.GLOBAL, random_generator_fingerprint(), strict=True))

    def enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not is_lowering_error_of_user(frame.f_code.co_filename):
            return None
        last = frame.f_lineno

        def step(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal last
            if self.source is None:
                states = zip(self._state, self._states(), strict=True)
                if moved := [now for before, now in states if before != now]:
                    self.generator = moved[0][0]
                    self.source = f"{frame.f_code.co_filename}:{last}"
            last = frame.f_lineno
            return step

        return step


def _seed_randomness(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@contextlib.contextmanager
def _randomness_left_alone(module: nn.Module) -> Iterator[None]:
    """Leave the global generators, and those that the network's code refers to, where they were."""
    python, numpy = random.getstate(), np.random.get_state()
    own = [
        (generator, random_generators.random_generator_state(generator))
        for _, generator in own_random_generators(module)
    ]
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            for generator, state in own:
                random_generators.restore_random_generator(generator, state)
