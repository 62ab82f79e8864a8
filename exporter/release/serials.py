"""Replace phones' serial numbers in a release by device-1, device-2, …, consistently in every file.

A hash would not do: serials are short enough to be guessed. Numbers follow the order of OUT's manifest.
"""

from __future__ import annotations

import copy
import hashlib
import html
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from exporter import files
from exporter.bench import device_outputs
from exporter.errors import VerificationError
from exporter.pipeline.report_stage import render_page_in_report_stage
from exporter.report import manifest
from exporter.report.manifest import restore
from exporter.report.manifest.schema import Manifest

HOST = "host"
"""The serial of the export's own machine, which is no phone."""
WHERE = ("device", "flags", "problem", "why")
"""Fields of a latency that may name the device."""


def serial_labels(listed: Manifest) -> dict[str, str]:
    """Return serial -> the release's label for that device; the host keeps its name."""
    serials = dict.fromkeys(item.serial for artifact in listed.artifacts for item in artifact.measured_on())
    phones = (serial for serial in serials if serial != HOST)
    return {serial: f"device-{number}" for number, serial in enumerate(phones, 1)}


def hide_serials(
    out: Path, listed: dict[str, Any], renames: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Remove the serials from a manifest and from the raw samples that it lists.

    Args:
        out: The folder that holds the raw samples.
        listed: A manifest as JSON; it is not changed.
        renames: `serial_labels` of OUT's manifest.

    Returns:
        (the manifest, file in the release -> content); the files' names and hashes in the manifest are new.

    Raises:
        VerificationError: A file of raw samples is invalid.
    """
    hidden, renamed = _relabel_serials(listed, renames)
    contents = {}
    for row in hidden["evidence"]["files"]:
        if row["file"] in renamed:
            content = _samples_without_serials(out / row["file"], renames)
            row |= {"file": renamed[row["file"]], "sha256": hashlib.sha256(content).hexdigest()}
            contents[row["file"]] = content
    return hidden, contents


def page_without_serials(out: Path, renames: Mapping[str, str], sha256: str | None = None) -> bytes:
    """Return OUT's report page, which has this hash in the manifest, rendered again if it names a device."""
    written = files.page_file_path(out, sha256).read_bytes()
    text = html.unescape(written.decode("utf-8", "replace"))
    if not any(serial in text for serial in renames):
        return written
    path = out / files.MANIFEST
    hidden, _ = _relabel_serials(json.loads(path.read_text("utf-8")), renames)
    report = restore.restore_report(manifest.parse_manifest(json.dumps(hidden).encode(), path))
    return render_page_in_report_stage(out, report).encode()


def _relabel_serials(
    listed: dict[str, Any], renames: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the renamed manifest, and file of raw samples -> its new name."""
    hidden, renamed = copy.deepcopy(listed), {}
    for name, item in _latencies_with_serials(hidden):
        item |= {key: _value_without_serials(item[key], renames) for key in WHERE if key in item}
        if file := item.get("samples_file"):
            item["samples_file"] = renamed[file] = device_outputs.samples_file_of_device_outputs(
                name, item["device"]["serial"]
            )
    return hidden, renamed


def _latencies_with_serials(listed: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (artifact, its latency on a device)."""
    for artifact in listed["artifacts"]:
        for item in (artifact.get("device_latency"), *artifact.get("device_latencies", ())):
            if item:
                yield artifact["name"], item


def _samples_without_serials(path: Path, renames: Mapping[str, str]) -> bytes:
    """Rename the device in the first line only: the others are numbers, which may look like a serial."""
    head, _, rest = path.read_bytes().partition(b"\n")
    try:
        header = json.loads(head)
    except ValueError:
        raise VerificationError(f"{path} holds no raw samples.", "Measure again.") from None
    return json.dumps(_value_without_serials(header, renames)).encode() + b"\n" + rest


def _value_without_serials(value: Any, renames: Mapping[str, str]) -> Any:
    """Return any JSON value with labels in place of serials."""
    if isinstance(value, dict):
        return {key: _value_without_serials(item, renames) for key, item in value.items()}
    if isinstance(value, list):
        return [_value_without_serials(item, renames) for item in value]
    if not isinstance(value, str):
        return value
    for serial in sorted(renames, key=len, reverse=True):  # one may begin with another
        value = re.sub(rf"(?<!\w){re.escape(serial)}(?!\w)", renames[serial], value)
    return value
