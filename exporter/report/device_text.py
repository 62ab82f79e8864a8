"""Describe devices in words, for the page and the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from exporter.records import (
    DeviceLatency,
    Report,
)

POWER = {
    "ac": "charging",
    "usb": "on USB power",
    "wireless": "charging wirelessly",
    "none": "on battery",
    "unknown": "",
}


def device_text(latency: DeviceLatency) -> str:
    """Name a device: model, SoC and serial, as far as known."""
    named = [str(latency.device[key]) for key in ("model", "soc", "serial") if latency.device.get(key)]
    return ", ".join(named)


def device_line_text(latencies: Sequence[DeviceLatency]) -> str:
    """Describe a device in one line: serial, model, SoC, Android, runtimes, threads, power.

    Args:
        latencies: Latencies that it measured, of one artifact or several; at least one.
    """
    device = latencies[0].device
    soc = " ".join(
        f"({soc})" if n else soc for n, soc in enumerate(_device_property_value_text(device, "chip", "soc"))
    )
    runtimes = dict.fromkeys(str(item.device["runtime"]) for item in latencies if item.device.get("runtime"))
    parts = (
        *_device_property_value_text(device, "model"),
        soc,
        *(f"Android {version}" for version in _device_property_value_text(device, "android")),
        *runtimes,
        *(f"{count} threads" for count in _device_property_value_text(device, "threads")),
        *(f"cores {mask}" for mask in _device_property_value_text(device, "affinity")),
        *(POWER.get(power, power) for power in _device_property_value_text(device, "power")),
    )
    return f"{latencies[0].serial}: {', '.join(part for part in parts if part)}"


def device_property_text(value: Any) -> str:
    """Format a device's property: lists and tables become words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {device_property_text(item)}" for key, item in value.items())
    return ", ".join(map(device_property_text, value)) if isinstance(value, list | tuple) else str(value)


def device_property_label_text(key: str) -> str:
    """Format a property's name as a heading: "clock_state" is "Clock state"."""
    return {"soc": "SoC", "max_khz": "Highest clocks, kHz"}.get(key, key.replace("_", " ").capitalize())


def _device_property_value_text(device: Mapping[str, Any], *keys: str) -> list[str]:
    return [str(device[key]) for key in keys if device.get(key)]


def device_text_rows(report: Report) -> list[tuple[str, DeviceLatency]]:
    """List (artifact, its latency on a device), in the report's order."""
    return [(a.variant.name, latency) for a in report.artifacts for latency in a.device_latencies]
