"""Computes two functions of coremltools in blocks: its own take many times a large tensor's memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from exporter.formats.replaced_internals import are_versions_proven, replaced_internal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BLOCK = 1 << 20
"""Values that are looked at together: a multiple of 8, so that each block's packed bits end with a byte."""
_LARGEST_FLOAT16 = 65504.0
_INFINITE = 1e38
"""coremltools takes values from here on for infinities, which float16 has too."""


@contextmanager
def coremltools_in_little_memory() -> Iterator[None]:
    """Replace what coremltools computes of whole weights, where its version is one that was compared.

    `FP16ComputePrecision.fp16_overflow` lists the places of all values (24 bytes for each value of a
    matrix), and `pack_elements_into_bits` spreads every bit over a byte (8 bytes for each 4-bit value).
    """
    with ExitStack() as stack:
        if are_versions_proven({"coremltools": "9.0"}):
            import coremltools.optimize._utils as utils
            from coremltools.converters.mil.mil.passes.defs.quantization import FP16ComputePrecision

            overflows = staticmethod(_has_constant_beyond_float16)
            stack.enter_context(replaced_internal(FP16ComputePrecision, "fp16_overflow", overflows))
            packed = _packer_in_little_memory(utils.pack_elements_into_bits)
            stack.enter_context(replaced_internal(utils, "pack_elements_into_bits", packed))
        yield


def _has_constant_beyond_float16(operation: Any) -> bool:
    """Tell whether an operator reads a finite float32 constant that float16 does not hold."""
    return any(
        _is_beyond_float16(value.op.val.val)
        for given in operation.inputs.values()
        for value in (given if isinstance(given, list | tuple) else (given,))
        if value.op is not None and value.op.op_type == "const" and value.is_tensor_or_scalar_of(dtype="fp32")
    )


def _is_beyond_float16(values: Any) -> bool:
    import numpy as np

    flat = np.asarray(values).reshape(-1)
    for start in range(0, flat.size, BLOCK):
        sizes = np.abs(flat[start : start + BLOCK])
        if ((sizes > _LARGEST_FLOAT16) & (sizes < _INFINITE)).any():
            return True
    return False


def _packer_in_little_memory(pack: Any) -> Any:
    """Return a function that packs as the given one does, block by block."""

    def pack_by_blocks(elements: NDArray[Any], nbits: int) -> NDArray[np.uint8]:
        import numpy as np

        flat = elements.reshape(-1)
        blocks = [pack(flat[start : start + BLOCK], nbits) for start in range(0, max(flat.size, 1), BLOCK)]
        return np.concatenate(blocks)

    return pack_by_blocks
