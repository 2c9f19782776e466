"""Several processes, a GPU each, as torchrun starts them; one process is the same with nothing to exchange.

    torchrun --nproc-per-node 2 retrain.py ...

Every process does the same steps on its share of each joint batch, and process 0 alone writes and reports.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as torch_distributed
from torch.distributed import PrefixStore, TCPStore
from torch.nn.parallel import DistributedDataParallel


def rank() -> int:
    """The number of this process."""
    return torch_distributed.get_rank() if torch_distributed.is_initialized() else 0


def size() -> int:
    """How many processes there are."""
    return torch_distributed.get_world_size() if torch_distributed.is_initialized() else 1


def share(batch_size: int) -> slice:
    """The part of a joint batch that is for this process."""
    if batch_size % size():
        raise ValueError(f"batch_size = {batch_size}: must be a multiple of {size()}, the number of processes")
    part = batch_size // size()
    return slice(rank() * part, (rank() + 1) * part)


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Meet the other processes that torchrun started, if it did; gives the device for this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    torch_distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", **_apart())
    try:
        yield device
    finally:
        torch_distributed.destroy_process_group()


def _apart() -> dict[str, Any]:
    """Where the processes of a restart meet: torchrun keeps its store, and in it the addresses of those that are gone,
    for which the new ones would wait (pytorch issue 135712)."""
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt == "0" or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return {}
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    return {"store": PrefixStore(f"attempt {attempt}", store), "rank": int(os.environ["RANK"]),
            "world_size": int(os.environ["WORLD_SIZE"])}


def synchronized(model: nn.Module) -> nn.Module:
    """On several GPUs batch norm over the joint batch. Where torch cannot, on CPUs, each process norms its share."""
    if size() > 1 and next(model.parameters()).is_cuda:
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model


def parallel(model: nn.Module) -> nn.Module:
    """`model` with gradients that are the mean over all processes."""
    return DistributedDataParallel(model) if size() > 1 else model


def first(value: Tensor) -> Tensor:
    """That of process 0, for all processes."""
    if size() > 1:
        torch_distributed.broadcast(value, 0)
    return value


def gathered(value: Any) -> list[Any]:
    """The values of all processes, in their order; anything that can be pickled."""
    values = [value] * size()
    if size() > 1:
        torch_distributed.all_gather_object(values, value)
    return values


def summed(value: Tensor) -> Tensor:
    """Over all processes."""
    if size() > 1:
        value = value.clone()
        torch_distributed.all_reduce(value)
    return value
