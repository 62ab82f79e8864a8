"""Declared tensors -> real ones: bounds checked first, then float32 on the CPU, then finite."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

from exporter.checkpoints import foreign_files
from exporter.checkpoints.inert_values import (
    ITEM_BYTES,
    MAX_DIMENSIONS,
    AnyTensor,
    ArrayRef,
    Opaque,
    Storage,
    TensorRef,
)
from exporter.checkpoints.torchfile import PickledTorchfile
from exporter.errors import BoundsError, CheckpointError

if TYPE_CHECKING:
    import torch

BUDGET_FACTOR = 8
BUDGET_SLACK_BYTES = 64 << 20
"""All tensors together may take BUDGET_FACTOR times the file (8-bit floats grow fourfold) plus the slack:
a view may repeat one stored number without end."""

RESAVE = "Save it again with torch.save(model.state_dict(), …)."


def load_checkpoint_tensors(
    declared: Mapping[str, AnyTensor], pickled: PickledTorchfile, file_bytes: int
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Read the declared tensors.

    Args:
        declared: Name -> tensor as the pickle declares it.
        pickled: Where their numbers are.
        file_bytes: Size of the checkpoint, in bytes; bounds what may be allocated.

    Returns:
        Name -> contiguous CPU tensor, floats as float32; and a note on each conversion.

    Raises:
        CheckpointError: A tensor reaches outside its storage, has no values, or holds NaN.
    """
    check_total_of_checkpoint_tensors(sum(map(checkpoint_tensor_size_bytes, declared.values())), file_bytes)
    read: dict[Storage, bytearray] = {}
    tensors = {}
    for name, ref in declared.items():
        if (
            isinstance(ref, TensorRef)
            and (stored := whole_checkpoint_tensor_storage(ref.storage)) not in read
        ):
            read[stored] = pickled.read_storage(stored)
        tensors[name] = _real_checkpoint_tensor(name, ref, read)
    return checkpoint_tensors_as_float32(tensors)


def raw_checkpoint_tensor(name: str, ref: TensorRef, pickled: PickledTorchfile) -> torch.Tensor:
    """Read one tensor in the type it is stored in."""
    return _stride_checkpoint_tensor(
        name, ref, pickled.read_storage(whole_checkpoint_tensor_storage(ref.storage))
    )


def check_total_of_checkpoint_tensors(total_bytes: int, file_bytes: int) -> None:
    """Refuse tensors that are much larger than their file: a stride of zero repeats one number without end.

    Raises:
        BoundsError: They are.
    """
    if total_bytes > BUDGET_FACTOR * file_bytes + BUDGET_SLACK_BYTES:
        raise BoundsError(
            f"The tensors claim to hold {total_bytes} bytes in a file of {file_bytes}, expected at most "
            f"{BUDGET_FACTOR} times its size.",
            RESAVE,
        )


def whole_checkpoint_tensor_storage(storage: Storage) -> Storage:
    """The storage that a view begins somewhere in: many views share its bytes."""
    return replace(storage, start=0)


def checkpoint_tensor_size_bytes(ref: AnyTensor) -> int:
    """Bytes of a tensor by its declaration."""
    match ref:
        case TensorRef():
            return prod(ref.shape) * ITEM_BYTES[ref.dtype]
        case ArrayRef():
            return len(ref.data)
        case Opaque():
            return 0


