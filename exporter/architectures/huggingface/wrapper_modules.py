"""Modules around a network of `transformers`: called by position, they return plain tensors by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class ModuleByName(nn.Module):
    """Calls a network with its inputs by name, and returns those of its outputs that are tensors."""

    def __init__(
        self,
        network: nn.Module,
        input_names: tuple[str, ...],
        settings: Mapping[str, Any],
        method: str = "forward",
        output: str = "output",
    ) -> None:
        """Wrap a network.

        Args:
            network: The network.
            input_names: Names of the inputs in the order in which they come.
            settings: Further arguments of every call.
            method: The network's method to call.
            output: The name of the output where the method returns one tensor.
        """
        super().__init__()
        self.network = network
        self.input_names = input_names
        self.settings = dict(settings)
        self.method = method
        self.output = output

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        outputs = self.call(*inputs)
        if isinstance(outputs, Tensor):
            return {self.output: outputs}
        return {key: value for key, value in outputs.items() if isinstance(value, Tensor)}

    def call(self, *inputs: Tensor) -> Any:
        named = dict(zip(self.input_names, inputs, strict=True))
        return getattr(self.network, self.method)(**named, **self.settings)


class ProjectedModule(ModuleByName):
    """Returns an embedding of a two-tower network: the pooled output of one of its methods."""

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        outputs = self.call(*inputs)
        return {self.output: outputs if isinstance(outputs, Tensor) else outputs.pooler_output}


class DecoderModule(ModuleByName):
    """Calls an encoder-decoder network on the encoder's output, which is its first input."""

    def __init__(
        self,
        network: nn.Module,
        input_names: tuple[str, ...],
        settings: Mapping[str, Any],
        record: Callable[..., Any],
    ) -> None:
        """Wrap a network; `record` is the class of its encoder's outputs."""
        super().__init__(network, input_names, settings)
        self.record = record

    def call(self, *inputs: Tensor) -> Any:
        named = dict(zip(self.input_names[1:], inputs[1:], strict=True))
        encoded = self.record(last_hidden_state=inputs[0])
        return self.network(encoder_outputs=encoded, **named, **self.settings)

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        outputs = super().forward(*inputs)
        return {key: value for key, value in outputs.items() if not key.startswith("encoder_")}


class SentenceModule(nn.Module):
    """Pools a text network's last hidden states into one vector, as sentence-transformers does."""

    def __init__(self, network: ModuleByName, pooling: str, normalize: bool) -> None:
        """Wrap a network.

        Args:
            network: The network, which has an input attention_mask.
            pooling: "mean", "cls" or "max".
            normalize: Whether the vector's length becomes 1.
        """
        super().__init__()
        self.network = network
        self.input_names = network.input_names
        self.pooling = pooling
        self.normalize = normalize

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        states = self.network(*inputs)["last_hidden_state"]
        mask = inputs[self.input_names.index("attention_mask")].unsqueeze(-1).to(states.dtype)
        if self.pooling == "cls":
            vector = states[:, 0]
        elif self.pooling == "max":
            vector = states.masked_fill(mask == 0, -1e9).amax(1)
        else:
            vector = (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return {"sentence_embedding": nn.functional.normalize(vector, dim=1) if self.normalize else vector}


def position_table_of_wrapper_module(network: nn.Module) -> tuple[int, int] | None:
    """Return (rows, padding row or -1) of the first table of position embeddings; None without one."""
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Embedding) and name.rpartition(".")[2] in (
            "position_embeddings",
            "position_embedding",
            "wpe",
            "embed_positions",
        ):
            padding = -1 if module.padding_idx is None else int(module.padding_idx)
            return module.num_embeddings, padding
    return None
