"""The inputs and expected outputs an artifact is judged by, as a file that `verify` can read again.

Stacks are arrays with one leading axis for the sample: an input of shape [1, 3, 224, 224] becomes
[N, 1, 3, 224, 224].
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from exporter import array_file
from exporter.errors import VerificationError
from exporter.records import Array, ImageInput, Sample

Stacks = tuple[Array, ...]
STACKS = (
    "inputs",
    "reference",
    "edge_inputs",
    "edge_reference",
    "eager_errors",
    "edge_unstable",
    "shapes",
    "edge_shapes",
    "positions",
    "scenes",
)
"""The groups of arrays in the file, as `ReferenceIO` names them."""


@dataclass(frozen=True, eq=False)
class ReferenceIO:
    """Inputs and the float64 model's outputs on them.

    `inputs` and `edge_inputs` have the inputs' own dtypes; `reference` and `edge_reference` are float64 where
    the output is a float. `floor` is eager float32's own max_error on the inputs, `edge_floor` its worst
    on an edge input.
    """

    inputs: Stacks
    reference: Stacks
    edge_inputs: Stacks
    edge_reference: Stacks
    edge_names: tuple[str, ...]
    floor: float
    edge_floor: float
    reference_dtype: str
    edge_floors: tuple[float, ...] = ()
    """Float32's own max_error on each edge input; infinite where rounding alone decides the outputs."""
    eager_errors: Stacks = ()
    """What rounding does to each output (`exporter.capture.rounding_errors`). Of a float output: eager
    float32's largest absolute error per element, shaped as one output. Of any other: a boolean per value,
    stacked as the reference, whether rounding changes it. Empty in files of older versions."""
    edge_unstable: Stacks = ()
    """The same on the edge inputs."""
    shapes: Stacks = ()
    """Per output [N, dimensions]: its size in each sample, where sizes depend on the data; else empty.

    `reference` is then padded with zeros to the largest.
    """
    edge_shapes: Stacks = ()
    state: tuple[str, ...] = ()
    """Buffers that a call changes for the next one: samples and edges are one sequence of calls each."""
    output_names: tuple[str, ...] = ()
    resting: tuple[bool, ...] = ()
    """Per output, whether its units rest near zero
    (`exporter.capture.resting_activations`). Empty: not known."""
    positions: Stacks = ()
    """Per output, the numbers of the axes along which every position is computed alike, such as a score map's
    height and width (`exporter.capture.position_axes`); 0 is usually the batch. Empty: not known."""
    rounded: tuple[bool, ...] = ()
    """Per output, whether it is a quantity rounded to integers (`exporter.capture.rounded_outputs`).
    Empty: not known."""
    epsilons: tuple[float, ...] | None = None
    """The program's own (`exporter.capture.epsilons`); None where it has no graph, or in older files."""
    untrained_norm: str = ""
    """A batch norm that never saw what reaches it (`exporter.capture.untrained_norms`); empty: none found."""
    scenes: Stacks = ()
    """One array [N]: the number of each sample's scene; empty where every sample is its own."""

    @property
    def scene_of(self) -> Array:
        """The number of each sample's scene."""
        return self.scenes[0] if self.scenes else np.arange(len(self.reference[0]))

    @property
    def undecided_edges(self) -> tuple[str, ...]:
        """The edge inputs on which rounding alone decides the outputs, so that finite ones are right."""
        floors = zip(self.edge_names, self.edge_floors, strict=False)
        return tuple(name for name, floor in floors if math.isinf(floor))

    def output_name(self, index: int) -> str:
        """Return an output as a reason calls it: "output logits", or "output 1" without a name."""
        return named_reference_io_output(
            self.output_names[index] if index < len(self.output_names) else str(index)
        )

    def samples(self) -> list[Sample]:
        return unstack_reference_io(self.inputs)

    def edges(self) -> list[Sample]:
        return unstack_reference_io(self.edge_inputs)


def named_reference_io_output(name: str) -> str:
    """Return a name after the word "output", unless it is that word and a number: "output_1"."""
    return name if re.match(r"output([_ ]?\d+)?(?!\w)", name) else f"output {name}"


def stack_reference_io(samples: Sequence[Sample]) -> Stacks:
    return tuple(np.stack(arrays) for arrays in zip(*samples, strict=True))


def largest_reference_io_shapes(samples: Sequence[Sample]) -> tuple[tuple[int, ...], ...]:
    """Return, for each output, the largest size of each dimension over all samples."""
    return tuple(
        tuple(max(sizes) for sizes in zip(*(array.shape for array in arrays), strict=True))
        for arrays in zip(*samples, strict=True)
    )