def checkpoint_tensors_as_float32(
    tensors: Mapping[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Make every real tensor float32, and refuse NaN and infinities.

    Raises:
        CheckpointError: A tensor is not finite; names the first.
    """
    import torch

    other = Counter(
        str(t.dtype).removeprefix("torch.")
        for t in tensors.values()
        if t.is_floating_point() and t.dtype != torch.float32
    )
    converted = {n: t.to(torch.float32) if t.is_floating_point() else t for n, t in tensors.items()}
    for name, tensor in converted.items():
        check_checkpoint_tensors_finite(name, tensor)
    return converted, tuple(
        f"{count} tensor{'s' * (count > 1)} stored as {dtype} converted to float32"
        for dtype, count in other.items()
    )


def check_checkpoint_tensors_finite(name: str, tensor: torch.Tensor) -> None:
    """Refuse what training leaves when it diverged; a mask of 0 and -inf is meant.

    Raises:
        CheckpointError: The tensor holds NaN or infinities.
    """
    import torch

    if not (tensor.is_floating_point() or tensor.is_complex()) or not tensor.numel():
        return
    values = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    # Both ends are NaN if any value is; many times faster than isfinite on every value.
    if all(torch.isfinite(end) for end in torch.aminmax(values)) or _is_mask_checkpoint_tensor(values):
        return
    count = int((~torch.isfinite(values)).sum())
    raise CheckpointError(
        f"The tensor {name!r} is NaN or infinite in {count} of its {tensor.numel()} values.",
        "The training diverged, or the file is damaged: take an earlier checkpoint.",
        code="EM-NOT-FINITE",
    )


def _is_mask_checkpoint_tensor(values: torch.Tensor) -> bool:
    import torch

    zeros, minus = values == 0, values == -torch.inf
    return bool(zeros.any()) and bool((zeros | minus).all())


def _real_checkpoint_tensor(name: str, ref: AnyTensor, read: Mapping[Storage, bytearray]) -> torch.Tensor:
    match ref:
        case TensorRef():
            return _stride_checkpoint_tensor(name, ref, read[whole_checkpoint_tensor_storage(ref.storage)])
        case ArrayRef():
            return _checkpoint_tensor_from_array(name, ref)
        case Opaque():
            raise CheckpointError(
                f"The tensor {name!r} is {ref.what}, expected plain numbers.",
                foreign_files.foreign_file_advice(ref.what),
            )


def _stride_checkpoint_tensor(name: str, ref: TensorRef, data: bytearray) -> torch.Tensor:
    import torch

    stored = len(data) // ITEM_BYTES[ref.dtype]
    elements = prod(ref.shape)
    last = ref.offset + sum((size - 1) * stride for size, stride in zip(ref.shape, ref.strides, strict=True))
    if elements and last >= stored:
        raise CheckpointError(
            f"The tensor {name!r} of shape {list(ref.shape)} reaches element {last} of {stored} stored ones.",
            RESAVE,
        )
    if not elements:
        return torch.empty(ref.shape, dtype=_checkpoint_tensor_dtype(ref.dtype))
    if ref.dtype == "bool":
        # Any byte but 0 and 1 in a bool tensor is undefined behaviour.
        flat = torch.frombuffer(data, dtype=torch.uint8).ne(0)
    else:
        flat = torch.frombuffer(data, dtype=_checkpoint_tensor_dtype(ref.dtype), count=stored)
    return flat.as_strided(ref.shape, ref.strides, ref.offset).contiguous()


def _checkpoint_tensor_from_array(name: str, ref: ArrayRef) -> torch.Tensor:
    import numpy as np
    import torch

    sizes_are_plain = all(type(size) is int and 0 <= size < 2**63 for size in ref.shape)
    if not ref.dtype or not sizes_are_plain or len(ref.shape) > MAX_DIMENSIONS:
        raise CheckpointError(f"The array {name!r} holds no plain numbers.", RESAVE)
    flat = np.frombuffer(ref.data, np.dtype(ref.dtype))
    if flat.size != prod(ref.shape):
        raise CheckpointError(
            f"The array {name!r} of shape {list(ref.shape)} holds {flat.size} numbers.", RESAVE
        )
    array = flat.astype(flat.dtype.newbyteorder("=")).reshape(ref.shape, order="F" if ref.fortran else "C")
    return torch.from_numpy(np.asarray(array, order="C"))


def _checkpoint_tensor_dtype(name: str) -> Any:
    import torch

    return getattr(torch, name)
