"""From a trained PyTorch checkpoint to mobile artifacts that are proven equal to it.

`export("model.ckpt", target="snapdragon865", calibration="photos/").selected` names the artifact to ship.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporter.audit import Audit, verify_export
    from exporter.context import Event
    from exporter.errors import ExportError
    from exporter.inspection import Inspection, inspect_checkpoint
    from exporter.pipeline import export
    from exporter.records import Artifact, Comparison, Latency, Limits, Report, TensorSpec, Verdict
    from exporter.request import ModelRequest, Request

__version__ = "0.1.0"

_HOMES = {
    "Artifact": "records",
    "Audit": "audit",
    "Comparison": "records",
    "Event": "context",
    "ExportError": "errors",
    "Inspection": "inspection",
    "Latency": "records",
    "Limits": "records",
    "ModelRequest": "request",
    "Report": "records",
    "Request": "request",
    "TensorSpec": "records",
    "Verdict": "records",
    "export": "pipeline",
    "inspect_checkpoint": "inspection",
    "verify_export": "audit",
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
    if name not in _HOMES:
        raise AttributeError(f"module 'exporter' has no attribute {name!r}")
    return getattr(importlib.import_module(f"exporter.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
