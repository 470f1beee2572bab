"""The training loop: the same for the denoising loss (4) and for Algorithm 1."""

import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from safetensors.torch import save as serialise
from torch import Tensor, nn

from lavps_cli.errors import LavpsError

LossFunction: TypeAlias = Callable[[int], tuple[Tensor, dict[str, float]]]
"""Step number -> the loss to differentiate, and numbers for the log."""

MATRICES = ("qkv_proj", "out_proj", "up_proj", "down_proj", "merges", "splits")


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What the loop needs to know."""

    num_steps: int
    max_seconds: float = float("inf")
    """The rate falls to zero towards `num_steps` or this time, whichever comes first."""
    lr: float = 2e-3
    weight_decay: float = 1e-2
    warmup: int = 200
    """Steps over which the rate rises."""
    ema: float = 0.998
    """Decay of the average of the weights, per step."""
    grad_clip: float = 1.0
    """Greatest norm of the gradient."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """`muon` for the matrices of the blocks and AdamW for the rest, or AdamW for everything."""
    log_every: int = 50
    save_every: int = 250


def optimizers(module: nn.Module, options: TrainOptions) -> list[torch.optim.Optimizer]:
    """Return the optimisers; all take the same rate, Muon's steps scaled to the size of AdamW's."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        inner = parameter.ndim == 2 and any(part in name for part in MATRICES)
        (matrices if inner and options.optimizer == "muon" else rest).append(parameter)
    chosen: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=options.weight_decay, fused=True)
    ]
    if matrices:
        chosen.append(
            torch.optim.Muon(
                matrices, weight_decay=options.weight_decay, adjust_lr_fn="match_rms_adamw"
            )
        )
    return chosen


def rate(step: int, done: float, options: TrainOptions) -> float:
    """Return the learning rate: linear warm-up, a plateau, and a linear fall to zero."""
    return options.lr * min(1, (step + 1) / options.warmup) * min(1, 1.25 * (1 - done))


def fit(module: nn.Module, loss: LossFunction, options: TrainOptions, folder: Path) -> nn.Module:
    """Train `module` and return the moving average of its weights.

    Writes `metrics.jsonl` and, every `save_every` steps and at the end, `ema.safetensors`.

    Raises:
        LavpsError: The gradient is not a number; the last checkpoint is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    average = copy.deepcopy(module).eval().requires_grad_(False)
    optims = optimizers(module, options)
    log = _Log(folder / "metrics.jsonl")
    started, step, done = time.monotonic(), 0, 0.0
    while done < 1:
        value, numbers = loss(step)
        value.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(module.parameters(), options.grad_clip)
        if not torch.isfinite(norm):
            raise LavpsError(
                f"the gradient is not a number at step {step}.",
                f"Lower the learning rate. The last checkpoint is in {folder}.",
            )
        for optim in optims:
            for group in optim.param_groups:
                group["lr"] = rate(step, done, options)
            optim.step()
            optim.zero_grad()
        step += 1
        seconds = time.monotonic() - started
        done = max(step / options.num_steps, seconds / options.max_seconds)
        update_average(average, module, min(options.ema, (1 + step) / (10 + step)))
        log.add(numbers | {"loss": float(value.detach()), "norm": float(norm)})
        if step % options.log_every == 0:
            log.write({"step": step, "seconds": seconds})
        if step % options.save_every == 0 or done >= 1:
            save_average(average, folder)
    return average


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Move the average: average <- decay average + (1 - decay) module."""
    for mean, parameter in zip(average.parameters(), module.parameters(), strict=True):
        mean.lerp_(parameter, 1 - decay)


def save_average(average: nn.Module, folder: Path) -> None:
    """Write the weights so that the file is whole or absent."""
    part = folder / ".ema.safetensors.part"
    part.write_bytes(serialise(average.state_dict()))
    part.replace(folder / "ema.safetensors")


class _Log:
    """Means of numbers between two lines of a JSON-lines file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._values: dict[str, list[float]] = {}

    def add(self, numbers: dict[str, float]) -> None:
        for name, number in numbers.items():
            self._values.setdefault(name, []).append(number)

    def write(self, head: dict[str, int | float]) -> None:
        means = {name: sum(values) / len(values) for name, values in self._values.items()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(head | means) + "\n")
        self._values = {}
