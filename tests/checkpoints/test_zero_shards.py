"""Folders of DeepSpeed are read whole: float32 weights come from the optimiser shards of all ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from exporter import checkpoints
from exporter.errors import CheckpointError
from tests.checkpoints.makers import system

Shapes = dict[str, torch.Size]


class Tied(nn.Module):
    """Two groups of parameters of odd sizes, a tied weight, a buffer and a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(7, 5)
        self.body = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3), nn.Linear(3, 5))
        self.frozen = nn.Linear(3, 3)
        self.head = nn.Linear(5, 7, bias=False)
        self.head.weight = self.embed.weight


def padded(row: torch.Tensor, multiple: int) -> torch.Tensor:
    return nn.functional.pad(row, (0, -len(row) % multiple))


def trained_groups(net: nn.Module) -> list[dict[str, torch.Tensor]]:
    """Return the trained parameters: matrices, then the others, as weight decay groups them."""
    named = {name: p.detach() for name, p in net.named_parameters() if not name.startswith("frozen")}
    groups = [{n: p for n, p in named.items() if (p.dim() > 1) == matrices} for matrices in (True, False)]
    return [group for group in groups if group]


def write_zero(folder: Path, stage: int, ranks: int, net: nn.Module | None = None, **more: Any) -> nn.Module:
    """Write what DeepSpeed writes for a network trained in bfloat16 on so many ranks."""
    net = net or Tied()
    groups = trained_groups(net)
    folder.mkdir(parents=True, exist_ok=True)
    shapes = [{name: tensor.shape for name, tensor in group.items()} for group in groups]
    frozen = {name: p.detach() for name, p in net.named_parameters() if name.startswith("frozen")}
    half = {
        name: tensor.bfloat16() for name, tensor in net.state_dict().items() if tensor.is_floating_point()
    }
    half["head.weight"] = half["embed.weight"]
    for rank in range(ranks):
        if stage == 3:
            parts = [torch.cat([shard(p, ranks)[rank] for p in group.values()]) for group in groups]
            rows, key = parts, "fp32_flat_groups"
        else:
            whole = [padded(torch.cat([p.flatten() for p in g.values()]), 2 * ranks) for g in groups]
            rows, key = [row.chunk(ranks)[rank].clone() for row in whole], "single_partition_of_fp32_groups"
        state = {"zero_stage": stage, "partition_count": ranks, key: rows, "base_optimizer_state": {}}
        torch.save(
            {"optimizer_state_dict": state, "ds_version": "0.17"},
            folder / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt",
        )
        fragments = {n: shard(p, ranks)[rank] if stage == 3 else p for n, p in frozen.items()}
        record = {
            "module": {n: torch.empty(0) if stage == 3 else t for n, t in half.items()},
            "buffer_names": [name for name, _ in net.named_buffers()],
            "param_shapes": shapes,
            "frozen_param_shapes": {name: p.shape for name, p in frozen.items()},
            "frozen_param_fragments": fragments,
            "shared_params": {"head.weight": "embed.weight"},
            "ds_version": "0.17",
            **more,
        }
        record["module"] |= dict(net.named_buffers())
        name = f"zero_pp_rank_{rank}_mp_rank_00" if stage == 3 else "mp_rank_00"
        torch.save(record, folder / f"{name}_model_states.pt")
    return net


def shard(tensor: torch.Tensor, ranks: int) -> tuple[torch.Tensor, ...]:
    return tuple(part.clone() for part in padded(tensor.flatten(), ranks).chunk(ranks))


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_float32_weights_come_back_bit_for_bit(stage: int, ranks: int, tmp_path: Path) -> None:
    """Nothing is rounded to the type that training computed with; tied and frozen weights are there, too."""
    net = write_zero(tmp_path / "global_step7", stage, ranks)
    checkpoint = checkpoints.read_checkpoint(tmp_path / "global_step7")
    assert checkpoint.tensors is not None
    assert set(checkpoint.tensors) == set(net.state_dict())
    for name, tensor in net.state_dict().items():
        assert torch.equal(checkpoint.tensors[name], tensor), name
    net.load_state_dict(dict(checkpoint.tensors))
    assert any(f"of {ranks} rank" in note and f"(ZeRO {stage})" in note for note in checkpoint.notes)


