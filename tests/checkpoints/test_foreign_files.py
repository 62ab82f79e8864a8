"""Files of training and quantisation libraries are named for what they are, with the way to a plain one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from exporter import checkpoints
from exporter.architectures import build_architecture
from exporter.errors import ArchitectureError, CheckpointError
from exporter.records import TensorSpec
from tests.checkpoints.makers import Net, weights

ROWS = torch.ones(2, 2)


def refusal(tmp_path: Path, state: Any) -> str:
    """Why reading the file fails."""
    torch.save(state, tmp_path / "file.pt")
    with pytest.raises(CheckpointError) as caught:
        checkpoints.read_checkpoint(tmp_path / "file.pt")
    return str(caught.value)


FOREIGN = {
    "adapter": ("base_model.model.layer.lora_A.weight", "a LoRA adapter", "merge_and_unload"),
    "whole PEFT": ("layer.lora_B.default.weight", "a LoRA adapter", "merge_and_unload"),
    "kohya": ("unet_block.lora_down.weight", "a LoRA adapter", "merge_and_unload"),
    "FSDP": ("_fsdp_wrapped_module._flat_param", "flattened parameters of FSDP", "full_state_dict=True"),
    "nf4": ("fc.weight.quant_state.bitsandbytes__nf4", "bitsandbytes", "dequantize"),
    "GPTQ": ("fc.qweight", "GPTQ or AWQ", "before quantisation"),
    "PyTorch's": ("fc._packed_params.dtype", "already quantised", "before `convert`"),
    "fused QAT": ("fc.weight_fake_quant.scale", "quantisation-aware training", "prepare_qat"),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("arch", [None, "tests.checkpoints.makers:Net", "torchvision/resnet18"])
def test_foreign_files_are_named(tmp_path: Path, kind: str, arch: str | None) -> None:
    """What the file is and the command that makes a plain one, whether a network is named or not."""
    name, title, advice = FOREIGN[kind]
    torch.save({name: ROWS, "fc.other": ROWS}, tmp_path / "file.pt")
    with pytest.raises(ArchitectureError) as caught:
        build_architecture(
            checkpoints.read_checkpoint(tmp_path / "file.pt"),
            arch=arch,
            input_shapes=(TensorSpec("", (1, 1, 6, 6)),),
        )
    if kind != "fused QAT" or arch is None:
        assert title in caught.value.message
        assert advice in caught.value.hint
    assert "--arch mypkg" not in caught.value.hint


class Adapted(nn.Module):
    """A network that has such names itself."""

    def __init__(self) -> None:
        super().__init__()
        self.lora_A = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lora_A(x)  # type: ignore[no-any-return]


def test_a_networks_own_names_are_its_own(tmp_path: Path) -> None:
    """Nothing is refused for its names where a network takes them."""
    torch.save(Adapted().state_dict(), tmp_path / "file.pt")
    model = build_architecture(
        checkpoints.read_checkpoint(tmp_path / "file.pt"),
        arch="tests.checkpoints.test_foreign_files:Adapted",
        input_shapes=(TensorSpec("", (1, 2)),),
    )
    assert model.parameters == 6


def test_torchao_is_named(tmp_path: Path) -> None:
    """A tensor of torchao's says so, with how to make it plain."""
    quantization = pytest.importorskip("torchao.quantization")
    net = nn.Sequential(nn.Linear(64, 64))
    quantization.quantize_(net, quantization.Int8WeightOnlyConfig())
    words = refusal(tmp_path, net.state_dict())
    assert "quantised by torchao (Int8Tensor)" in words
    assert "v.dequantize()" in words


def test_quantised_and_sparse_tensors_are_named(tmp_path: Path) -> None:
    """PyTorch's own quantised and sparse tensors, each with its own way out."""
    quantised = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    assert "before quantisation" in refusal(tmp_path, {"a.w": quantised})
    assert "to_dense()" in refusal(tmp_path, {"a.w": torch.eye(2).to_sparse()})


SETTINGS = {"ds_version": "0.17", "ds_config": {"zero_optimization": {"stage": 3}}}


def test_zero_3_is_named(tmp_path: Path) -> None:
    """A file whose tensors are empty because ZeRO keeps them elsewhere, and a shard of the optimiser."""
    hollow = {name: torch.empty(0) for name in weights()}
    words = refusal(tmp_path, {"module": hollow, "param_shapes": [{}], **SETTINGS})
    assert "ZeRO 3" in words
    assert "Give the folder with the files of all ranks" in words
    shard = {"optimizer_state_dict": {"zero_stage": 3, "fp32_flat_groups": [ROWS]}, **SETTINGS}
    assert "a shard of DeepSpeed's optimiser" in refusal(tmp_path, shard)


def test_zero_2_is_read_with_a_note(tmp_path: Path) -> None:
    """A whole network in DeepSpeed's file is read; its float32 weights are elsewhere, and it is said."""
    torch.save({"module": Net().half().state_dict(), **SETTINGS}, tmp_path / "file.pt")
    checkpoint = checkpoints.read_checkpoint(tmp_path / "file.pt")
    assert any("Give the folder with the files of all ranks" in note for note in checkpoint.notes)
    assert any("stored as float16" in note for note in checkpoint.notes)
