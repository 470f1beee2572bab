"""The posterior of one picture: samples in batches that fit into memory."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from lavps_cli.core.types import Image
from lavps_cli.errors import DeviceError
from lavps_cli.models.replayed import forget
from lavps_cli.pipeline.available import available, peak
from lavps_cli.pipeline.memory import Need, gib, needed, told, too_large
from lavps_cli.pipeline.model import Tiling, Weights
from lavps_cli.pipeline.problem import Observation
from lavps_cli.pipeline.requests import Sampling
from lavps_cli.pipeline.sampling import draw
from lavps_cli.pipeline.seeds import derive_seed

_BATCH_PIXELS = {"cpu": 1 << 18, "cuda": 1 << 22}
_SMALLEST_TILE = 64
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(frozen=True, eq=False, kw_only=True)
class Posterior:
    """Samples of one picture's posterior, on the CPU."""

    x: Image
    nfe: list[int]
    """Per sample, as are those below."""
    nbe: list[int]
    accepted: list[int]
    offered: int
    tile: int
    oom_retries: int
    peak_memory: int
    """In bytes, of the device since it was begun, or of this process so far."""


@dataclass(frozen=True)
class Provision:
    """How a posterior is sampled: what is held at once, and what that takes."""

    batch: int
    tiling: Tiling
    need: Need
    free: int | None
    """What may be taken, in bytes; None where nothing tells."""

    @property
    def fits(self) -> bool:
        return self.free is None or self.need.bytes <= self.free

    @property
    def told(self) -> str:
        """Say what it takes, and what there is."""
        return told(self.need, self.free)


def silent(text: str) -> None:
    """Tell nobody."""


