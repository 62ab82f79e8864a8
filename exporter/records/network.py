"""What a checkpoint holds, and the network that is made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from exporter.records.values import Array, Count, Positive, Sample, Side

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model."""

    name: str
    shape: tuple[Count, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class SizeRange:
    """A size of an input that may differ from call to call: `low`, `low + step`, … up to `high`."""

    name: str
    """What ties equal sizes together, such as "batch"; empty where the user gave none."""
    low: int
    high: int
    step: int = 1

    @property
    def fixed(self) -> bool:
        """Whether this is one size, which a file must have and which must be refused beside it."""
        return self.low == self.high


@dataclass(frozen=True)
class SizeList:
    """A size of an input that is one of several; each is exported for itself (`exporter.config.buckets`)."""

    name: str
    """What ties equal sizes together; empty where the user gave none."""
    sizes: tuple[int, ...]
    """Ascending, two or more."""


@dataclass(frozen=True)
class DynamicShape:
    """One input's shape as `--dynamic` declares it: fixed sizes and ranges."""

    name: str
    """Empty: matched by position."""
    sizes: tuple[int | SizeRange | SizeList, ...]
    dtype: str = "float32"

    @property
    def largest(self) -> TensorSpec:
        """Return the input with each range at its upper end, and each list at its largest size."""
        return TensorSpec(self.name, tuple(map(_largest_size, self.sizes)), self.dtype)


def _largest_size(size: int | SizeRange | SizeList) -> int:
    if isinstance(size, int):
        return size
    return size.high if isinstance(size, SizeRange) else size.sizes[-1]


@dataclass(frozen=True)
class DynamicSize:
    """A range of sizes, and every place in the inputs that has it."""

    range: SizeRange
    """Its name is never empty."""
    places: tuple[tuple[int, int], ...]
    """(position of the input, axis)."""


@dataclass(frozen=True)
class Preprocessing:
    """How a photo becomes the model's input.

    The shorter side is resized to `resize` pixels (both sides when `squash`), the centre `crop` (height,
    width) is cut, values are scaled to 0..1 (unless `scale` is 255), then `(x - mean) / std` per channel.
    """

    resize: Side = 256
    crop: tuple[Side, Side] = (224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[Positive, ...] = (0.229, 0.224, 0.225)
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    squash: bool = False
    scale: Positive = 1.0
    """The value white has before normalisation: 1.0, or 255.0 for models trained on raw bytes."""
    pixels: Literal["", "gray", "rgb", "rgba"] = ""
    """What artifacts take that normalise themselves: the crop's bytes, uint8 [N, height, width, channels].
    Empty: they take normalised floats."""
    photo_sizes: tuple[Side, Side] | None = None
    """The least and the greatest height and width of a photo that artifacts take whole, and resize and crop
    themselves. None: the app does."""

    @property
    def colours(self) -> int:
        """Return how many channels of a crop's bytes are looked at: alpha is not."""
        return 1 if self.pixels == "gray" else 3

    @property
    def taken(self) -> Preprocessing:
        """Return how a photo becomes what artifacts take: where they resize it, a square of one size.

        The square shows what `crop` is cut from, so that the network sees the same either way.
        """
        if self.photo_sizes is None:
            return self
        low, high = self.photo_sizes
        side = min(high, max(low, self.resize * 3 // 2))  # not the size that it is resized to
        return replace(self, resize=side, crop=(side, side), photo_sizes=None)


@dataclass(frozen=True)
class ImageInput:
    """A picture of 8 bits a channel as the model's only input: each channel is byte * scale + bias.

    The byte is from 0 to 255, and each tuple has a value for each channel.
    """

    scale: tuple[Positive, ...]
    bias: tuple[float, ...]

    def levels(self, array: Array) -> Array:
        """Return the bytes that a prepared array [N, C, H, W] comes from, as float64 before they are rounded.

        Raises:
            ValueError: It has another number of channels.
        """
        import numpy as np

        scale, bias = (np.array(values, np.float64)[:, None, None] for values in (self.scale, self.bias))
        if array.ndim != 4 or array.shape[1] != len(self.scale):
            raise ValueError(f"{list(array.shape)} is no picture of {len(self.scale)} channel(s)")
        levels: Array = (array.astype(np.float64) - bias) / scale
        return levels

    def shows(self, array: Array) -> bool:
        """Tell whether a prepared array is a picture of 8 bits, less the rounding of float32."""
        levels = self.levels(array)
        return bool((abs(levels - levels.round().clip(0, 255)) <= ROUNDED_LEVEL).all())


ROUNDED_LEVEL = 0.01
"""How far float32's rounding moves a byte at most: a std of 0.001 and a mean of 0.5 give 0.002."""


@dataclass(frozen=True)
class Reading:
    """One way to name a checkpoint's tensors: as stored, or without what wrappers put before the names."""

    names: Mapping[str, str]
    """Name as the network may have it -> name in the file."""
    notes: tuple[str, ...] = ()
    """What was done to the names, and what is left out."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a file holds, read without running anything in it.

    Exactly one of `tensors` (weights only) and `module` (weights and network in one) is set.
    """

    path: Path
    sha256: str
    kind: str
    """state_dict, container, lightning, safetensors, torchscript, exported_program, pickled_module,
    distributed, ultralytics, or pretrained (a folder with its network's settings)."""
    tensors: Mapping[str, torch.Tensor] | None
    """Name in the file -> tensor; `readings` says how a network may call them."""
    module: torch.nn.Module | None = None
    """For self-contained kinds: runs under eager PyTorch (a ScriptModule, a GraphModule, or a module)."""
    example: tuple[torch.Tensor, ...] | None = None
    """Example inputs, where the file carries them (`torch.export`)."""
    notes: tuple[str, ...] = ()
    """What was found, chosen and left out, a sentence each: shown to the user."""
    contents: tuple[tuple[str, str], ...] = ()
    """Everything at the top of the file, (key, short description), for `inspect`."""
    readings: tuple[Reading, ...] = ()
    """Names to try in this order, the stored ones first; empty: only the stored ones."""
    layer_versions: Mapping[str, Mapping[str, Any]] | None = None
    """Layer's name in the file -> what PyTorch noted of its format (`state_dict()._metadata`): load hooks ask
    for its version. None where the file has no such notes."""
    extra_state: Mapping[str, Any] = field(default_factory=dict)
    """What layers save beside tensors (`get_extra_state`), where it is plain values; by stored name."""
    stated_networks: tuple[tuple[str, str], ...] = ()
    """(where it stands in the file, what it says) of each text that seems to name the network."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Name of each JSON file beside the weights, such as config.json -> its content; under "args"
    what the training program was called with."""


@dataclass(frozen=True)
class Codes:
    """The legal values of an input of whole numbers."""

    kind: Literal["tokens", "mask", "segments", "boxes"]
    """Tokens are codes of a vocabulary, a mask is 1 up to a length and then 0, segments are 0 and then 1,
    boxes are corners x1, y1, x2, y2 with the second not before the first."""
    count: int = 2
    """Codes are from 0 to `count` - 1."""
    padding: int = 0
    """The token behind the text's end."""
    first: int | None = None
    """The token that begins every text, where there is one."""
    last: int | None = None
    """The token that ends every text, where there is one."""


SampleReader: TypeAlias = (
    "Callable[[Path, tuple[TensorSpec, ...], int], tuple[list[Sample], tuple[str, ...]] | None]"
)
"""Reads up to so many samples from a file or folder of the model's own kind (texts, recordings), with notes;
None where it is of another kind."""


@dataclass(frozen=True, eq=False)
class EarlierPart:
    """The part of a network whose outputs are another part's inputs: samples are made for it, and run."""

    inputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing | None
    """How photos become its input; None where that is not known."""
    run: Callable[[Sample], Sample]
    """Makes the inputs of the part that follows."""


@dataclass(frozen=True, eq=False)
class Model:
    """A network with its trained weights, in eval mode, float32, on the CPU."""

    module: torch.nn.Module
    architecture: str
    """"torchvision/mobilenet_v2", "mypkg.nets:make_net", or the self-contained kind's own name."""
    inputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing | None
    """None when the inputs are not photos, or no preprocessing is known."""
    parameters: int
    notes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """What the weights cannot prove about the network."""
    codes: Mapping[str, Codes] = field(default_factory=dict)
    """Name of an input -> its legal values, for inputs of whole numbers where they are known."""
    reader: SampleReader | None = None
    """Reads calibration data through the checkpoint's own tokenizer or feature extractor."""
    earlier: EarlierPart | None = None
    """The part that calibration data is for, where this model takes that part's outputs."""


@dataclass(frozen=True)
class About:
    """What a file tells people about its model. An empty text leaves a line out."""

    description: str = ""
    author: str = ""
    licence: str = ""
    version: str = ""
    labels: tuple[str, ...] = ()
    """Labels of the classes, in order."""
    preparation: str = ""
    """How a photo becomes the input."""


@dataclass(frozen=True, eq=False)
class Captured:
    """A model made ready for the formats. Lives inside one worker process."""

    module: torch.nn.Module
    """Eval, float32. Called with `example`, returns a tensor or a tuple of tensors."""
    program: torch.export.ExportedProgram | None
    """The same network as a graph; None when it has control flow that `torch.export` cannot keep."""
    program_error: str
    """Why `program` is None, in torch's words; else empty."""
    example: tuple[torch.Tensor, ...]
    """Contiguous example inputs, taken from real data where there is some."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    torchscript: Literal["auto", "trace", "script"] = "auto"
    """How TorchScript is made: "auto" traces, and scripts where a trace would lose control flow."""
    program_source: str | None = None
    """`file:line` of the user's code that `torch.export` could not follow, where known."""
    state: tuple[str, ...] = ()
    """Buffers and attributes through which a call changes the next call's outputs."""
    variable: tuple[str, ...] = ()
    """Names of the outputs whose sizes depend on the inputs' values, as the graph tells."""
    about: About = About()
    """What files that have room for it tell people."""
    dynamic: tuple[DynamicSize, ...] = ()
    """The sizes of inputs that may differ from call to call; `inputs` has those of the example."""
    folded: str = ""
    """How `program` normalises pixels within a layer, where `module` does before; empty: as `module` does."""
    image: ImageInput | None = None
    """How Core ML packages prepare the picture that is their input; None gives them the model's own input."""

    @property
    def ranges(self) -> tuple[DynamicSize, ...]:
        """Return those of `dynamic` that may differ: a bucket's have one size each."""
        return tuple(size for size in self.dynamic if not size.range.fixed)
