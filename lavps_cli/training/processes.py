"""The processes of one run, as torchrun starts them; alone, everything here does nothing."""

import gc
import os
from typing import TypeVar

import torch
from torch import distributed

from lavps_cli.errors import UsageError

T = TypeVar("T")


def join(device: torch.device) -> torch.device:
    """Join the other processes that torchrun has started, and return this one's device.

    Raises:
        UsageError: torchrun's variables are incomplete.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return device
    needed = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in needed if name not in os.environ]
    if missing:
        raise UsageError(
            f"WORLD_SIZE is set, but {', '.join(missing)} is not.",
            "Start it with:  torchrun --nproc-per-node N -m lavps_cli train ...",
        )
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def leave() -> None:
    """End the work with the other processes; nothing may hold a divided network any more."""
    if distributed.is_initialized():
        # One that leaves while another still talks to it would take that one down.
        distributed.barrier()
        distributed.destroy_process_group()
        # The last reference ends the threads of the group, which networks hold in cycles.
        gc.collect()


def abandon() -> None:
    """Leave without waiting for the others, which an error here is about to end."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def rank() -> int:
    """Return which process this is, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """Return how many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_first() -> bool:
    """Return whether this is the process that writes."""
    return rank() == 0


def gathered(value: T) -> list[T]:
    """Return the value of every process, in their order."""
    if world() == 1:
        return [value]
    values: list[T] = [value] * world()
    distributed.all_gather_object(values, value)
    return values


def agreed(value: int, device: torch.device) -> int:
    """Return the greatest value of all processes."""
    if world() == 1:
        return value
    shared = torch.tensor(value, device=device)
    distributed.all_reduce(shared, distributed.ReduceOp.MAX)
    return int(shared)


def wait() -> None:
    """Wait for all processes."""
    if world() > 1:
        distributed.barrier()
