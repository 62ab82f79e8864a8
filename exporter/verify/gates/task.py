"""The measure of a task that the user named must be within its limit."""

from __future__ import annotations

from exporter.verify.observation import Observation


def task_gate(observation: Observation) -> str:
    """Fail an artifact that is worse than allowed at the task named with `--task`.

    A task that was only recognised is shown.
    """
    measure = observation.task
    if not observation.task_named:
        return ""
    if measure is None:
        return (
            f"Its outputs cannot be read as those of the task {observation.task_named}, "
            "or hold nothing that can be measured."
        )
    if measure.passed:
        return ""
    unit = f" {measure.unit}" if measure.unit else ""
    return (
        f"Its {measure.name} is {measure.value:.4g}{unit}, the limit is {measure.limit:g} ({measure.detail})."
    )
