"""A framework's exception becomes a sentence and a line of the user's model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from exporter.capture.lowering_errors import (
    MAX_CAUSE_CHARACTERS,
    lowering_error,
    lowering_error_source_in_text,
    shorten_lowering_error,
)
from exporter.errors import LoweringError


class Decomposing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        values: Tensor = torch.linalg.svd(x)[1]
        return values


SVD_LINE = Decomposing.forward.__code__.co_firstlineno + 1


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("a and b must have same reduction dim.", "a and b must have same reduction dim"),
        ("Operator x is odd (https://pytorch.org/docs).\nThere are a few things to try", "Operator x is odd"),
        ("\x1b[96mNo kernel\x1b[0m for\n  op x\nOriginal traceback:\n File ...", "No kernel for op x"),
        ("Next steps: file an issue", "Next steps: file an issue"),
        ("x", "ValueError: x"),
        ("", "ValueError"),
    ],
)
def test_messages_lose_advice_and_stacks(message: str, cause: str) -> None:
    """Only the cause stays, in one line; a message too short to mean anything keeps its class."""
    assert shorten_lowering_error(ValueError(message)) == cause


def test_long_messages_are_cut() -> None:
    """A page of framework output does not become a page of report."""
    assert len(shorten_lowering_error(ValueError("word " * 1000))) == MAX_CAUSE_CHARACTERS


def test_innermost_user_line_is_the_source() -> None:
    """Library frames are skipped, and of the user's own frames the deepest is named."""
    text = (
        'File "/home/me/train.py", line 3, in main\nFile "/home/me/net.py", line 12, in forward\n'
        '  File "/v/lib/python3.11/site-packages/torch/nn/functional.py", line 9, in relu\n'
        'File "<string>", line 1'
    )
    assert lowering_error_source_in_text(text) == "/home/me/net.py:12"


def test_no_user_line_no_source() -> None:
    """A failure inside libraries only has no source line, rather than a wrong one."""
    assert lowering_error_source_in_text(f'File "{torch.__file__}", line 3, in f') is None


def test_tracebacks_of_the_users_forward_are_read() -> None:
    """When the model's own forward raised, its line is found in the traceback."""
    with pytest.raises(RuntimeError) as raised:
        Decomposing()(torch.zeros(3))
    assert lowering_error(raised.value).source == f"{__file__}:{SVD_LINE}"


def test_an_operator_named_in_the_message_leads_to_its_line() -> None:
    """Frameworks often name only the operator: the program knows which line used it."""
    program = torch.export.export(Decomposing(), (torch.eye(3),))
    error = lowering_error(RuntimeError("Operator aten._linalg_svd.default is not in Core ATen"), program)
    assert error.source == f"{__file__}:{SVD_LINE}"


def test_the_first_cause_is_told() -> None:
    """Wrappers that say only "conversion failed" are looked through."""
    wrapper = ValueError("Conversion to the format failed")
    wrapper.__cause__ = RuntimeError("stride of conv is odd")
    assert lowering_error(wrapper).cause == "stride of conv is odd"


def test_lowering_errors_pass_through() -> None:
    """An error that already has its form keeps it."""
    error = LoweringError("no", "net.py:1")
    assert lowering_error(error) is error
