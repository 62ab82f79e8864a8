"""Turns the state that a network keeps from call to call into inputs and outputs: `--state explicit`.

The app then keeps the state: it sends what the last call returned, and the checkpoint's state at first. Every
format and precision can carry that, as nothing is left for a file to remember.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from exporter.capture.calls import (
    call_arguments,
    call_array,
    call_dtype_name,
    call_leaves,
    call_network,
    call_output_names,
    copy_module_for_calls,
    settle_for_calls,
)
from exporter.capture.state import state_changed_by_calls
from exporter.errors import CaptureError
from exporter.records import Model, Sample, TensorSpec


@dataclass(frozen=True)
class ExplicitModel:
    """A model whose state is explicit, and its samples with the state that a sequence of calls meets."""

    model: Model
    calibration: tuple[Sample, ...]
    verification: tuple[Sample, ...]
    choice: tuple[Sample, ...] = ()


def make_state_explicit(
    model: Model,
    calibration: Sequence[Sample],
    verification: Sequence[Sample],
    choice: Sequence[Sample] = (),
) -> ExplicitModel:
    """Turn a network's state into further inputs and outputs.

    Args:
        model: In eval mode and float32; it is not changed.
        calibration: The inputs of calls that follow one another.
        verification: The same for verification.
        choice: The same for choosing among candidates.

    Returns:
        A model that also takes each state, named after its buffer, and returns it as `<buffer>_out`; samples
        that hold the state before each call. A model without state is returned unchanged.

    Raises:
        CaptureError: The network does not run, or its state changes shape from call to call.
    """
    settle_for_calls(model.module)
    fresh = copy_module_for_calls(model.module)
    paths = state_changed_by_calls(fresh, (*verification, *calibration))
    if not paths:
        return ExplicitModel(model, tuple(calibration), tuple(verification), tuple(choice))
    first = call_arguments(verification[0])
    names = call_output_names(list(call_leaves(call_network(copy_module_for_calls(fresh), first))))
    taken = {spec.name for spec in model.inputs}
    inputs = [_free_explicit_name(path.replace(".", "_"), taken) for path in paths]
    initial = [_explicit_state_tensor(fresh, path).detach().clone() for path in paths]
    module = ExplicitState(fresh, paths, names, inputs).eval()
    samples = [
        _explicit_state_of_samples(module, given, initial) for given in (calibration, verification, choice)
    ]
    specs = tuple(
        TensorSpec(name, tuple(t.shape), call_dtype_name(t)) for name, t in zip(inputs, initial, strict=True)
    )
    listed = ", ".join(f"{name} {list(t.shape)}" for name, t in zip(inputs, initial, strict=True))
    note = (
        f"State is explicit: send {listed} with every call, first the checkpoint's values, then those that "
        "the last call returned (…_out)."
    )
    explicit = replace(model, module=module, inputs=(*model.inputs, *specs), notes=(*model.notes, note))
    return ExplicitModel(explicit, *samples)


class ExplicitState(nn.Module):
    """Calls another module with the state given, and returns its outputs and the state that the call left."""

    def __init__(
        self, wrapped: nn.Module, paths: Sequence[str], outputs: Sequence[str], states: Sequence[str]
    ) -> None:
        super().__init__()
        self.wrapped = wrapped
        self.paths, self.outputs, self.states = tuple(paths), tuple(outputs), tuple(states)
        for path in paths:
            _release_explicit_state(wrapped, path)

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        own, given = inputs[: -len(self.paths)], inputs[-len(self.paths) :]
        with self._holding(given):
            outputs = [leaf for _, leaf in call_leaves(self.wrapped(*own))]
            after = [_explicit_state_tensor(self.wrapped, path).clone() for path in self.paths]
        return dict(zip((*self.outputs, *self.states), (*outputs, *after), strict=True))

    @contextmanager
    def _holding(self, given: Sequence[Tensor]) -> Iterator[None]:
        """Put copies of the given tensors where the network keeps its state, and take them out again."""
        for path, tensor in zip(self.paths, given, strict=True):
            _put_explicit_state(self.wrapped, path, tensor.clone())
        try:
            yield
        finally:
            for path in self.paths:
                _put_explicit_state(self.wrapped, path, None)


def _explicit_state_of_samples(
    module: nn.Module, samples: Sequence[Sample], initial: Sequence[Tensor]
) -> tuple[Sample, ...]:
    """Add to each sample the state that it meets when all are called one after the other."""
    state = [call_array(tensor) for tensor in initial]
    threaded: list[Sample] = []
    for sample in samples:
        threaded.append((*sample, *state))
        after = [
            call_array(leaf) for _, leaf in call_leaves(call_network(module, call_arguments(threaded[-1])))
        ][-len(state) :]
        _check_explicit_shapes(state, after)
        state = after
    return tuple(threaded)


def _check_explicit_shapes(before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> None:
    for old, new in zip(before, after, strict=True):
        if old.shape != new.shape:
            raise CaptureError(
                f"A call changes the shape of the network's state, {list(old.shape)} to {list(new.shape)}.",
                "Keep a state of one size (a ring of the last frames): an artifact's shapes are fixed.",
                code="EM-STATE",
            )


def _free_explicit_name(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_state"
    taken.add(name)
    return name


def _explicit_state_owner(module: nn.Module, path: str) -> tuple[Any, str]:
    """Return the object that holds the tensor at a path, and its name or place there."""
    *parents, name = path.split(".")
    owner: Any = module
    for parent in parents:
        owner = _explicit_state_item(owner, parent)
    return owner, name


def _explicit_state_item(owner: Any, name: str) -> Any:
    if isinstance(owner, nn.Module):
        return getattr(owner, name)
    return owner[name] if isinstance(owner, dict) else owner[int(name)]


def _explicit_state_tensor(module: nn.Module, path: str) -> Tensor:
    owner, name = _explicit_state_owner(module, path)
    value = _explicit_state_item(owner, name)
    if not isinstance(value, Tensor):
        raise CaptureError(
            f"The network's state {path} holds no tensor before the first call.",
            "Give it its first value in the constructor.",
            code="EM-STATE",
        )
    return value


def _put_explicit_state(module: nn.Module, path: str, value: Tensor | None) -> None:
    owner, name = _explicit_state_owner(module, path)
    if isinstance(owner, nn.Module):
        owner.__dict__[name] = value  # a plain attribute: what torch.export sees as a value of the call
    elif isinstance(owner, dict):
        owner[name] = value
    else:
        owner[int(name)] = value


def _release_explicit_state(module: nn.Module, path: str) -> None:
    """Let the tensor at a path be a plain attribute, which holds nothing between calls."""
    owner, name = _explicit_state_owner(module, path)
    if isinstance(owner, nn.Module):
        owner._buffers.pop(name, None)
        owner._parameters.pop(name, None)
        owner._non_persistent_buffers_set.discard(name)
    _put_explicit_state(module, path, None)
