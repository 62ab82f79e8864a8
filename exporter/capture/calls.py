"""Calls a user's network so that a call changes neither the caller's inputs nor, where needed, the network.

Every call gets its own copy of its inputs: a network may normalise its input in place. An error of
the network's own code becomes a `CaptureError` with the line that raised it.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from exporter.capture.lowering_errors import lowering_error_source
from exporter.errors import CaptureError
from exporter.records import Runner, Sample

UNIT_WIDTH = 16
"""Fewer numbers than these may have length one by chance."""
UNIT = 1e-5
"""How far from one a vector's length may be: float32 normalises more exactly, and few scores come so near."""


def call_arguments(sample: Sample, widen: bool = False) -> tuple[Tensor, ...]:
    """Make contiguous tensors that share no memory with the arrays; `widen` makes floats float64."""
    tensors = (torch.from_numpy(array).clone(memory_format=torch.contiguous_format) for array in sample)
    return tuple(t.double() if widen and t.is_floating_point() else t for t in tensors)


def call_network(
    module: nn.Module, inputs: Sequence[Tensor], subject: str = "The network", names: Sequence[str] = ()
) -> Any:
    """Call the network on copies of the inputs, without gradients.

    Args:
        module: Any module; the call may change its state.
        inputs: They are not changed.
        subject: The subject of the error message.
        names: The inputs' names, for the message.

    Raises:
        CaptureError: The network's own code raised: the first line of that, and where.
    """
    copies = [tensor.clone() for tensor in inputs]
    try:
        with torch.no_grad():
            return module(*copies)
    except (Exception, SystemExit) as error:
        raise CaptureError(
            f"{subject} does not run on {call_inputs_text(inputs, names)}: "
            f"{first_line_of_call_error(error)}{call_raised_at(error)}",
            "Give the shapes it was trained on with --input-shape, or inputs it accepts with --calibration.",
        ) from error


def call_raised_at(error: BaseException) -> str:
    """Return " (at file:line)" for the line of the user's code that raised, or an empty string."""
    source = lowering_error_source(error)
    return f" (at {source})" if source else ""


def first_line_of_call_error(error: BaseException) -> str:
    """Return the first line of an error's text, or its type where it has none."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def call_inputs_text(inputs: Sequence[Tensor], names: Sequence[str] = ()) -> str:
    """Describe inputs by name, shape and dtype: "image [1, 3, 224, 224] float32"."""
    texts = [f"{list(t.shape)} {call_dtype_name(t)}" for t in inputs]
    return (
        ", ".join(f"{name} {text}" for name, text in zip(names, texts, strict=True))
        if names
        else ", ".join(texts)
    )


def call_dtype_name(tensor: Tensor) -> str:
    """Return NumPy's name of a tensor's dtype."""
    return str(tensor.dtype).removeprefix("torch.")


def call_leaves(value: Any, name: str = "") -> Iterable[tuple[str, Any]]:
    """Yield (name, tensor) for every tensor in nested tuples, lists and dicts, in torch's own order."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from call_leaves(item, f"{name}_{key}" if name else str(key))
    elif isinstance(value, tuple | list):
        fields = getattr(value, "_fields", range(len(value)))
        for key, item in zip(fields, value, strict=True):
            if item is not None:
                yield from call_leaves(item, f"{name}_{key}" if name else str(key))
    else:
        yield name, value


def call_output_names(named: Sequence[tuple[str, Tensor]]) -> list[str]:
    """Name outputs by their keys, fields or positions; one output alone by what it looks like."""
    names = [name for name, _ in named]
    if len(named) == 1 and not names[0]:
        names = [_name_of_only_output(named[0][1])]
    return [f"output_{name}" if name.isdigit() else name for name in names]


def _name_of_only_output(tensor: Tensor) -> str:
    """Return the name of an output without one: a vector of length one is no row of scores."""
    if tensor.dim() != 2 or tensor.shape[1] == 1:
        return "output"
    return "embedding" if tensor.is_floating_point() and _are_unit_vectors(tensor) else "logits"


def _are_unit_vectors(rows: Tensor) -> bool:
    """Tell whether all rows have length one; probabilities that are all 0 and 1 have a sum of one, too."""
    exact = rows.detach().double()
    unit = (exact.norm(dim=1) - 1).abs().max() < UNIT
    return bool(rows.shape[1] >= UNIT_WIDTH and unit and (exact.sum(dim=1) - 1).abs().max() >= UNIT)


def call_runner(module: nn.Module, widen: bool = False, names: Sequence[str] = ()) -> Runner:
    """Make a function that calls the module with arrays; `widen` turns float inputs into float64 first."""

    def run(sample: Sample) -> Sample:
        outputs = call_network(module, call_arguments(sample, widen), names=names)
        return tuple(call_array(leaf) for _, leaf in call_leaves(outputs))

    return run


