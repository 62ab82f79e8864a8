"""Folders of torch.distributed.checkpoint are read whole, and nothing in them runs."""

from __future__ import annotations

import pickle
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint import state_dict_saver as dcp
from torch.distributed.checkpoint._extension import ZStandard
from torch.distributed.checkpoint.metadata import Metadata

from exporter import checkpoints
from exporter.errors import CheckpointError
from tests.checkpoints.makers import net, system, weights
from tests.checkpoints.test_kinds import note, same

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of one process: the network beside its optimiser and a counter."""
    optimizer = torch.optim.Adam(net().parameters())
    state = {"model": net().state_dict(), "optim": optimizer.state_dict(), "epoch": 3}
    dcp.save(state, checkpoint_id=tmp_path / "step-100", no_dist=True)
    return tmp_path / "step-100"


def test_a_folder_reads_as_what_was_saved(folder: Path) -> None:
    """The network's tensors come back bit for bit; the optimiser's stay where they are."""
    checkpoint = checkpoints.read_checkpoint(folder)
    assert checkpoint.kind == "distributed"
    assert same(weights(), checkpoint)
    assert note(checkpoint, "put together from 1 files of a distributed checkpoint")
    assert note(checkpoint, "weights taken from 'model'")


def test_a_bare_state_dict_in_a_folder(tmp_path: Path) -> None:
    """A state_dict saved without a key around it."""
    dcp.save(weights(), checkpoint_id=tmp_path / "bare", no_dist=True)
    assert same(weights(), checkpoints.read_checkpoint(tmp_path / "bare"))


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
def test_one_of_its_files_leads_to_the_folder(folder: Path, name: str) -> None:
    """Whoever gives one of the files is told to give the folder."""
    with pytest.raises(CheckpointError, match="one file of a distributed checkpoint") as caught:
        checkpoints.read_checkpoint(folder / name)
    assert str(folder) in caught.value.hint


def test_a_missing_rank_is_refused(folder: Path) -> None:
    """A folder without one of its files names it."""
    (folder / "__0_0.distcp").unlink()
    with pytest.raises(CheckpointError, match=r"There is no .*__0_0\.distcp\. Copy the files of all ranks"):
        checkpoints.read_checkpoint(folder)


def test_a_missing_shard_is_refused(folder: Path) -> None:
    """Values that no shard holds are never left to chance."""

    def without_one(metadata: Metadata) -> None:
        key = next(key for key in metadata.storage_data if key.fqn == "model.head.weight")
        del metadata.storage_data[key]

    edit(folder, without_one)
    with pytest.raises(CheckpointError, match=r"6 of 6 values of 'model\.head\.weight' are in none"):
        checkpoints.read_checkpoint(folder)


def test_a_shard_outside_the_folder_is_refused(folder: Path) -> None:
    """Paths that lead out of the folder are not followed."""

    def elsewhere(metadata: Metadata) -> None:
        for info in metadata.storage_data.values():
            info.relative_path = "../step-100/" + info.relative_path

    edit(folder, elsewhere)
    with pytest.raises(CheckpointError, match=r"A shard lies in '\.\./step-100"):
        checkpoints.read_checkpoint(folder)


def test_compressed_shards_are_named(folder: Path) -> None:
    """Compressed shards come with the command that makes a plain file."""

    def compressed(metadata: Metadata) -> None:
        for info in metadata.storage_data.values():
            info.transform_descriptors = [ZStandard.registry_name()]

    edit(folder, compressed)
    with pytest.raises(CheckpointError, match="are compressed") as caught:
        checkpoints.read_checkpoint(folder)
    assert "format_utils dcp_to_torch" in caught.value.hint


def test_nothing_in_a_folder_runs(folder: Path, tmp_path: Path) -> None:
    """A command in the metadata, and one in a shard, stay where they are."""
    marker = tmp_path / "ran"
    data = (folder / ".metadata").read_bytes()
    (folder / ".metadata").write_bytes(pickle.dumps(system(marker)))
    with pytest.raises(CheckpointError):
        checkpoints.read_checkpoint(folder)
    (folder / ".metadata").write_bytes(data)
    torch.save({"x": system(marker)}, folder / "__0_0.distcp")
    with pytest.raises(CheckpointError):
        checkpoints.read_checkpoint(folder)
    assert not marker.exists()


@pytest.mark.parametrize("cut", [0, 1, 100, 1000])
def test_damaged_metadata_is_refused(folder: Path, cut: int) -> None:
    """Metadata cut anywhere is no crash."""
    path = folder / ".metadata"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckpointError):
        checkpoints.read_checkpoint(folder)


def test_other_folders_are_no_checkpoint(tmp_path: Path) -> None:
    """A folder of anything else asks for the file."""
    with pytest.raises(CheckpointError, match="is a directory"):
        checkpoints.read_checkpoint(tmp_path)


def edit(folder: Path, change: Any) -> None:
    path = folder / ".metadata"
    metadata = pickle.loads(path.read_bytes())
    change(metadata)
    path.write_bytes(pickle.dumps(metadata))


@pytest.mark.slow
def test_shards_of_two_processes(tmp_path: Path) -> None:
    """What two processes of FSDP save is put together; the state_dict of one of them is named a shard."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.checkpoints.ranks", str(tmp_path), str(port)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300, capture_output=True)
    expected = torch.load(tmp_path / "whole.pt", weights_only=True)
    checkpoint = checkpoints.read_checkpoint(tmp_path / "sharded")
    assert checkpoint.tensors is not None
    assert set(checkpoint.tensors) == set(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in checkpoint.tensors.items())
    assert note(checkpoint, "put together from 2 files")
    with pytest.raises(CheckpointError, match="a shard of a distributed network"):
        checkpoints.read_checkpoint(tmp_path / "rank0.pt")
    shutil.move(tmp_path / "sharded" / "__1_0.distcp", tmp_path / "lost")
    with pytest.raises(CheckpointError, match="Copy the files of all ranks"):
        checkpoints.read_checkpoint(tmp_path / "sharded")
