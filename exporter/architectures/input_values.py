"""Fix inputs that are Python numbers, flags or texts: they become constants of the exported network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from exporter.architectures.network_inputs import forward_network_input_names
from exporter.errors import UsageError

if TYPE_CHECKING:
    import torch


def with_input_values(module: torch.nn.Module, values: Mapping[str, Any]) -> torch.nn.Module:
    """Return a network that takes the other inputs only, by their names and in their order.

    Args:
        module: A network, or a TorchScript archive.
        values: Name of an input -> a number, a flag, a text or None.

    Raises:
        UsageError: The network has no such input, or a value is of another type.
    """
    import torch

    names, _ = forward_network_input_names(module)
    strangers = [name for name in values if names is None or name not in names]
    if strangers:
        raise UsageError(
            f"--input-value names {', '.join(strangers)}; the network's inputs are "
            f"{', '.join(names) if names else 'without names'}.",
            code="EM-INPUT-SHAPE",
        )
    for name, value in values.items():
        if not isinstance(value, bool | int | float | str | type(None)):
            raise UsageError(
                f"--input-value {name} is a {type(value).__name__}, expected a number, a flag or a text."
            )
    rest = [name for name in names or () if name not in values]
    if isinstance(module, torch.jit.ScriptModule):
        return _script_with_values(module, names or (), values)
    return _module_with_values(module, rest, values)


def _script_with_values(
    module: torch.jit.ScriptModule, names: Sequence[str], values: Mapping[str, Any]
) -> torch.nn.Module:
    """Define forward around an archive's own in TorchScript, so that its control flow stays."""
    import torch

    own: Any = module.forward
    arguments = {argument.name: argument for argument in own.schema.arguments[1:]}
    # What has a default, and is no tensor, keeps it.
    rest = [
        name
        for name in names
        if name not in values
        and (not arguments[name].has_default_value() or "Tensor" in arguments[name].type.annotation_str)
    ]
    taken = ", ".join(
        f"{name}: {arguments[name].type.annotation_str}"
        + (" = None" if arguments[name].has_default_value() else "")
        for name in rest
    )
    given = ", ".join([f"{name}={name}" for name in rest] + [f"{n}={value!r}" for n, value in values.items()])
    # TorchScript keeps one type for a class, and one forward for a type: each archive gets its own.
    holder: Any = type("WithValues", (torch.nn.Module,), {})()
    holder.network = module
    around: Any = torch.jit.script(holder)
    try:
        around.define(f"def forward(self, {taken}):\n    return self.network.forward({given})\n")
    except RuntimeError as error:
        raise UsageError(
            f"--input-value does not fit the archive's forward({', '.join(names)}): "
            f"{str(error).strip().splitlines()[0]}."
        ) from error
    scripted: torch.nn.Module = around
    return scripted


def _module_with_values(
    module: torch.nn.Module, rest: Sequence[str], values: Mapping[str, Any]
) -> torch.nn.Module:
    import inspect

    import torch

    class WithValues(torch.nn.Module):
        """Calls a network with fixed values."""

        def __init__(self) -> None:
            super().__init__()
            self.network = module

        def forward(self, *inputs: torch.Tensor) -> Any:
            return self.network(**dict(zip(rest, inputs, strict=False)), **values)

    own = inspect.signature(module.forward).parameters
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    plain = [own[name].replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in rest]
    # What asks for the inputs' names asks for forward's signature.
    WithValues.forward.__signature__ = inspect.Signature([itself, *plain])  # type: ignore[attr-defined]
    return WithValues()
