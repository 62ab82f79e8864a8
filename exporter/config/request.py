"""What the user asked for. Imports nothing heavy: the command line builds one of these."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from exporter.records import Limits, Preprocessing, TaskName, TensorSpec


@dataclass(frozen=True)
class ModelRequest:
    """What the user said about the checkpoint and its inputs."""

    checkpoint: Path
    trust: bool = False
    """Unpickle whole modules: runs whatever code the file names."""
    arch: str | None = None
    """"torchvision/resnet18" or "mypkg.nets:make_net"; None infers it."""
    arch_args: tuple[tuple[str, str], ...] = ()
    ignore_keys: tuple[str, ...] = ()
    """Patterns of tensors in the file to leave out, as `head.*`."""
    weights_from_arch: bool = False
    """Keep the weights that `arch`'s function made where the file has none."""
    expect: tuple[tuple[str, str], ...] = ()
    """(photo, class's number or label): what the network must answer before anything is made."""
    input_shapes: tuple[TensorSpec, ...] = ()
    """Name "" means by position."""
    preprocess: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    preprocessing: Preprocessing | None = None
    """The whole way from a photo to the input, as a model card says it; stands for the three above."""
    labels: tuple[str, ...] = ()
    """Of the classes, in order; empty leaves those that the architecture knows."""
    calibration: Path | None = None
    """A folder of photos or an .npz of arrays; None makes synthetic inputs."""
    samples: int = 64
    """Calibration samples, and as many others for verification."""
    torchscript: Literal["auto", "trace", "script"] = "auto"
    state: Literal["kept", "explicit"] = "kept"
    """Whether the files keep what forward changes, or it becomes inputs and outputs."""


@dataclass(frozen=True)
class Request(ModelRequest):
    """Everything one export depends on."""

    target: str = "generic-arm64"
    out: Path | None = None
    """None: `<checkpoint>-<target>` beside the current folder."""
    formats: tuple[str, ...] = ()
    """Empty: all that the target lists."""
    precisions: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    budget_ms: float = 15.0
    evaluation: Path | None = None
    """Labelled data: a folder of photos with a folder per class, or an .npz with an array `labels`."""
    max_drop: float = 1.0
    """Points of top-1 that an artifact may lose on it against eager float32."""
    task: TaskName = ""
    """What the model is for, whose measure every artifact must meet; empty leaves it to the outputs, and then
    the measure is shown only."""
    search: bool = False
    """Look for the operators to keep in float: artifacts of precision "mixed"."""
    min_sqnr_db: float = 24.0
    """What `search` must reach on the verification inputs, beside the agreement that int8 must."""
    time_limit_s: float = 600.0
    """After which `search` starts no further candidate."""
    calibration_sweep: bool = False
    """Measure int8 against the number of calibration samples."""
    allow_synthetic: bool = False
    """Let an int8 artifact that was calibrated on synthetic inputs be selected."""
    verify: bool = True
    cache: bool = True
    force: bool = False
    jobs: int = 0
    """Worker processes; 0 chooses by cores."""
    threads: int = 0
    """Threads a runtime uses when its latency is measured; 0 chooses."""

    @property
    def model(self) -> ModelRequest:
        return ModelRequest(**{f.name: getattr(self, f.name) for f in fields(ModelRequest)})

    @property
    def destination(self) -> Path:
        return self.out or Path(f"{self.checkpoint.stem}-{self.target}")
