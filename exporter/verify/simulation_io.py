"""Saves and loads the outputs of a precision's simulation, in a file next to the references."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from exporter.errors import VerificationError
from exporter.records import Array
from exporter.verify.reference_io import Stacks, first_reference_io_rows, read_reference_io_arrays

EDGE, LOOKALIKE = "edge/", "lookalike/"
"""What the names of an edge input's, and of a similar network's, outputs begin with in the file."""


@dataclass(frozen=True, eq=False)
class Simulation:
    """The outputs that a precision gives on the model, apart from any runtime.

    `outputs` belong to the references's inputs, `edges` to its edge inputs by name; an edge input that the
    simulation cannot run is left out.
    """

    outputs: Stacks
    edges: dict[str, Stacks]
    rounding_floor_db: float = math.inf
    """SQNR of the simulation against itself where other roundings change it (`Lowering`)."""
    lookalikes: dict[str, Stacks] = field(default_factory=dict)
    """What a network has that the model is easily mistaken for -> its outputs less the model's, both in full
    precision, on the references's inputs."""


def first_of_simulation(simulation: Simulation, count: int | None) -> Simulation:
    """Return the simulation of the first samples alone, with every edge input; all where `count` is None."""
    return replace(
        simulation,
        outputs=first_reference_io_rows(simulation.outputs, count),
        lookalikes={
            name: first_reference_io_rows(stacks, count) for name, stacks in simulation.lookalikes.items()
        },
    )


def save_simulation(simulation: Simulation, path: Path) -> None:
    """Write a simulation as one compressed .npz without pickles."""
    groups = {
        "outputs": simulation.outputs,
        **{f"{EDGE}{name}": stacks for name, stacks in simulation.edges.items()},
        **{f"{LOOKALIKE}{name}": stacks for name, stacks in simulation.lookalikes.items()},
    }
    stored = {f"{group}/{i}": array for group, stacks in groups.items() for i, array in enumerate(stacks)}
    with path.open("wb") as stream:
        np.savez_compressed(stream, **stored)  # type: ignore[arg-type]


def load_simulation(path: Path) -> Simulation:
    """Read what `save_simulation` wrote.

    Raises:
        VerificationError: It is not such a file.
    """
    contents = read_reference_io_arrays(path)
    groups: dict[str, list[Array]] = {}
    for index, key in sorted(
        (int(key.rpartition("/")[2]), key) for key in contents if _is_simulation_entry(key)
    ):
        group = groups.setdefault(key.rpartition("/")[0], [])
        if index == len(group):
            group.append(contents[key])
    if not groups.get("outputs"):
        raise VerificationError(f"{path.name} is not a simulation of this model.", "Export again.")
    edges, lookalikes = (_simulation_groups(groups, prefix) for prefix in (EDGE, LOOKALIKE))
    return Simulation(tuple(groups["outputs"]), edges, lookalikes=lookalikes)


def _simulation_groups(groups: Mapping[str, Sequence[Array]], prefix: str) -> dict[str, Stacks]:
    return {
        name.removeprefix(prefix): tuple(arrays) for name, arrays in groups.items() if name.startswith(prefix)
    }


def _is_simulation_entry(key: str) -> bool:
    group, _, index = key.rpartition("/")
    return index.isdecimal() and (group == "outputs" or group.startswith((EDGE, LOOKALIKE)))
