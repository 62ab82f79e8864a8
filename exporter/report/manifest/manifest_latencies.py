"""Check a device's and an estimated latency in `manifest.json` beyond the types of its fields."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

from exporter.records import DeviceLatency as DeviceLatencyRecord
from exporter.records import EstimatedLatency as EstimatedLatencyRecord
from exporter.report.manifest.checked_values import Part, checked_value_of_file_name


def _check_manifest_latency_claim(latency: DeviceLatencyRecord) -> DeviceLatencyRecord:
    """Refuse a claim that contradicts itself."""
    serial = latency.device.get("serial")
    if not isinstance(serial, str) or not serial:
        raise ValueError("device has no serial")
    json.dumps(dict(latency.device), allow_nan=False)
    if latency.samples_file is not None:
        checked_value_of_file_name(latency.samples_file)
    if latency.p50_ms > latency.p90_ms or latency.p90_ci_ms[0] > latency.p90_ci_ms[1]:
        raise ValueError("p50_ms, p90_ms and p90_ci_ms are not in order")
    if (latency.evidence == "measured") == (latency.verdict == "not_measured"):
        raise ValueError(f"evidence {latency.evidence} cannot have the verdict {latency.verdict}")
    if latency.evidence == "measured" and (latency.why or latency.device.get("doubts")):
        raise ValueError("evidence is measured, but the device itself lists doubts")
    if (latency.evidence == "host") != (serial == "host"):
        raise ValueError(f"evidence is {latency.evidence}, but its device is {serial!a}")
    if latency.verdict == "pass" and (latency.flags or not latency.device.get("soc")):
        raise ValueError("the verdict is pass, but the run was not stable or its SoC is not identified")
    return latency


DeviceLatency = Annotated[DeviceLatencyRecord, AfterValidator(_check_manifest_latency_claim)]


def _check_manifest_latency_estimate(estimate: EstimatedLatencyRecord) -> EstimatedLatencyRecord:
    """Refuse an estimate outside its own interval."""
    if not estimate.low_ms <= estimate.p50_ms <= estimate.high_ms:
        raise ValueError("low_ms, p50_ms and high_ms are not in order")
    if any(not 0 <= share <= 1 for share in estimate.shares.values()):
        raise ValueError("a share of the time is not between 0 and 1")
    return estimate


EstimatedLatency = Annotated[EstimatedLatencyRecord, AfterValidator(_check_manifest_latency_estimate)]


class _Holder(Part):
    latency: DeviceLatency


def check_manifest_latency(fields: Mapping[str, Any]) -> DeviceLatencyRecord:
    """Return the latency of these fields. Unknown fields are ignored; raises pydantic's ValidationError."""
    return _Holder.model_validate({"latency": dict(fields)}).latency