def provide(
    seen: Observation,
    weights: Weights,
    tiling: Tiling,
    sampling: Sampling,
    options: Any,
    batch: int | None = None,
) -> Provision:
    """Return how samples are drawn in the memory that there is: smaller batches, then windows.

    Where nothing fits, it is the smallest.

    Args:
        seen: What is known of the picture.
        weights: Networks and their device.
        tiling: How the networks are to see the picture.
        sampling: Method, seed and number of samples, as asked.
        options: The method's own.
        batch: Samples drawn together; None chooses.
    """
    height, width = seen.shape
    if batch is None:
        batch = max(1, _BATCH_PIXELS.get(weights.device.type, 1 << 20) // (height * width))
    batch, free = min(batch, sampling.samples), available(weights.device)
    while True:
        need = needed(
            seen, weights, tiling, sampling.method, options, batch=batch, samples=sampling.samples
        )
        plan = Provision(batch, tiling, need, free)
        smaller = None if plan.fits else _smaller(batch, tiling, height, width, weights)
        if smaller is None:
            return plan
        batch, tiling = smaller


def sample_posterior(
    seen: Observation,
    weights: Weights,
    tiling: Tiling,
    sampling: Sampling,
    options: Any,
    *,
    batch: int | None = None,
    on_step: Callable[[int, int], None] | None = None,
    warn: Callable[[str], None] = silent,
    most: dict[tuple[int, int], tuple[int, Tiling]] | None = None,
) -> Posterior:
    """Return samples; sample i depends on the seed and i, not on the others or the batches.

    Where memory would not suffice, and where it runs out, batches are halved, then windows.

    Args:
        seen: What is known of the picture.
        weights: Networks and their device.
        tiling: How the networks see the picture.
        sampling: Method, seed and number of samples, as asked.
        options: The method's own, from `sampler_options`.
        batch: Samples drawn together; None chooses.
        on_step: Told steps done and their number.
        warn: Told what is done for want of memory.
        most: By shape, the samples and the windows that memory was found to suffice for: what is
            learnt here is kept there, so that the next picture need not run out again.

    Raises:
        DeviceError: Memory would not suffice, or runs out, at the smallest.
    """
    most = {} if most is None else most
    if seen.shape in most:
        fewer, tiling = most[seen.shape]
        batch = min(fewer, batch or fewer)
    first = tiling
    plan = provide(seen, weights, tiling, sampling, options, batch)
    batch, tiling, retries = plan.batch, plan.tiling, 0
    if not plan.fits:
        assert plan.free is not None
        if plan.need.certain:
            raise too_large(plan.need, plan.free, seen, sampling.method)
        warn(f"it {plan.told}; it may not fit.")
    if tiling != first:
        warn(f"windows of {tiling.tile}x{tiling.tile} pixels, to fit into {gib(plan.free or 0)}.")
    if weights.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(weights.device)
    height, width = seen.shape
    while True:
        try:
            return _sample(seen, weights, tiling, sampling, options, batch, retries, on_step)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            smaller = _smaller(batch, tiling, height, width, weights)
            if smaller is None:
                where = f"{tiling.tile}x{tiling.tile} tiles" if tiling.tile else f"{width}x{height}"
                raise DeviceError(
                    f"out of memory at {where} on {weights.device}: it {plan.told}.",
                    "Try:  --device cpu   or a smaller picture",
                ) from error
            batch, tiling = most[seen.shape] = smaller
            retries += 1
            warn(f"out of memory; it goes on with {_size_told(batch, tiling)}.")
        let_go(weights.device)


def _smaller(
    batch: int, tiling: Tiling, height: int, width: int, weights: Weights
) -> tuple[int, Tiling] | None:
    if batch > 1:
        return batch // 2, tiling
    if not weights.config.get("local"):
        return None
    side = tiling.tile or 2 ** math.ceil(math.log2(max(height, width)))
    tile = side // 2
    return (1, Tiling(tile, tile // 4)) if tile >= _SMALLEST_TILE else None


def _size_told(batch: int, tiling: Tiling) -> str:
    if batch > 1 or tiling.tile == 0:
        return f"{batch} at once"
    return f"windows of {tiling.tile}x{tiling.tile} pixels"


def let_go(device: torch.device) -> None:
    """Give a device that has run out of memory back what is not in use, recorded graphs too."""
    if device.type == "cuda":
        forget()
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of any device means that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return any(part in text for part in _NO_MEMORY)


def _sample(
    seen: Observation,
    weights: Weights,
    tiling: Tiling,
    sampling: Sampling,
    options: Any,
    batch: int,
    retries: int,
    on_step: Callable[[int, int], None] | None,
) -> Posterior:
    model, device = weights.model(tiling), weights.device
    likelihood = seen.likelihood(seen.y.to(device))
    starts = range(0, sampling.samples, batch)
    parts = []
    for number, start in enumerate(starts):
        indices = range(start, min(start + batch, sampling.samples))

        def step(done: int, total: int, number: int = number) -> None:
            if on_step is not None:
                on_step(number * total + done, len(starts) * total)

        parts.append(
            draw(
                model,
                likelihood,
                options,
                method=sampling.method,
                shape=(3, *seen.shape),
                seeds=[derive_seed(sampling.seed, "sample", i) for i in indices],
                coarse=sampling.coarse,
                on_step=step,
            )
        )
    x = torch.cat([part.x.cpu() for part in parts])
    return Posterior(
        x=x,
        nfe=[part.nfe for part in parts for _ in part.x],
        nbe=[part.nbe for part in parts for _ in part.x],
        accepted=[count for part in parts for count in part.accepted],
        offered=parts[0].offered,
        tile=tiling.tile,
        oom_retries=retries,
        peak_memory=peak(device),
    )


def residuals(seen: Observation, x: Image) -> list[float]:
    """Return the root mean square of A(x) - y over what is measured, per picture."""
    if seen.is_grey:
        x = x.mean(1, keepdim=True)
    difference = seen.A(x) - seen.y
    share = 1.0
    if seen.degradation.mask is not None:
        share = float(seen.degradation.mask.values.mean())
    return [float(row.square().mean() / share) ** 0.5 for row in difference]
