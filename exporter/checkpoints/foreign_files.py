"""Files of training and quantisation libraries, whose tensors are no network's own: what each is.

A network may have such names itself, so nothing is refused for them alone: they explain why nothing fits.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class ForeignFile:
    """A kind of file, and the way to a plain checkpoint."""

    names: re.Pattern[str]
    """Matches tensors that only such files have."""
    title: str
    advice: str


SAVE = "torch.save(model.state_dict(), 'model.pt')"

LORA_ADVICE = (
    "Give its base network, too: --base FOLDER. Or merge it where it was trained: "
    f"`model = PeftModel.from_pretrained(base, FOLDER).merge_and_unload(); {SAVE}`."
)

FOREIGN_FILES: tuple[ForeignFile, ...] = (
    ForeignFile(
        re.compile(r"(^|\.)(lora_(A|B|embedding_A|embedding_B|down|up)|hada_w[12]_[ab]|lokr_w[12])(\.|$)"),
        "a LoRA adapter, which changes a base network's weights",
        LORA_ADVICE,
    ),
    ForeignFile(
        re.compile(r"(^|\.)_?flat_param(_\d+)?$"),
        "flattened parameters of FSDP, a shard of them",
        "Save whole ones on all ranks: `torch.distributed.checkpoint.state_dict.get_model_state_dict(model, "
        "options=StateDictOptions(full_state_dict=True, cpu_offload=True))`, then torch.save on rank 0.",
    ),
    ForeignFile(
        re.compile(r"\.(quant_state\.bitsandbytes__\w+|SCB|weight_format)$"),
        "weights that bitsandbytes quantised",
        f"Save the float network: `model = model.dequantize(); {SAVE}`, or give the file it was made from.",
    ),
    ForeignFile(
        re.compile(r"\.(qweight|qzeros|g_idx)$"),
        "weights that GPTQ or AWQ quantised",
        "Give the float checkpoint from before quantisation: int8 and int4 are made here.",
    ),
    ForeignFile(
        re.compile(r"(^|\.)_packed_params(\.|$)"),
        "a network that PyTorch already quantised",
        "Give the float checkpoint from before `convert`: int8 is made here.",
    ),
    ForeignFile(
        re.compile(r"(^|\.)(weight_fake_quant|activation_post_process\w*)\."),
        "a network in quantisation-aware training, with layers fused",
        "Give `--arch` a function that fuses the layers the same way and calls `prepare_qat`, or the float "
        "checkpoint from before.",
    ),
)


def foreign_file_by_names(names: Iterable[str]) -> ForeignFile | None:
    """Find the kind of file that has such names; None where they may be any network's."""
    every = list(names)
    return next((kind for kind in FOREIGN_FILES if any(kind.names.search(name) for name in every)), None)


TORCHAO = "quantised by torchao"
DTENSOR = "a shard of a distributed network (DTensor)"
SHARDED = "a shard of a distributed network (ShardedTensor)"

OPAQUE_ADVICE: tuple[tuple[str, str], ...] = (
    (
        TORCHAO,
        "Give the float checkpoint from before `quantize_`, or save "
        "`{k: v.dequantize() if hasattr(v, 'dequantize') else v for k, v in model.state_dict().items()}`.",
    ),
    (
        "a shard of",
        "Save whole tensors on all ranks: `get_model_state_dict(model, options=StateDictOptions("
        "full_state_dict=True, cpu_offload=True))` of torch.distributed.checkpoint.state_dict.",
    ),
    ("sparse", "Save it dense: `{k: v.to_dense() for k, v in model.state_dict().items()}`."),
    (
        "quantised",
        "Give the float checkpoint from before quantisation: int8 is made here.",
    ),
    ("meta", "Load the weights into the network before it is saved."),
)
"""(words of `Opaque.what`, what to do); the first that matches counts."""


def foreign_file_advice(what: str) -> str:
    """Say how a plain tensor is made of one whose values cannot be read."""
    plain = "Save plain tensors: torch.save(model.state_dict(), …)."
    return next((hint for words, hint in OPAQUE_ADVICE if words in what), plain)


def foreign_file_class_of_tensors(name: str) -> str:
    """Say what a tensor of a class of its own is, by the class's dotted name."""
    if name.startswith("torchao."):
        return f"{TORCHAO} ({name.rpartition('.')[2]})"
    if name.endswith(".DTensor"):
        return DTENSOR
    return f"of the class {name[:80]}"


def is_foreign_file_of_deepspeed(root: object) -> bool:
    """Whether DeepSpeed wrote the file, by the version or settings that it leaves."""
    return isinstance(root, dict) and bool({"ds_version", "ds_config"} & set(root))


def foreign_file_of_deepspeed(root: object, shapes: Collection[tuple[int, ...]]) -> str | None:
    """Say what a file of DeepSpeed holds instead of weights: ZeRO keeps them in shards.

    Args:
        root: What the file holds.
        shapes: Of the chosen tensors; empty where none were found.
    """
    if not isinstance(root, dict) or not is_foreign_file_of_deepspeed(root):
        return None
    if "optimizer_state_dict" in root and "module" not in root:
        return "a shard of DeepSpeed's optimiser (ZeRO)"
    if shapes and all(shape == (0,) for shape in shapes if shape != ()):
        return "DeepSpeed's record of a network whose weights are in the shards beside it (ZeRO 3)"
    return None


ZERO_ADVICE = "Give the folder with the files of all ranks (*_optim_states.pt and *_model_states.pt)."
ZERO_NOTE = (
    "DeepSpeed keeps float32 weights in its optimiser's shards; those used here are the ones that training "
    "computed with. Give the folder with the files of all ranks for the others"
)
