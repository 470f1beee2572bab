"""What a training would take: a dry run of `lavps train`."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch

from lavps_cli.core.types import Image
from lavps_cli.pipeline.stages.stage import Setup
from lavps_cli.pipeline.train_settings import parse_duration
from lavps_cli.pipeline.train_setup import objective_of
from lavps_cli.training.rows import Batches


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a training would take; measured by a few steps on noise."""

    parameters: int
    steps: int
    pictures_per_second: float
    hours: float
    memory_mib: int

    @property
    def told(self) -> dict[str, Any]:
        return {"type": "plan", "status": "planned"} | asdict(self)

    @property
    def text(self) -> str:
        return (
            f"{self.parameters / 1e6:.1f} M parameters, {self.steps} steps at "
            f"{self.pictures_per_second:.1f} pictures a second: {self.hours:.1f} h, "
            f"{self.memory_mib} MiB"
        )


@dataclass(frozen=True)
class _Static:
    """Pictures of noise, to time a step with."""

    size: int

    def batch(self, first: int, count: int, seed: int) -> Image:
        generator = torch.Generator().manual_seed(first)
        return torch.randn(count, 3, self.size, self.size, generator=generator).clamp(-1, 1)


def estimate(setup: Setup) -> Estimate:
    """Return what the training takes, from its second and third turn of sizes.

    With one family: the first step of each draws new trajectories, which is rare later on.
    """
    request = setup.request
    turn, parts = len(setup.sizes), len(setup.rows)
    pictures: dict[int, Batches] = {size: _Static(size) for size in set(setup.sizes)}
    started = 0.0
    with objective_of(setup, pictures, 1) as objective:
        for step in range(3 * turn):
            if step == turn:
                started = time.perf_counter()
            for part in range(parts):
                objective.loss(step + 1, part)[0].backward()  # type: ignore[no-untyped-call]
            setup.network.zero_grad()
        if setup.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - started) / (2 * turn)
    wanted, duration = parse_duration(request.duration, request.batch_size)
    steps = wanted or round(duration / seconds)
    return Estimate(
        parameters=sum(p.numel() for p in setup.network.parameters()),
        steps=steps,
        pictures_per_second=request.batch_size / seconds,
        hours=steps * seconds / 3600,
        memory_mib=_memory(setup) >> 20,
    )


def _memory(setup: Setup) -> int:
    """Return the greatest memory so far in bytes, and that of the optimiser and the average."""
    import resource

    parameters = sum(4 * p.numel() for p in setup.network.parameters())
    if setup.device.type == "cuda":
        return torch.cuda.max_memory_allocated() + 3 * parameters
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + 3 * parameters
