"""The record of everything that the gates judge an artifact by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from exporter.records import Comparison, Executor, Limits, Precision, TaskMeasure, Variant, WorstChannel
from exporter.verify.discrete import DiscreteOutput
from exporter.verify.reference_io import Lowering, ReferenceIO, Stacks
from exporter.verify.simulation_io import Simulation


@dataclass(frozen=True, eq=False)
class Observation:
    """An artifact's outputs on the references, and the figures and limits that it is judged by."""

    variant: Variant
    references: ReferenceIO
    outputs: Stacks
    """The artifact's, stacked, on `references.inputs`."""
    edge_outputs: Stacks
    """The artifact's on `references.edge_inputs`."""
    edge_ordered: Stacks
    """The same, with rows of equal scores in the model's order."""
    lowering: Lowering | None
    """Its quantised program's own outputs, where it has one."""
    simulation: Simulation | None
    """What its precision makes of the model; of a quantised artifact, what its program computes."""
    comparison: Comparison
    edges: Mapping[str, Comparison]
    """Each edge input by name, on its own scale."""
    edge_limits: Mapping[str, float]
    """The largest error of float32 on each edge input."""
    tied_within: tuple[float, ...]
    """Per output, how far apart its values may be and still be equal but for rounding."""
    against_program: Comparison | None
    """The artifact against its quantised program."""
    choices: tuple[DiscreteOutput, ...] = ()
    """Each output that is not a float."""
    worst_channel: WorstChannel | None = None
    task: TaskMeasure | None = None
    executor: Executor = "runtime"
    on_device: bool = False
    """Whether the artifact ran on a device, whose processor may sum in half precision."""
    task_named: str = ""
    """The task that the user named; empty when the outputs alone said it."""
    limits: dict[str, float] = field(default_factory=dict)
    """The limits that hold for this artifact, resolved to figures; they are shown in the manifest."""
    rounded: tuple[bool, ...] = ()
    """Per output, whether it is a rounded quantity (`rounded_quantities`); integers of others are chosen."""
    given_limits: Limits = field(default_factory=Limits)
    """The limits of the run, which `limits` follows from."""

    @property
    def precision(self) -> Precision:
        return self.variant.precision

    def is_rounded(self, index: int) -> bool:
        """Tell whether an output is a rounded quantity."""
        return index < len(self.rounded) and self.rounded[index]

    def output_name(self, index: int) -> str:
        return self.references.output_name(index)

    @property
    def decided_edges(self) -> Mapping[str, Comparison]:
        """The figures of the edge inputs on which more than rounding decides, and of broken outputs."""
        undecided = self.references.undecided_edges
        return {name: c for name, c in self.edges.items() if c.problem or name not in undecided}


Gate = Callable[[Observation], str]
"""Judges one aspect: returns the reason why the artifact fails, or an empty string."""
