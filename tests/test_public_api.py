"""Tests of the public API."""

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
    """The public names change only on purpose."""
    assert exporter.__all__ == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_can_be_imported(name: str) -> None:
    """Every public name exists."""
    assert getattr(exporter, name) is not None


def test_dir_lists_the_public_names() -> None:
    """Interactive shells can complete the names, which are imported on first use."""
    assert dir(exporter) == sorted(PUBLIC)


def test_another_name_is_an_attribute_error() -> None:
    """Other names are attribute errors, as for any module."""
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        exporter.nonsense  # noqa: B018


def test_importing_the_package_imports_no_framework() -> None:
    """The statement `import exporter` imports no framework."""
    code = (
        "import sys, exporter\n"
        "heavy = {'torch', 'numpy', 'onnx', 'coremltools', 'executorch', 'pydantic', 'typer'}\n"
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
