"""Optimisers, their rate, and the moving average of the weights."""

import torch
from torch import nn

from lavps_cli.catalog import OptimizerName
from lavps_cli.training.muon import Muon

MATRICES = ("qkv_proj", "out_proj", "up_proj", "down_proj", "merges", "splits")


def optimizers(
    module: nn.Module, name: OptimizerName, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """Return the optimisers; all take the same rate, Muon's steps scaled to the size of AdamW's.

    `muon` and `auto` serve the matrices of the blocks by Muon, the rest by AdamW; `adamw` serves
    everything.
    """
    muon = name != "adamw"
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for key, parameter in module.named_parameters():
        inner = parameter.ndim == 2 and any(part in key for part in MATRICES)
        (matrices if inner and muon else rest).append(parameter)
    chosen: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=weight_decay, fused=True)
    ]
    if matrices:
        chosen.append(Muon(matrices, weight_decay=weight_decay))
    return chosen


def rate(step: int, done: float, lr: float, warmup: int) -> float:
    """Return the learning rate: linear warm-up, a plateau, and a linear fall to zero.

    Args:
        step: Steps taken.
        done: Share of the training that is done; the fall begins at 0.2.
        lr: Greatest rate.
        warmup: Steps of the warm-up.
    """
    return lr * min(1, (step + 1) / max(warmup, 1)) * max(0.0, min(1, 1.25 * (1 - done)))


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Move the average: average <- decay average + (1 - decay) module."""
    torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), 1 - decay)
