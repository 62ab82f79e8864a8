"""From a trained PyTorch checkpoint to mobile artifacts that are proven equal to it.

`export("model.ckpt", target="snapdragon865", calibration="photos/").selected` names the artifact to ship.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from exporter.config.request import ModelRequest, Request
    from exporter.errors import ExportError
    from exporter.pipeline import export
    from exporter.pipeline.audit import Audit, verify_export
    from exporter.pipeline.context import Event
    from exporter.pipeline.inspect import Inspection, inspect_checkpoint
    from exporter.records import Artifact, Comparison, Latency, Limits, Report, TensorSpec, Verdict

_HOMES = {
    "Artifact": "records",
    "Audit": "pipeline.audit",
    "Comparison": "records",
    "Event": "pipeline.context",
    "ExportError": "errors",
    "Inspection": "pipeline.inspect",
    "Latency": "records",
    "Limits": "records",
    "ModelRequest": "config.request",
    "Report": "records",
    "Request": "config.request",
    "TensorSpec": "records",
    "Verdict": "records",
    "export": "pipeline",
    "inspect_checkpoint": "pipeline.inspect",
    "verify_export": "pipeline.audit",
}
"""Public name -> module: imported on first use, so that the command line starts at once."""

__all__ = [
    "Artifact",
    "Audit",
    "Comparison",
    "Event",
    "ExportError",
    "Inspection",
    "Latency",
    "Limits",
    "ModelRequest",
    "Report",
    "Request",
    "TensorSpec",
    "Verdict",
    "__version__",
    "export",
    "inspect_checkpoint",
    "verify_export",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("export-mobile")
    if name not in _HOMES:
        raise AttributeError(f"module 'exporter' has no attribute {name!r}")
    return getattr(importlib.import_module(f"exporter.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
