"""Pictures that pose problems of one kind and size, sampled as one batch."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lavps_cli.core.operator import Operator
from lavps_cli.errors import LavpsError
from lavps_cli.pipeline.available import available, peak
from lavps_cli.pipeline.memory import needed
from lavps_cli.pipeline.model import Tiling, Weights
from lavps_cli.pipeline.problem import Observation
from lavps_cli.pipeline.requests import Sampling
from lavps_cli.pipeline.run import Posterior, is_out_of_memory, let_go, silent
from lavps_cli.pipeline.sampling import draw
from lavps_cli.pipeline.seeds import derive_seed

_AUTO_PIXELS = {"cuda": 1 << 22, "xpu": 1 << 20, "mps": 1 << 20}
"""Not on CPUs: results stay the same bit for bit, whatever was done before (`--batch-size`)."""
_MOST = 64


def group_size(seen: Observation, weights: Weights, sampling: Sampling, given: int | None) -> int:
    """Return with how many others a picture may be sampled, itself included."""
    if sampling.samples > 1:
        return 1  # Its samples are a batch already.
    if given is not None:
        return given
    height, width = seen.shape
    return max(1, min(_MOST, _AUTO_PIXELS.get(weights.device.type, 0) // (height * width)))


def fit_together(a: Observation, b: Observation) -> bool:
    """Return whether two pictures differ in nothing but what was observed."""
    same = (a.shape, a.sigma_y, a.peak, a.y.shape) == (b.shape, b.sigma_y, b.peak, b.y.shape)
    return same and a.degradation.task == b.degradation.task and _same(a.A, b.A)


def _same(a: Operator, b: Operator) -> bool:
    if type(a) is not type(b) or vars(a).keys() != vars(b).keys():
        return False
    return all(_equal(value, vars(b)[name]) for name, value in vars(a).items())


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, Operator):
        return isinstance(b, Operator) and _same(a, b)
    return bool(a == b)


def sample_together(
    seen: Sequence[Observation],
    weights: Weights,
    tiling: Tiling,
    sampling: Sampling,
    options: Any,
    on_step: Callable[[int, int], None] | None = None,
    warn: Callable[[str], None] = silent,
    *,
    most: dict[tuple[int, int], int] | None = None,
    oom_retries: int = 0,
) -> list[Posterior | None]:
    """Return one sample of each picture; those that `fit_together`.

    Each picture has its own generator, and gets what it would alone, up to rounding. Where memory
    would not suffice or runs out, half of them are sampled at a time. None where that fails, for
    want of memory or for one of them: it is to be sampled by itself.

    Args:
        seen: The pictures' problems.
        weights: Networks and their device.
        tiling: How the networks see the pictures.
        sampling: Method and seed, as asked.
        options: The method's own.
        on_step: Told steps done and their number.
        warn: Told what is done for want of memory.
        most: By shape, how many pictures memory lets be sampled at once, as far as it is known:
            what is learnt here is kept there, so that the next ones need not run out again.
        oom_retries: How often memory ran out already.
    """
    if len(seen) == 1:
        return [None]
    most = {} if most is None else most
    shape, half = seen[0].shape, (len(seen) + 1) // 2
    at_once, ran_out = len(seen) <= most.get(shape, len(seen)), False
    if at_once and not _would_fit(seen, weights, tiling, sampling, options):
        at_once, most[shape] = False, half
        warn(f"{len(seen)} pictures at once would not fit into the memory; {half} are tried.")
        if weights.device.type == "cuda":
            torch.cuda.empty_cache()
    if at_once:
        try:
            return [*_all_at_once(seen, weights, tiling, sampling, options, oom_retries, on_step)]
        except LavpsError:
            pass  # One of them cannot be restored; the others can.
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            ran_out = True
    if ran_out:  # Here, where nothing holds on to what has failed.
        most[shape] = half
        warn(f"out of memory; it goes on with {half} at once.")
        let_go(weights.device)
    return [
        each
        for part in (seen[:half], seen[half:])
        for each in sample_together(
            part, weights, tiling, sampling, options, on_step, warn,
            most=most, oom_retries=oom_retries + ran_out,
        )
    ]  # fmt: skip


def _would_fit(
    seen: Sequence[Observation], weights: Weights, tiling: Tiling, sampling: Sampling, options: Any
) -> bool:
    count, free = len(seen), available(weights.device)
    need = needed(seen[0], weights, tiling, sampling.method, options, batch=count, samples=count)
    return free is None or need.bytes <= free


def _all_at_once(
    seen: Sequence[Observation],
    weights: Weights,
    tiling: Tiling,
    sampling: Sampling,
    options: Any,
    oom_retries: int,
    on_step: Callable[[int, int], None] | None,
) -> list[Posterior]:
    alone = derive_seed(sampling.seed, "sample", 0)
    y = torch.cat([each.y for each in seen])
    drawn = draw(
        weights.model(tiling),
        seen[0].likelihood(y.to(weights.device)),
        options,
        method=sampling.method,
        shape=(3, *seen[0].shape),
        seeds=[alone] * len(seen),
        coarse=sampling.coarse,
        on_step=on_step,
    )
    x, memory = drawn.x.cpu(), peak(weights.device)
    return [
        Posterior(
            x=x[i : i + 1],
            nfe=[drawn.nfe],
            nbe=[drawn.nbe],
            accepted=[drawn.accepted[i]],
            offered=drawn.offered,
            tile=tiling.tile,
            oom_retries=oom_retries,
            peak_memory=memory,
        )
        for i in range(len(seen))
    ]