def test_ranks_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Rank 10 comes after rank 9, and not after rank 1."""
    net = write_zero(tmp_path / "step", 2, 12)
    checkpoint = checkpoints.read_checkpoint(tmp_path / "step")
    assert checkpoint.tensors is not None
    assert torch.equal(checkpoint.tensors["embed.weight"], net.state_dict()["embed.weight"])


def test_the_folder_of_all_steps_has_its_latest(tmp_path: Path) -> None:
    """The file `latest` names the step; one that leads outside is not followed."""
    write_zero(tmp_path / "run/global_step7", 2, 2)
    with pytest.raises(CheckpointError):
        checkpoints.read_checkpoint(tmp_path / "run")
    (tmp_path / "run/latest").write_text("global_step7\n")
    assert checkpoints.is_folder(tmp_path / "run")
    assert checkpoints.read_checkpoint(tmp_path / "run").tensors
    (tmp_path / "other").mkdir()
    (tmp_path / "other/latest").write_text("../run/global_step7")
    assert not checkpoints.is_folder(tmp_path / "other")


def test_a_folder_of_transformers_without_weights_has_its_shards(tmp_path: Path) -> None:
    """The trainer leaves a config.json beside the step's folder; its settings stay with the weights."""
    net = write_zero(tmp_path / "checkpoint-7/global_step7", 3, 2)
    (tmp_path / "checkpoint-7/latest").write_text("global_step7")
    (tmp_path / "checkpoint-7/config.json").write_text(json.dumps({"model_type": "bert"}))
    checkpoint = checkpoints.read_checkpoint(tmp_path / "checkpoint-7")
    assert checkpoint.kind == "pretrained"
    assert checkpoint.tensors is not None
    assert torch.equal(checkpoint.tensors["embed.weight"], net.state_dict()["embed.weight"])


@pytest.mark.parametrize(
    "name", ["bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt"]
)
def test_one_of_its_files_leads_to_the_folder(name: str, tmp_path: Path) -> None:
    """Whoever gives one rank's file is told to give the folder."""
    write_zero(tmp_path / "step", 3, 2)
    with pytest.raises(CheckpointError, match="one rank's shard") as caught:
        checkpoints.read_checkpoint(tmp_path / "step" / name)
    assert str(tmp_path / "step") in caught.value.hint


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_missing_rank_is_refused(rank: int, stage: int, tmp_path: Path) -> None:
    """Values of a rank that is not there are never left to chance, the last one's neither."""
    write_zero(tmp_path / "step", stage, 3)
    (tmp_path / f"step/bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").unlink()
    with pytest.raises(CheckpointError, match=f"has no shard of rank {rank}"):
        checkpoints.read_checkpoint(tmp_path / "step")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"param_shapes": [{"embed.weight": torch.Size([7, 5])}]}, "groups of parameters"),
        ({"param_shapes": [{"a": torch.Size([7, 5])}, {"b": torch.Size([3])}]}, "that no parameter explains"),
        ({"param_shapes": [{"a": torch.Size([70, 5])}, {"b": torch.Size([3])}]}, "of the 350 values of 'a'"),
        ({"param_shapes": "none"}, "groups of parameters|how the parameters lie"),
    ],
)
def test_shards_that_the_description_does_not_fit_are_refused(
    more: dict[str, Any], words: str, tmp_path: Path
) -> None:
    """The order of values in a row is known from the shapes alone."""
    write_zero(tmp_path / "step", 2, 2, **more)
    with pytest.raises(CheckpointError, match=words):
        checkpoints.read_checkpoint(tmp_path / "step")


def test_a_network_split_over_ranks_is_named(tmp_path: Path) -> None:
    """Model parallel training has parts of each layer in several files."""
    write_zero(tmp_path / "step", 2, 1)
    (tmp_path / "step/zero_pp_rank_0_mp_rank_01_optim_states.pt").touch()
    with pytest.raises(CheckpointError, match="itself split over ranks"):
        checkpoints.read_checkpoint(tmp_path / "step")


def test_nothing_in_the_files_runs(tmp_path: Path) -> None:
    """A class of DeepSpeed's, or an attack in its place, stays an inert record."""
    write_zero(tmp_path / "step", 2, 1, lr_scheduler=system(tmp_path / "ran"))
    assert checkpoints.read_checkpoint(tmp_path / "step").tensors
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "step/mp_rank_00_model_states.pt", weights_only=False)
    assert (tmp_path / "ran").exists()  # where it is unpickled, it does run
