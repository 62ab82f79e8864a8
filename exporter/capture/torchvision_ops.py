"""Makes `import torchvision` work with a torch that its operator library was not built for.

The registry's torchvision links its operators against CUDA. With a CPU-only torch they cannot load, and the
import dies on `operator torchvision::nms does not exist`, though no classification or segmentation network
needs that operator. Declaring it (without an implementation) is enough.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import MissingDependencyError

if TYPE_CHECKING:
    from torch import library

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@functools.cache
def prepare_torchvision_ops() -> library.Library | None:
    """Make torchvision importable; call it before the first `import torchvision`.

    Returns:
        The stand-in declarations where torchvision's own library cannot load (kept alive by this function's
        cache), None where it can and nothing was touched.

    Raises:
        MissingDependencyError: torchvision is not installed.
    """
    from torch import library

    if "torchvision" in sys.modules:
        return None
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(
            "torchvision is not installed.", "Run `pip install torchvision==0.28.0`."
        )
    if _torchvision_ops_load(Path(spec.submodule_search_locations[0])):
        return None
    declared = library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in SCHEMAS:
        declared.define(schema)  # type: ignore[no-untyped-call]
    return declared


def _torchvision_ops_load(package: Path) -> bool:
    import torch

    for path in [*package.glob("_C*.so"), *package.glob("_C*.pyd")]:
        try:
            torch.ops.load_library(str(path))  # type: ignore[no-untyped-call]
        except (OSError, ImportError):
            continue
        return True
    return False