def call_array(tensor: Tensor) -> Any:
    """Copy a tensor into an array that no later call can change; bfloat16, which NumPy lacks, as float32."""
    plain = tensor.detach().resolve_conj().resolve_neg().cpu()
    return (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy().copy()


def copy_module_for_calls(module: nn.Module) -> nn.Module:
    """Copy a module with all its tensors; a module that cannot be copied is returned itself.

    Copy and original share the memory of a tensor until one of them writes to it.
    """
    if isinstance(module, torch.jit.ScriptModule):
        buffer = io.BytesIO()
        torch.jit.save(module, buffer)
        buffer.seek(0)
        return torch.jit.load(buffer)  # type: ignore[no-any-return, no-untyped-call]
    try:
        return _copy_module_lazily_for_calls(module)
    except Exception:
        return module


def _copy_module_lazily_for_calls(module: nn.Module) -> nn.Module:
    """Copy a module as `copy.deepcopy`, which clones each parameter on its own and keeps views of buffers."""
    parameters = [p for p in module.parameters() if type(p) is nn.Parameter]  # alive: the copies go by id
    memo: dict[int, Any] = {
        id(p): nn.Parameter(copy_tensor_for_calls(p), p.requires_grad) for p in parameters
    }
    return copy.deepcopy(module, memo)


def copy_tensor_for_calls(tensor: Tensor) -> Tensor:
    """Copy a tensor's values; the memory is shared until either is written to, where PyTorch can do that."""
    lazy = _lazy_copy_for_calls(tensor)
    return tensor.detach().clone() if lazy is None else lazy


def _lazy_copy_for_calls(tensor: Tensor) -> Tensor | None:
    """Copy a tensor's values at the first write; return None where PyTorch cannot, or would copy more.

    It cannot where it did not allocate the memory, which then has no size to change: that of a file, of an
    array. For what was read from a TorchScript file it tries, and crashes at the write (PyTorch 2.13).
    """
    plain = tensor.detach()
    if plain.layout != torch.strided or plain.device.type != "cpu" or not hasattr(torch, "_lazy_clone"):
        return None
    memory = plain.untyped_storage()
    if not memory.resizable() or memory.nbytes() != plain.nbytes:
        return None
    try:
        return torch._lazy_clone(plain)
    except RuntimeError:  # memory that processes share
        return None


def settle_for_calls(module: nn.Module) -> None:
    """Make every parameter, buffer and tensor attribute a contiguous leaf, in place.

    A compiler bakes the layout of a weight into its file: a network kept in channels_last lowers silently
    and then fails at run time. A tensor with a history (old weight_norm's) cannot be copied. A parameter in
    memory that is not PyTorch's own moves to such memory, which `copy_module_for_calls` shares.
    """
    for holder, name, tensor in tensors_for_calls(module):
        if not tensor.is_leaf:
            tensor = tensor.detach()
            holder[name] = tensor
        # Strides and not is_contiguous(), which calls one-channel images contiguous in any layout.
        if tensor.layout == torch.strided and tensor.stride() != plain_call_strides(tensor):
            tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
        elif type(tensor) is nn.Parameter and _lazy_copy_for_calls(tensor) is None:
            tensor.data = tensor.data.clone()


def plain_call_strides(tensor: Tensor) -> tuple[int, ...]:
    """Return the strides of a contiguous tensor of the same shape."""
    return torch.empty(tensor.shape, device="meta").stride()


def tensors_for_calls(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    """Yield every parameter, buffer and plain tensor attribute with the dict that holds it."""
    for part in module.modules():
        if isinstance(part, torch.jit.ScriptModule):
            for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
                yield {}, "", tensor
            continue
        for holder in (part._parameters, part._buffers, part.__dict__):
            for name, value in list(holder.items()):
                if isinstance(value, Tensor) and not isinstance(value, torch._subclasses.FakeTensor):
                    yield holder, name, value


def call_mutates_inputs(module: nn.Module, inputs: Sequence[Tensor]) -> bool:
    """Tell whether one call writes to its inputs."""
    copies = [tensor.clone() for tensor in inputs]
    versions = [tensor._version for tensor in copies]
    with torch.no_grad():
        module(*copies)
    return versions != [tensor._version for tensor in copies]


class FlatCallOutputs(nn.Module):
    """Returns another module's nested outputs as one tuple of tensors."""

    def __init__(self, wrapped: nn.Module) -> None:
        super().__init__()
        self.wrapped = wrapped

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(leaf for _, leaf in call_leaves(self.wrapped(*inputs)))


class OwnCallInputs(nn.Module):
    """Gives another module, which writes to its inputs, copies of them."""

    def __init__(self, wrapped: nn.Module) -> None:
        super().__init__()
        self.wrapped = wrapped

    def forward(self, *inputs: Tensor) -> Any:
        return self.wrapped(*(tensor.clone() for tensor in inputs))


WRAPPERS = (FlatCallOutputs, OwnCallInputs)


def unwrapped_call(module: nn.Module) -> nn.Module:
    """Return the user's own module inside this module's wrappers."""
    while isinstance(module, WRAPPERS):
        module = module.wrapped
    return module