def pad_reference_io(outputs: Sample, shapes: Sequence[tuple[int, ...]]) -> Sample:
    """Pad outputs with zeros to the given shapes.

    Raises:
        ValueError: An output is larger.
    """
    return tuple(
        array
        if array.shape == shape
        else np.pad(array, [(0, most - size) for size, most in zip(array.shape, shape, strict=True)])
        for array, shape in zip(outputs, shapes, strict=True)
    )


def reference_io_shapes(samples: Sequence[Sample], always: bool = False) -> Stacks:
    """Return every output's shape in every sample; empty when no shape changes, unless `always`."""
    each = [[array.shape for array in arrays] for arrays in zip(*samples, strict=True)]
    if not always and all(len(set(shapes)) == 1 for shapes in each):
        return ()
    return tuple(np.array(shapes, np.int64).reshape(len(samples), -1) for shapes in each)


def stack_like_reference_io(
    outputs: Sequence[Sample],
    reference: Stacks,
    shapes: Stacks = (),
    names: Sequence[str] = (),
    edges: Sequence[str] = (),
) -> tuple[Stacks, str]:
    """Stack an artifact's outputs as the reference is.

    Args:
        outputs: Of each call, as the artifact gave them.
        reference: What they will be compared with.
        shapes: `ReferenceIO.shapes`, of as many calls.
        names: Of the outputs; their positions when empty.
        edges: The calls' names, when they are edge inputs and not samples.

    Returns:
        The stacks, and a sentence when an output has another size than the model's; they are empty then.
    """
    if not outputs:
        return tuple(np.zeros((0, *y.shape[1:]), y.dtype) for y in reference), ""
    names = names or [str(i) for i in range(len(reference))]
    if any(len(call) != len(reference) for call in outputs):
        return (), f"It has {len(outputs[0])} outputs, the model has {len(reference)}."
    for index, call in enumerate(outputs):
        for position, (name, array) in enumerate(zip(names, call, strict=True)):
            size = tuple(shapes[position][index]) if shapes else reference[position].shape[1:]
            if array.shape != size:
                call_name = f"the edge input {edges[index]!r}" if edges else f"sample {index}"
                return (), (
                    f"Its {named_reference_io_output(name)} has shape {list(array.shape)} on {call_name}, "
                    f"the model's has {[int(s) for s in size]}."
                )
    largest = [whole.shape[1:] for whole in reference]
    return stack_reference_io([pad_reference_io(call, largest) for call in outputs]), ""


def first_reference_io_rows(stacks: Stacks, count: int | None) -> Stacks:
    """Return the first entries of each stack; all where `count` is None."""
    return tuple(stack[:count] for stack in stacks)


def first_of_reference_io(references: ReferenceIO, count: int | None) -> ReferenceIO:
    """Return the references of the first samples alone, with every edge input; all where `count` is None."""
    return replace(
        references,
        inputs=first_reference_io_rows(references.inputs, count),
        reference=first_reference_io_rows(references.reference, count),
        shapes=first_reference_io_rows(references.shapes, count),
        scenes=first_reference_io_rows(references.scenes, count),
        eager_errors=tuple(a[:count] if a.dtype == np.bool_ else a for a in references.eager_errors),
    )


def pictures_of_reference_io(references: ReferenceIO, image: ImageInput) -> ReferenceIO:
    """Return the references without the edge inputs that are no picture of 8 bits."""
    rows = [i for i, (array,) in enumerate(references.edges()) if image.shows(array)]

    def chosen(stacks: Stacks) -> Stacks:
        return tuple(stack[rows] for stack in stacks)

    return replace(
        references,
        edge_inputs=chosen(references.edge_inputs),
        edge_reference=chosen(references.edge_reference),
        edge_shapes=chosen(references.edge_shapes),
        edge_unstable=tuple(a[rows] if a.dtype == np.bool_ else a for a in references.edge_unstable),
        edge_names=tuple(references.edge_names[i] for i in rows),
        edge_floors=tuple(references.edge_floors[i] for i in rows if references.edge_floors),
    )


def unstack_reference_io(stacks: Stacks) -> list[Sample]:
    count = len(stacks[0]) if stacks else 0
    return [tuple(np.ascontiguousarray(s[i]) for s in stacks) for i in range(count)]


