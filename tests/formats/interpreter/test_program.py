"""The interpreter runs whole programs: control flow, rounding, bounds, and refusals by name."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.errors import LoweringError
from exporter.formats.coreml.coreml_package import coremltools_quietly_for_package, write_coreml_package
from exporter.formats.coreml.interpreter import load_interpreter, mil_program
from exporter.formats.coreml.interpreter.mil_call import UnknownOperator
from exporter.formats.coreml.interpreter.table import OPERATORS
from tests.formats.interpreter.mil import build_mil, compute_mil, numbers

TESTS = Path(__file__).parent


def test_every_operator_is_tested() -> None:
    """Each name of the table is in a test of this folder."""
    words = "".join(path.read_text() for path in TESTS.glob("test_*.py"))
    assert [name for name in OPERATORS if name not in words] == []


def test_both_branches() -> None:
    """A condition that is computed chooses the branch."""

    def build(mb: Any, x: Any) -> Any:
        bright = mb.greater(x=mb.reduce_sum(x=x, axes=[0], keep_dims=False), y=0.0)
        return mb.cond(pred=bright, _true_fn=lambda: mb.relu(x=x), _false_fn=lambda: mb.mul(x=x, y=2.0))

    for x in (np.array([-1, 3], np.float32), np.array([1, -3], np.float32)):
        expected = np.maximum(x, 0) if x.sum() > 0 else 2 * x
        np.testing.assert_array_equal(compute_mil(build, x)[0], expected)


def test_loop_with_a_list() -> None:
    """A loop writes to a list (`make_list`, `list_write`), which is read, gathered and counted afterwards."""

    def build(mb: Any, x: Any) -> Any:
        places = mb.make_list(init_length=1, dynamic_length=True, elem_shape=(2,), dtype="fp32")
        places = mb.list_scatter(ls=places, indices=[0, 1], value=np.zeros((2, 2), np.float32))

        def body(i: Any, total: Any, places: Any) -> Any:
            total = mb.add(x=total, y=mb.gather(x=x, indices=i, axis=0))
            return mb.add(x=i, y=1), total, mb.list_write(ls=places, index=i, value=total)

        _, total, places = mb.while_loop(
            _cond=lambda i, total, places: mb.less(x=i, y=4),
            _body=body,
            loop_vars=(np.int32(0), np.zeros(2, np.float32), places),
        )
        return (
            total,
            mb.list_read(ls=places, index=2),
            mb.list_gather(ls=places, indices=[3, 0]),
            mb.list_length(ls=places),
        )

    x = numbers(5, 2)
    sums = x.cumsum(0)
    total, read, gathered, length = compute_mil(build, x)
    np.testing.assert_allclose(total, sums[3], atol=1e-6)
    np.testing.assert_allclose(read, sums[2], atol=1e-6)
    np.testing.assert_allclose(gathered, sums[[3, 0]], atol=1e-6)
    assert length == 4


def test_a_loop_that_does_not_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile loop costs a bounded number of operators."""
    monkeypatch.setattr(mil_program, "MAX_OPERATORS", 1000)

    def build(mb: Any, x: Any) -> Any:
        return mb.while_loop(
            _cond=lambda y: mb.greater(x=mb.reduce_max(x=y, axes=[0], keep_dims=False), y=-1.0),
            _body=lambda y: mb.relu(x=y),
            loop_vars=(x,),
        )

    with pytest.raises(ValueError, match="a loop does not end"):
        compute_mil(build, numbers(3))


def test_a_tensor_too_large_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What declares more values than are allowed is not computed."""
    monkeypatch.setattr(mil_program, "MAX_ELEMENTS", 100)
    with pytest.raises(ValueError, match=r"tile .* makes more than 100 values"):
        compute_mil(lambda mb, x: mb.tile(x=x, reps=[60]), numbers(3))


def test_a_compressed_weight_is_as_large_as_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of words that is stored may have more values than a program may compute."""
    monkeypatch.setattr(mil_program, "MAX_ELEMENTS", 100)
    stored = np.arange(-60, 60, dtype=np.int8).reshape(40, 3)

    def build(mb: Any, x: Any) -> Any:
        table = mb.constexpr_affine_dequantize(
            quantized_data=stored, zero_point=np.int8(0), scale=np.float32(0.5), axis=0
        )
        return mb.add(x=mb.gather(x=table, indices=[7], axis=0), y=x)

    x = numbers(3)
    np.testing.assert_array_equal(compute_mil(build, x)[0], stored[[7]] * np.float32(0.5) + x)


def test_every_operator_rounds() -> None:
    """2048 + 1 - 2048 is 0 in float16: the sum was rounded before the difference."""
    x = np.array([2048], np.float16)
    (actual,) = compute_mil(lambda mb, x: mb.sub(x=mb.add(x=x, y=np.float16(1)), y=np.float16(2048)), x)
    assert actual == 0


def test_float16_overflows() -> None:
    """What is beyond float16 is infinite afterwards, also where later operators would bring it back."""
    x = np.array([300], np.float16)
    (actual,) = compute_mil(lambda mb, x: mb.real_div(x=mb.square(x=x), y=np.float16(300)), x)
    assert np.isinf(actual)


def test_nothing_is_kept_from_run_to_run() -> None:
    """The same inputs give the same outputs, whatever ran between."""
    ready = build_mil(lambda mb, x: mb.softmax(x=mb.mul(x=x, y=3.0), axis=0), [numbers(4)])
    first, other = numbers(4), numbers(4)
    before = ready.run([first])[0].copy()
    ready.run([other])
    np.testing.assert_array_equal(ready.run([first])[0], before)


