"""Several processes, a GPU each, as torchrun starts them; one process is the same with nothing to exchange.

    torchrun --nproc-per-node 2 retrain.py ...

Every process does the same steps on its share of each joint batch, and process 0 alone writes and reports.
"""

import contextlib
import os
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch import distributed as torch_distributed
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
    torch_distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        torch_distributed.destroy_process_group()


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


def summed(value: Tensor) -> Tensor:
    """Over all processes."""
    if size() > 1:
        value = value.clone()
        torch_distributed.all_reduce(value)
    return value