def save_reference_io(references: ReferenceIO, path: Path) -> None:
    """Write the references as one compressed .npz without pickles."""
    arrays: dict[str, np.ndarray] = {
        "edge_names": np.array(references.edge_names, dtype=np.str_),
        "floor": np.array(references.floor),
        "edge_floor": np.array(references.edge_floor),
        "reference_dtype": np.array(references.reference_dtype, dtype=np.str_),
        "edge_floors": np.array(references.edge_floors, dtype=np.float64),
        "output_names": np.array(references.output_names, dtype=np.str_),
        "resting": np.array(references.resting, dtype=np.bool_),
        "rounded": np.array(references.rounded, dtype=np.bool_),
    }
    if references.state:
        arrays["state"] = np.array(references.state, dtype=np.str_)
    if references.untrained_norm:
        arrays["untrained_norm"] = np.array(references.untrained_norm, dtype=np.str_)
    if references.epsilons is not None:
        arrays["epsilons"] = np.array(references.epsilons, dtype=np.float64)
    for group in STACKS:
        arrays |= {f"{group}/{i}": a for i, a in enumerate(getattr(references, group))}
    with path.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]


def load_reference_io(path: Path) -> ReferenceIO:
    """Read what `save_reference_io` wrote.

    Raises:
        VerificationError: It is not such a file.
    """
    contents = read_reference_io_arrays(path)
    try:
        return ReferenceIO(
            **{group: _reference_io_group(contents, group) for group in STACKS},
            state=tuple(str(name) for name in contents.get("state", ())),
            edge_names=tuple(str(name) for name in contents["edge_names"]),
            floor=float(contents["floor"]),
            edge_floor=float(contents["edge_floor"]),
            reference_dtype=str(contents["reference_dtype"]),
            edge_floors=tuple(float(floor) for floor in contents.get("edge_floors", ())),
            output_names=tuple(str(name) for name in contents.get("output_names", ())),
            resting=tuple(bool(rests) for rests in contents.get("resting", ())),
            rounded=tuple(bool(is_rounded) for is_rounded in contents.get("rounded", ())),
            epsilons=tuple(map(float, contents["epsilons"])) if "epsilons" in contents else None,
            untrained_norm=str(contents.get("untrained_norm", "")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise VerificationError(f"{path.name} is not the evidence of an export: {error!r}.") from None


@dataclass(frozen=True, eq=False)
class Lowering:
    """A quantised program's own outputs, before a backend lowered it.

    `rounding_floor_db` is its SQNR against itself as another right kernel computes it
    (`exporter.quantize.rounding_ties`): rounding ties flip, and a deep network amplifies them, so that no
    artifact can be expected to come closer.
    """

    outputs: Stacks
    rounding_floor_db: float
    edges: Mapping[str, Sample] = field(default_factory=dict)
    """Its outputs on each edge input that it accepts, by name; empty in files of older versions."""
    ties: Stacks = ()
    """Per output, shaped as one, the mean square of what such kernels change in each element. Empty in files
    of older versions."""


def save_reference_io_lowering(lowering: Lowering, path: Path) -> None:
    arrays = {f"outputs/{i}": a for i, a in enumerate(lowering.outputs)}
    arrays |= {f"ties/{i}": a for i, a in enumerate(lowering.ties)}
    for name, outputs in lowering.edges.items():
        arrays |= {f"edges/{name}/{i}": a for i, a in enumerate(outputs)}
    with path.open("wb") as stream:
        floor = np.array(lowering.rounding_floor_db)
        np.savez_compressed(stream, rounding_floor_db=floor, **arrays)  # type: ignore[arg-type]


def _reference_io_edges(arrays: Mapping[str, Array]) -> dict[str, Sample]:
    names = dict.fromkeys(key.split("/")[1] for key in arrays if key.startswith("edges/"))
    return {name: _reference_io_group(dict(arrays), f"edges/{name}") for name in names}


def load_reference_io_lowering(path: Path) -> Lowering:
    """Read what `save_reference_io_lowering` wrote.

    Raises:
        VerificationError: It is not such a file.
    """
    contents = read_reference_io_arrays(path)
    try:
        return Lowering(
            _reference_io_group(contents, "outputs"),
            float(contents["rounding_floor_db"]),
            _reference_io_edges(contents),
            _reference_io_group(contents, "ties"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise VerificationError(f"{path.name} is not a quantised program's outputs: {error!r}.") from None


def read_reference_io_arrays(path: Path) -> dict[str, Array]:
    """Read an .npz without pickles.

    Raises:
        VerificationError: It cannot be read.
    """
    try:
        return array_file.read_array_file(path)
    except (array_file.ArrayFileError, OSError) as error:
        raise VerificationError(f"{path.name} cannot be read. {error}", "Export again.") from None


def _reference_io_group(arrays: dict[str, Array], group: str) -> Stacks:
    count = sum(1 for key in arrays if key.startswith(f"{group}/"))
    return tuple(arrays[f"{group}/{i}"] for i in range(count))
