"""Files that keep state start from the checkpoint's, and files that cannot keep it are not written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exporter.capture import captured_program, explicit_state
from exporter.errors import LoweringError
from exporter.formats import FORMATS, VARIANTS
from exporter.pipeline.format_refusals import refuse_state_by_format
from exporter.records import Captured
from tests.capture.test_explicit_state import by_itself
from tests.capture.test_state import STATE, Keeps, model, samples

BUFFERS = [how for how, names in STATE.items() if names == ("cache",)]


def captured(how: str) -> Captured:
    given = samples()
    return captured_program.capture_program(model(how), given[0], others=given[1:])


@pytest.mark.parametrize("how", BUFFERS)
@pytest.mark.parametrize("name", ["executorch-xnnpack-fp32", "torchscript-lite-fp32"])
def test_a_sequence_of_calls_is_the_same(name: str, how: str, tmp_path: Path) -> None:
    """A file follows the model from the first call on, and again when it is loaded again."""
    variant = VARIANTS[name]
    module = FORMATS[variant.format]
    path = module.emit(captured(how), variant, tmp_path).path
    expected = by_itself(Keeps(how).eval(), samples())
    for _ in range(2):
        run, _ = module.load(path, variant, 1)
        np.testing.assert_allclose(np.stack([run(s)[0] for s in samples()]), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["onnx-fp32", "ort-fp32", "coreml-fp16", "executorch-vulkan-fp16"])
def test_what_cannot_keep_state_is_refused_by_name(name: str) -> None:
    """The refusal names the buffer and what to do."""
    with pytest.raises(LoweringError, match=r"changes cache: --state explicit"):
        refuse_state_by_format(captured("copied into a buffer"), VARIANTS[name])


@pytest.mark.parametrize("name", ["executorch-xnnpack-fp32", "torchscript-lite-fp32"])
@pytest.mark.parametrize("how", ["an attribute", "a list"])
def test_what_no_file_keeps_is_refused_by_name(name: str, how: str) -> None:
    """State in a plain attribute is refused, because an exported file makes it a constant."""
    with pytest.raises(LoweringError, match=rf"changes {STATE[how][0]}, which no file keeps"):
        refuse_state_by_format(captured(how), VARIANTS[name])


@pytest.mark.parametrize("how", ["a running mean", "an attribute", "a list"])
@pytest.mark.parametrize("name", ["onnx-fp32", "executorch-xnnpack-fp32", "torchscript-lite-fp32"])
def test_every_format_takes_explicit_state(name: str, how: str, tmp_path: Path) -> None:
    """A file with explicit state follows the model when the app sends back the returned state."""
    given = samples()
    explicit = explicit_state.make_state_explicit(model(how), given, given)
    variant = VARIANTS[name]
    module = FORMATS[variant.format]
    path = module.emit(
        captured_program.capture_program(explicit.model, explicit.verification[0]), variant, tmp_path
    ).path
    run, _ = module.load(path, variant, 1)
    state = explicit.verification[0][1]
    for (x,), answer in zip(given, by_itself(Keeps(how).eval(), given), strict=True):
        output, state = run((x, state))
        np.testing.assert_allclose(output, answer, atol=1e-5)
