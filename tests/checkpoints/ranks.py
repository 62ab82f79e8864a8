"""Two processes that train one network together and save its shards: run by `test_distributed`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import distributed
from torch.distributed.checkpoint import state_dict_saver
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing.spawn import spawn

from tests.checkpoints.makers import Net

RANKS = 2


def save(rank: int, folder: Path, port: int) -> None:
    """One process: shard the network, and save its part; the first saves the whole network before."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    distributed.init_process_group("gloo", rank=rank, world_size=RANKS)
    torch.manual_seed(0)
    net = Net()
    if rank == 0:
        torch.save(net.state_dict(), folder / "whole.pt")
    fully_shard(net, mesh=init_device_mesh("cpu", (RANKS,)))
    state_dict_saver.save({"app": {"model": net.state_dict(), "step": 3}}, checkpoint_id=folder / "sharded")
    torch.save(net.state_dict(), folder / f"rank{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    spawn(save, (Path(sys.argv[1]), int(sys.argv[2])), nprocs=RANKS)  # type: ignore[no-untyped-call]
