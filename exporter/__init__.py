"""From a trained PyTorch checkpoint to mobile artifacts that are proven equal to it.

from exporter import export

report = export("model.ckpt", target="snapdragon865", calibration="photos/")
print(report.selected)
"""

from __future__ import annotations

from exporter.audit import Audit, verify_export
from exporter.errors import ExportError
from exporter.inspection import Inspection, inspect_checkpoint
from exporter.pipeline import export
from exporter.records import Artifact, Comparison, Latency, Limits, Report, TensorSpec, Verdict
from exporter.request import Request
from exporter.stages import Event

__version__ = "0.1.0"

__all__ = [
    "Artifact",
    "Audit",
    "Comparison",
    "Event",
    "ExportError",
    "Inspection",
    "Latency",
    "Limits",
    "Report",
    "Request",
    "TensorSpec",
    "Verdict",
    "__version__",
    "export",
    "inspect_checkpoint",
    "verify_export",
]
