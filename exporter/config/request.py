"""The user's request. This module imports nothing heavy, because the command line builds it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from exporter.errors import UsageError
from exporter.files import name_of_source_file
from exporter.records import About, DynamicShape, Limits, Preprocessing, TaskName, TensorSpec


@dataclass(frozen=True)
class ModelRequest:
    """The options about the checkpoint and its inputs."""

    checkpoint: Path
    trust: bool = False
    """Whether to unpickle whole modules, which runs any code that the file names."""
    base: Path | None = None
    """The base network's checkpoint, into which `checkpoint`, a LoRA adapter, is merged."""
    arch: str | None = None
    """"torchvision/resnet18" or "mypkg.nets:make_net"; None infers the network."""
    arch_args: tuple[tuple[str, str], ...] = ()
    part: str = ""
    """The part of a network of several to export: encoder, decoder, text or vision; empty is the whole."""
    ignore_keys: tuple[str, ...] = ()
    """Patterns of tensors in the file to leave out, such as `head.*`."""
    weights_from_arch: bool = False
    """Whether to keep the weights that `arch`'s function creates where the file has none."""
    expect: tuple[tuple[str, str], ...] = ()
    """(photo, number or label of its class): what the network must predict before anything is built."""
    input_shapes: tuple[TensorSpec, ...] = ()
    """Shapes of the inputs; an empty name is matched by position."""
    dynamic: tuple[DynamicShape, ...] = ()
    """The shapes of inputs with ranges of sizes; `input_shapes` then holds one shape within them."""
    input_values: tuple[tuple[str, str], ...] = ()
    """Values of inputs that are Python numbers, flags or texts; they become constants."""
    preprocess: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    preprocessing: Preprocessing | None = None
    """Every step from a photo to the input, from a model card; replaces the three fields above."""
    labels: tuple[str, ...] = ()
    """Labels of the classes, in order; empty keeps those that the architecture knows."""
    about: About = field(default_factory=About)
    """What Core ML packages tell people; labels and preparation come from the model."""
    calibration: Path | None = None
    """A folder of photos or an .npz of arrays; None uses synthetic inputs."""
    samples: int = 64
    """The number of calibration samples, and of verification samples."""
    torchscript: Literal["auto", "trace", "script"] = "auto"
    state: Literal["kept", "explicit"] = "kept"
    """Whether the files keep what forward changes, or it becomes inputs and outputs."""
    embed_preprocessing: Literal["", "rgb", "rgba"] = ""
    """The bytes of a photo that artifacts take and normalise; empty: they take normalised floats."""
    photo_sizes: tuple[int, int] | None = None
    """The least and the greatest side of photos that artifacts resize themselves; None: the app does."""
    image_input: bool = False
    """Whether Core ML packages take a picture, and prepare it themselves."""

    @property
    def several_parts(self) -> tuple[str, ...]:
        """The parts of `--part encoder,decoder`; empty where one is named, or none.

        Raises:
            UsageError: A part is named twice, or a name is empty.
        """
        names = tuple(self.part.split(",")) if "," in self.part else ()
        if len(set(names)) < len(names) or "" in names:
            raise UsageError(f"--part {self.part} names a part twice, or none.", "Name each part once.")
        return names

    @property
    def several_sizes(self) -> bool:
        """Whether artifacts are also judged at other sizes than the example's."""
        return bool(self.dynamic) or self.photo_sizes is not None


@dataclass(frozen=True)
class Request(ModelRequest):
    """Everything one export depends on."""

    target: str = "generic-arm64"
    out: Path | None = None
    """The folder for the result; None is `<checkpoint>-<target>` in the current folder."""
    formats: tuple[str, ...] = ()
    """The formats to emit; empty is all that the target lists."""
    precisions: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    budget_ms: float = 15.0
    evaluation: Path | None = None
    """Labelled data: a folder per class, COCO's JSON, masks, a table, …, or an .npz with `labels`."""
    max_drop: float = 1.0
    """Points of top-1, or of the task's measure, that an artifact may lose on `evaluation`."""
    task: TaskName = ""
    """What the model is for, whose measure every artifact must meet; empty leaves it to the outputs, and then
    the measure is shown only."""
    search: bool = False
    """Whether to search for operators to keep in float, which gives artifacts of precision "mixed"."""
    min_sqnr_db: float = 24.0
    """The SQNR that `search` must reach on the scenes that choose, in addition to int8's agreement."""
    time_limit_s: float = 600.0
    """Seconds after which `search` starts no further candidate."""
    calibration_sweep: bool = False
    """Whether to measure int8 for several numbers of calibration samples."""
    allow_synthetic: bool = False
    """Whether an int8 artifact that was calibrated on synthetic inputs may be chosen."""
    allow_inconclusive: bool = False
    """Whether an artifact may be chosen that too few scenes were seen of to pass it."""
    verify: bool = True
    cache: bool = True
    force: bool = False
    jobs: int = 0
    """Worker processes; 0 chooses by cores and memory, at most 4."""
    memory_gib: float = 0.0
    """GiB that all processes may take together, which bounds `jobs`; 0 takes what is free."""
    threads: int = 0
    """Threads that a runtime uses while it is timed; 0 uses one per core, at most 4."""
    estimate: bool | None = None
    """Whether to estimate latencies on the phone's CPU; None does for a Snapdragon, unless the environment
    variable EXPORT_MOBILE_ESTIMATE is "0"."""

    @property
    def choosing(self) -> bool:
        """Whether candidates are compared, with samples that neither calibrate nor verify."""
        return self.search or self.calibration_sweep

    @property
    def model(self) -> ModelRequest:
        return ModelRequest(**{f.name: getattr(self, f.name) for f in fields(ModelRequest)})

    @property
    def destination(self) -> Path:
        folder = self.checkpoint.is_dir()
        name = name_of_source_file(self.checkpoint) if folder else self.checkpoint.stem
        return self.out or Path(f"{name}-{self.target}")
