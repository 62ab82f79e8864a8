"""A network that takes dictionaries is exported with an input for each tensor within them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.architectures.dictionary_inputs import with_dictionary_inputs
from exporter.architectures.network_inputs import forward_network_input_names, resolve_network_inputs
from exporter.capture import captured_program
from exporter.config.options import parse_shapes_option
from exporter.errors import UsageError
from exporter.records import Model, TensorSpec


class Batches(nn.Module):
    """A network as training loops call it: with a batch, which is a dictionary, and with another one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(
        self, batch: dict[str, Tensor], extra: dict[str, dict[str, Tensor]], bias: Tensor
    ) -> dict[str, Tensor]:
        return {"logits": self.layer(batch["image"]) * extra["inner"]["image"] + batch["offset"] + bias}


SHAPES = ["batch.image=1x4", "batch.offset=1x2", "extra.inner.image=1x2", "bias=2"]


def test_each_tensor_within_is_an_input() -> None:
    """Names are the keys, or whole paths where two keys are equal; outputs are the network's own."""
    own = Batches().eval()
    module, asked = with_dictionary_inputs(own, parse_shapes_option(SHAPES))
    specs = resolve_network_inputs(module, None, None, asked)
    assert [spec.name for spec in specs] == ["batch_image", "offset", "extra_inner_image", "bias"]
    sample = tuple(np.random.default_rng(0).random(spec.shape, np.float32) for spec in specs)
    image, offset, inner, bias = (torch.from_numpy(array) for array in sample)
    expected = own({"image": image, "offset": offset}, {"inner": {"image": inner}}, bias)["logits"]
    captured = captured_program.capture_program(Model(module, "own", specs, None, 0), sample)
    assert captured.program is not None
    assert [spec.name for spec in captured.outputs] == ["logits"]
    for run in (captured.module, captured.program.module()):
        torch.testing.assert_close(run(image, offset, inner, bias)[0], expected)


class Words(nn.Module):
    """A language model with an LSTM, whose state is a tuple in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 4)
        self.lstm = nn.LSTM(4, 3, batch_first=True)

    def forward(self, tokens: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        values, after = self.lstm(self.words(tokens), state)
        return values, after


@pytest.mark.parametrize("scripted", [False, True])
def test_each_tensor_in_a_tuple_is_an_input(scripted: bool) -> None:
    """A state is given as state.0 and state.1, of which a tuple is made, also for a TorchScript network."""
    own = Words().eval()
    asked = parse_shapes_option(["tokens=1x2:int64", "state.0=1x1x3", "state.1=1x1x3"])
    module, specs = with_dictionary_inputs(torch.jit.script(own) if scripted else own, asked)
    assert [spec.name for spec in specs] == ["tokens", "state_0", "state_1"]
    tokens, hidden, cell = torch.tensor([[1, 2]]), torch.rand(1, 1, 3), torch.rand(1, 1, 3)
    torch.testing.assert_close(module(tokens, hidden, cell), own(tokens, (hidden, cell)))
    sample = tuple(tensor.numpy() for tensor in (tokens, hidden, cell))
    captured = captured_program.capture_program(Model(module, "own", specs, None, 0), sample)
    assert captured.program is not None, captured.program_error
    outputs = captured.program.module()(tokens, hidden, cell)
    torch.testing.assert_close(outputs[0], own(tokens, (hidden, cell))[0])


@pytest.mark.parametrize("name", ["a, b", "x):\n    pass\n#", "lambda", "9"])
def test_a_name_that_is_code_is_refused(name: str) -> None:
    """Names become part of the TorchScript that calls a TorchScript network."""
    asked = tuple(TensorSpec(text, (1, 1, 3), "float32") for text in ("state.0", name))
    with pytest.raises(UsageError, match="cannot have"):
        with_dictionary_inputs(torch.jit.script(Words().eval()), asked)


def test_a_network_of_tensors_stays_as_it_is() -> None:
    """Nothing is wrapped where no name is a path."""
    own = nn.Linear(4, 2)
    asked = parse_shapes_option(["input=1x4"])
    assert with_dictionary_inputs(own, asked) == (own, asked)


def test_a_key_is_not_given_twice() -> None:
    """Two specs of one path are refused, as two of one name are."""
    module, asked = with_dictionary_inputs(
        Batches(), parse_shapes_option(["batch.image=1x4", "batch.image=1x4"])
    )
    assert forward_network_input_names(module)[0] == ("batch_image", "batch_image")
    with pytest.raises(UsageError, match="Name each input once"):
        resolve_network_inputs(module, None, None, asked)