def test_an_unknown_operator_is_refused_by_name() -> None:
    """Random numbers cannot be compared: the refusal names the operator."""

    def build(mb: Any, x: Any) -> Any:
        return mb.add(x=x, y=mb.random_normal(shape=[3]))

    with pytest.raises(UnknownOperator, match="does not know the operator random_normal"):
        build_mil(build, [numbers(3)])


def test_an_unknown_operator_in_a_branch_is_refused_too() -> None:
    """Blocks are read before anything runs."""

    def build(mb: Any, x: Any) -> Any:
        bright = mb.greater(x=mb.reduce_sum(x=x, axes=[0], keep_dims=False), y=0.0)
        other = lambda: mb.add(x=x, y=mb.random_uniform(shape=[3]))  # noqa: E731
        return mb.cond(pred=bright, _true_fn=lambda: mb.relu(x=x), _false_fn=other)

    with pytest.raises(UnknownOperator, match="random_uniform"):
        build_mil(build, [numbers(3)])


def test_an_unknown_option_is_refused_by_name() -> None:
    """A mode that the interpreter does not compute is no failure of the package."""

    def build(mb: Any, x: Any, p: Any) -> Any:
        return mb.resample(
            x=x,
            coordinates=p,
            sampling_mode="bilinear",
            padding_mode="constant",
            padding_value=1.0,
            coordinates_mode="unnormalized",
            align_corners=True,
        )

    with pytest.raises(UnknownOperator, match=r"resample \(padding_mode 'constant' with padding_value 1\)"):
        compute_mil(build, numbers(1, 1, 3, 3), numbers(1, 2, 2, 2), target="iOS15")


def test_an_operator_that_cannot_be_computed_is_named() -> None:
    """A position out of range names the operator, not only NumPy's complaint."""
    with pytest.raises(ValueError, match=r"stops at gather .*out of bounds"):
        compute_mil(lambda mb, x, i: mb.gather(x=x, indices=i, axis=0), numbers(3), np.array([5], np.int32))


def written(folder: Path, x: np.ndarray) -> Path:
    """Write a package of `constexpr_affine_dequantize`, `constexpr_lut_to_dense` and other constants."""
    from coremltools.converters.mil.mil import Builder, types

    from exporter.formats.coreml.coreml_convert import coreml_convert_to_package

    ct = coremltools_quietly_for_package()

    @Builder.program(  # type: ignore[untyped-decorator]
        input_specs=[Builder.TensorSpec(x.shape, dtype=types.fp32)], opset_version=ct.target.iOS16
    )
    def main(image: Any) -> Any:
        scaled = Builder.constexpr_affine_dequantize(
            quantized_data=np.array([[1, -2, 3]] * 50, np.int8),
            zero_point=np.int8(1),
            scale=np.float32(0.5),
            axis=np.int32(0),
        )
        looked_up = Builder.constexpr_lut_to_dense(
            indices=np.array([0b11100100] * 38, np.uint8)[: -(-2 * 150 // 8)],
            lut=np.array([0.0, 1.0, 2.0, 3.0], np.float32),
            shape=np.array([50, 3], np.uint32),
        )
        dense = Builder.constexpr_sparse_to_dense(
            nonzero_data=np.ones(50, np.float32),
            mask=np.packbits(([True, False, False] * 50), bitorder="little"),
            shape=np.array([50, 3], np.uint32),
        )
        wide = Builder.constexpr_cast(source_val=np.full((50, 3), 0.25, np.float16), output_dtype="fp32")
        weight = Builder.add(x=Builder.add(x=scaled, y=looked_up), y=Builder.add(x=dense, y=wide))
        return Builder.linear(x=image, weight=np.zeros((50, 3), np.float32)), Builder.matmul(
            x=image, y=weight, transpose_y=True
        )

    package = coreml_convert_to_package(main, compute_precision=ct.precision.FLOAT32)
    write_coreml_package(package, folder / "written.mlpackage")
    return folder / "written.mlpackage"


def test_a_written_package_is_read_back(tmp_path: Path) -> None:
    """Every kind of compressed constant comes from the weight file of the written folder."""
    x = numbers(2, 3)
    run, runtime = load_interpreter(written(tmp_path, x))
    scaled = np.array([[0, -1.5, 1.0]] * 50)
    looked_up = np.resize(np.arange(4.0), 150).reshape(50, 3)
    dense = np.array([[1.0, 0, 0]] * 50)
    zeros, product = run((x,))
    np.testing.assert_array_equal(zeros, np.zeros((2, 50)))
    np.testing.assert_allclose(product, x @ (scaled + looked_up + dense + 0.25).T, atol=1e-5)
    assert runtime.startswith("reference interpreter, coremltools ")


def test_a_description_of_other_outputs_is_refused(tmp_path: Path) -> None:
    """A description whose names are not the program's is an error, no missing output."""
    from exporter.formats.coreml.coreml_package import read_coreml_package

    path = written(tmp_path, numbers(2, 3))
    package = read_coreml_package(path)
    package.spec.description.output[0].name = "another"
    (tmp_path / "other").mkdir()
    write_coreml_package(package, tmp_path / "other" / "p.mlpackage")
    with pytest.raises(LoweringError, match="other inputs or outputs"):
        load_interpreter(tmp_path / "other" / "p.mlpackage")


def test_loading_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A confined process that runs a package has no folder to write to."""
    x = numbers(2, 3)
    path = written(tmp_path, x)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert load_interpreter(path)[0]((x,))[0].shape == (2, 50)
