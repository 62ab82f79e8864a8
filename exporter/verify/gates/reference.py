"""The reference must prove something: equality with a broken or constant model means nothing."""

from __future__ import annotations

import numpy as np

from exporter.verify.compare import not_finite
from exporter.verify.observation import Observation

MIN_SCALE = 1e-6
"""Below this the largest output is noise: a trained network's outputs are not (random MobileNetV2: 1e-9)."""
MIN_VARIATION = 1e-3
"""Outputs that vary by less than this share of their scale over all inputs do not depend on the input."""


def check(observation: Observation) -> str:
    """Fail where the reference itself proves nothing: every comparison with it would pass."""
    evidence = observation.evidence
    if problem := not_finite("The original model", evidence.reference):
        return problem
    for index, (real, edge) in enumerate(zip(evidence.reference, evidence.edge_reference, strict=True)):
        if real.dtype.kind != "f":
            continue
        scale = float(np.abs(real).max(initial=0.0))
        if scale < MIN_SCALE:
            return (
                f"The original model's output {index} is never larger than {scale:.1e}: "
                "it looks randomly initialised, and equality would mean nothing."
            )
        both = np.concatenate([real, edge[np.isfinite(edge).reshape(len(edge), -1).all(axis=1)]])
        variation = float((both.max(axis=0) - both.min(axis=0)).max())
        if variation < MIN_VARIATION * scale:
            return (
                f"The original model's output {index} hardly depends on its input (it varies by "
                f"{variation / scale:.1e} of its scale): equality would mean nothing."
            )
    return ""
