"""Class numbers, indices, masks and counts must be the model's, except where rounding decides them."""

from __future__ import annotations

import numpy as np

from exporter.verify import intervals
from exporter.verify.discrete import DiscreteOutput
from exporter.verify.gates.whole_output import side_of_whole_output_figure
from exporter.verify.observation import Observation
from exporter.verify.rounded_quantities import UNSEEN_SHARE, rounded_quantity_fault


def choices_gate(observation: Observation) -> str:
    """Fail a class number, mask or index that differs and that rounding does not decide, or a lost class."""
    reasons = (_choices_gate_reason(observation, choices) for choices in observation.choices)
    return next((reason for reason in reasons if reason), "")


def _choices_gate_reason(observation: Observation, choices: DiscreteOutput) -> str:
    name = observation.output_name(choices.output)
    right = choices.values - choices.different
    if observation.precision == "fp32" and observation.is_rounded(choices.output):
        references, index = observation.references, choices.output
        y, a = references.reference[index], observation.outputs[index]
        unstable = references.eager_errors[index] if references.eager_errors else np.zeros(y.shape, bool)
        fault = rounded_quantity_fault(y, a, unstable, observation.given_limits)
        return f"Its {name} {fault} ({choices.first})." if fault else ""
    if observation.precision == "fp32":
        if choices.different <= UNSEEN_SHARE * choices.unstable:
            return ""
        return f"Its {name} differs in {choices.different} of {choices.values} values ({choices.first})."
    limit = observation.limits["min_agreement"]
    bounds = intervals.agreement_interval(
        choices.shares,
        observation.references.reference[choices.output][0].size,
        observation.references.scene_of,
    )
    if side_of_whole_output_figure(bounds, choices.share, limit) == "missed":
        return f"Its {name} is right in {right} of {choices.values} values; the limit is {limit:.0%}."
    return f"Its {name} loses a class: {choices.lost}." if choices.lost else ""
