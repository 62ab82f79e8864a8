"""Every channel of every output must keep what it says: none may be dead, clipped or quantised away."""

from __future__ import annotations

from exporter.verify.observation import Observation


def channels_gate(observation: Observation) -> str:
    """Fail a channel that is dead, clipped, in few steps, or further off than its own variation allows."""
    worst = observation.worst_channel
    return worst.fault if worst else ""
