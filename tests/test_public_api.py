"""What users may import."""

from __future__ import annotations

import subprocess
import sys

import pytest

import exporter

PUBLIC = [
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


def test_the_public_names_are_pinned() -> None:
    """Adding or removing one is a decision, not an accident."""
    assert exporter.__all__ == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_can_be_imported(name: str) -> None:
    """None is only promised."""
    assert getattr(exporter, name) is not None


def test_dir_lists_the_public_names() -> None:
    """An interactive shell completes them, although they are imported on first use."""
    assert dir(exporter) == sorted(PUBLIC)


def test_another_name_is_an_attribute_error() -> None:
    """As with any module."""
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        exporter.nonsense  # noqa: B018


def test_importing_the_package_imports_no_framework() -> None:
    """`import exporter` costs nothing until something is used."""
    code = (
        "import sys, exporter\n"
        "heavy = {'torch', 'numpy', 'onnx', 'coremltools', 'executorch', 'pydantic', 'typer'}\n"
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
