"""The training loop: the same for the denoising loss (4) and for Algorithm 1."""

import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lavps_cli.errors import LavpsError

LossFunction = Callable[[int], tuple[Tensor, dict[str, float]]]
"""Step number -> the loss to differentiate, and numbers for the log."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What the loop needs to know."""

    num_steps: int
    max_seconds: float = float("inf")
    """The learning rate falls to zero at `num_steps` or after this time, whichever is nearer."""
    lr: float = 1e-3
    weight_decay: float = 1e-2
    warmup: int = 200
    ema: float = 0.998
    grad_clip: float = 1.0
    optimizer: str = "muon"
    """`muon` (matrices by Muon, the rest by AdamW) or `adamw`."""
    log_every: int = 50
    save_every: int = 500


def optimizers(module: nn.Module, options: TrainOptions) -> list[torch.optim.Optimizer]:
    """Return the optimisers: Muon for the matrices of the blocks, AdamW for everything else."""
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    if options.optimizer == "adamw":
        return [torch.optim.AdamW([p for _, p in named], lr=options.lr, betas=(0.9, 0.95),
                                  weight_decay=options.weight_decay, fused=True)]
    inner = ("qkv_proj", "out_proj", "up_proj", "down_proj", "merges", "splits")
    matrix = [p for name, p in named if p.ndim == 2 and any(part in name for part in inner)]
    chosen = {id(p) for p in matrix}
    rest = [p for _, p in named if id(p) not in chosen]
    return [
        torch.optim.Muon(matrix, lr=options.lr, weight_decay=options.weight_decay,
                         adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=options.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def progress(step: int, started: float, options: TrainOptions) -> float:
    """Return how far the run is, in [0, 1]."""
    by_time = (time.monotonic() - started) / options.max_seconds
    return min(1.0, max(step / options.num_steps, by_time))


def fit(module: nn.Module, loss: LossFunction, options: TrainOptions, folder: Path) -> nn.Module:
    """Train `module` and return its exponential moving average.

    Writes `metrics.jsonl` and, every `save_every` steps and at the end, `ema.safetensors`.

    Raises:
        LavpsError: The loss is not a number; the last checkpoint is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    average = copy.deepcopy(module).eval().requires_grad_(False)
    optims = optimizers(module, options)
    started, sums, step = time.monotonic(), {}, 0
    while (done := progress(step, started, options)) < 1:
        rate = options.lr * min(1, (step + 1) / options.warmup) * min(1, 1.25 * (1 - done))
        value, numbers = loss(step)
        value.backward()
        norm = nn.utils.clip_grad_norm_(module.parameters(), options.grad_clip)
        if not torch.isfinite(norm):
            raise LavpsError(
                f"the loss is not a number at step {step}.",
                f"Lower the learning rate. The last checkpoint is in {folder}.",
            )
        for optim in optims:
            for group in optim.param_groups:
                group["lr"] = rate
            optim.step()
            optim.zero_grad()
        step += 1
        update_average(average, module, min(options.ema, (1 + step) / (10 + step)))
        for name, number in (numbers | {"loss": float(value.detach()), "norm": float(norm)}).items():
            sums.setdefault(name, []).append(number)
        if step % options.log_every == 0:
            line = {name: sum(values) / len(values) for name, values in sums.items()}
            line |= {"step": step, "seconds": time.monotonic() - started}
            with (folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            sums = {}
        if step % options.save_every == 0:
            save_average(average, folder)
    save_average(average, folder)
    return average


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Move the average towards the module: average <- decay average + (1 - decay) module."""
    torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), 1 - decay)


def save_average(average: nn.Module, folder: Path) -> None:
    part = folder / ".ema.safetensors.part"
    save_file(average.state_dict(), part)
    part.replace(folder / "ema.safetensors")
