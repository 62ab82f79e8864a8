"""Executes Core AI assets: in Core AI itself on a Mac, elsewhere in the CPU runtime of Apple's package."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from exporter.capture.lowering_errors import shorten_lowering_error
from exporter.errors import CannotRunHere, LoweringError
from exporter.formats.coreai.coreai_asset import check_coreai_asset_files
from exporter.records import Array, Runner, Sample, Variant


def load_in_coreai_runtime(path: Path, variant: Variant, threads: int) -> tuple[Runner, str]:
    """Load an asset in Core AI; off a Mac it is compiled into the temporary folder first.

    Args:
        path: The written folder.
        variant: One of this format's variants.
        threads: Unused: the runtime chooses its threads itself.

    Returns:
        A runner giving the outputs in the asset's order, and "coreai 1.0.0b3 (CPU)".

    Raises:
        CannotRunHere: Apple's package is not installed.
        LoweringError: The asset is damaged, or Core AI refuses it.
    """
    check_coreai_asset_files(path)
    try:
        from coreai.authoring import AIModelAsset
    except ImportError as error:
        raise CannotRunHere(f"Core AI is not installed ({error}).") from None
    loop = asyncio.new_event_loop()
    try:
        function = loop.run_until_complete(_load_coreai_function(AIModelAsset.load(path)))
    except Exception as error:
        raise LoweringError(f"Core AI refuses {path.name}: {shorten_lowering_error(error)}") from error

    def run(sample: Sample) -> tuple[Array, ...]:
        return loop.run_until_complete(_call_coreai_function(function, sample))

    return run, _coreai_runtime_version()


async def _load_coreai_function(asset: Any) -> Any:
    """Return the asset's function; the compiled files stay until the process ends, as it maps them."""
    model = await AsyncExitStack().enter_async_context(asset.executable())
    return model.load_function("main")


async def _call_coreai_function(function: Any, sample: Sample) -> tuple[Array, ...]:
    import numpy as np
    from coreai.runtime import NDArray

    names = function.desc.input_names
    # The converter makes int32 of 64-bit integers.
    narrow = [a.astype(np.int32) if a.dtype == np.int64 else np.ascontiguousarray(a) for a in sample]
    inputs = {name: NDArray(array) for name, array in zip(names, narrow, strict=True)}
    outputs = await function(inputs)
    return tuple(np.array(outputs[name].numpy()) for name in function.desc.output_names)


def _coreai_runtime_version() -> str:
    from importlib import metadata

    place = "" if sys.platform == "darwin" else " (CPU)"
    return f"coreai {metadata.version('coreai-core')}{place}"
