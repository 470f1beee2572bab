"""Seconds of a picture on a GPU with the paper's FFHQ-256 network: eager, replayed, compiled.

    python benchmarks/gpu_speed.py [--batch 1] [--repeats 3] [--skip eager]
    python benchmarks/gpu_speed.py --batch 96 --skip eager,replayed --evaluations

The network has the shape of the authors' prior and random weights, as has the inference model;
K = 100, G = 1 and 3, M = 1, motion deblurring of 256x256. Variants take turns after one run each to
warm up (which records and compiles). Single evaluations are timed too, with their distance from
float32 and the share of the rate that the device reaches on large products in bf16.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from copy import deepcopy

import straightforward
import torch
from problems import photographs, problem
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.schedule import schedule_named
from lavps_cli.models.hdit import HDiT, HDiTConfig, layers, lower
from lavps_cli.models.hdit_layers import LevelConfig
from lavps_cli.models.inference import (
    CHANNELS_IN,
    CHANNELS_OUT,
    COND_WIDTH,
    AmortisedInference,
    InferenceNetwork,
)
from lavps_cli.models.preconditioning import PreconditionedDenoiser, hdit_denoiser
from lavps_cli.models.replayed import WARM_CALLS, replay
from lavps_cli.pipeline.placed import on_device
from lavps_cli.pipeline.sampling import rest
from lavps_cli.samplers.lavps import LavpsOptions, evaluations, lavps

SIDE, COMPARED = 256, 8
OPTIONS = LavpsOptions(num_steps=100, grad_steps_start=1, grad_steps_end=3)
VARIANTS = {
    "eager": "eager float32, line by line",
    "replayed": "bf16, replayed as CUDA graphs",
    "compiled": "the same, layers compiled",
}


def config(width: int, **more: int) -> HDiTConfig:
    """Return the shape of the authors' FFHQ-256 prior, for a width of 192."""
    of_levels = zip(
        (2, 2, 4, 2), (1, 2, 4, 8), ("neighbourhood",) * 2 + ("global",) * 2, strict=True
    )
    levels = tuple(
        LevelConfig(
            depth=d, width=m * width, d_ff=3 * m * width, d_head=min(64, width), attention=a
        )
        for d, m, a in of_levels
    )
    return HDiTConfig(levels=levels, mapping_width=4 * width, mapping_d_ff=12 * width, **more)


def networks(width: int) -> tuple[HDiT, InferenceNetwork]:
    """Return the prior's and the inference model's, with random weights."""
    prior, draw = HDiT(config(width)), torch.Generator().manual_seed(0)
    for weight in prior.parameters():
        if weight.ndim == 2 and not weight.any():
            weight.data = 0.02 * torch.randn(weight.shape, generator=draw)
    shape = {"in_channels": CHANNELS_IN, "out_channels": CHANNELS_OUT}
    inference = InferenceNetwork(config(width, mapping_cond_dim=COND_WIDTH, **shape))
    return prior.requires_grad_(False), inference.requires_grad_(False)


def models(
    variant: str, made: tuple[HDiT, InferenceNetwork], device: torch.device
) -> tuple[PreconditionedDenoiser, AmortisedInference]:
    """Return a variant of the networks on the device."""
    prior, inference = (deepcopy(network).to(device) for network in made)
    dtype, schedule = None if variant == "eager" else torch.bfloat16, schedule_named("vp")
    if dtype is not None:
        for network in (prior, inference.backbone):
            lower(network, dtype)
            replay(network, layers(network), 0 if variant == "compiled" else None)
    return hdit_denoiser(prior, schedule, dtype), AmortisedInference(inference, schedule, dtype)


def seconds(call: Callable[[], object], device: torch.device) -> float:
    rest(device)
    started = time.perf_counter()
    call()
    rest(device)
    return time.perf_counter() - started


def matrix_rate(device: torch.device) -> float:
    """Return FLOP a second of large products in bf16."""
    n = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * n**3 / statistics.median(seconds(lambda: a @ b, device) for _ in range(20))


def single(
    denoiser: PreconditionedDenoiser, batch: int, device: torch.device
) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Return an evaluation, and one with its gradient."""
    x = torch.randn(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).to(device)
    t = torch.tensor(0.3, dtype=torch.float64)

    @torch.no_grad()
    def forward() -> Tensor:
        return denoiser(x, t)

    def both() -> Tensor:
        z = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(denoiser(z, t).square().sum(), z)
        return slope

    return forward, both


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip", default="", help="variants to leave out: eager,compiled")
    parser.add_argument("--evaluations", action="store_true", help="time them only, no pictures")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    device, batch = torch.device(given.device), given.batch
    of_weights = networks(given.width)
    made = {v: models(v, of_weights, device) for v in VARIANTS if v not in given.skip.split(",")}
    _, x = next(photographs(SIDE))
    seen = problem("deblur21", x)
    y = seen.y.to(device).expand(batch, *seen.y.shape[1:])
    likelihood = Likelihood(y, on_device(seen.A, device), seen.sigma_y)

    def run(variant: str) -> Tensor:
        prior, inference = made[variant]
        loop = straightforward.lavps if variant == "eager" and batch == 1 else lavps
        return loop(
            prior, likelihood, OPTIONS,
            shape=(batch, 3, SIDE, SIDE), noise=Noise(range(batch), device), inference=inference,
        )  # fmt: skip

    times: dict[str, list[float]] = {variant: [] for variant in made}
    if not given.evaluations:
        for variant in made:
            run(variant)
        for _ in range(given.repeats):
            for variant, spent in times.items():
                spent.append(seconds(lambda: run(variant), device))  # noqa: B023
    few = min(batch, COMPARED)
    forward, both = single(models("eager", of_weights, device)[0], few, device)
    with FlopCounterMode(display=False) as counter:
        slope = both()
    value, flops, rate = forward(), counter.get_total_flops(), matrix_rate(device)
    print(f"torch {torch.__version__}, {device.type}, batch {batch}, {rate / 1e12:.0f} TFLOP/s, "
          f"{flops / few / 1e9:.0f} GFLOP an evaluation with its gradient, "
          f"{evaluations(OPTIONS, warm=True)} evaluations")  # fmt: skip
    print("| variant | s a picture | forward, ms | with gradient, ms | of the rate | distance |")
    print("|---|---|---|---|---|---|")
    for variant, (prior, _) in made.items():
        calls = single(prior, batch, device)
        for _ in range(WARM_CALLS):
            for call in calls:
                call()
        far = [
            float((c()[:few] - r).norm() / r.norm())
            for c, r in zip(calls, (value, slope), strict=True)
        ]
        of_one, of_both = (
            statistics.median(seconds(call, device) for _ in range(20)) for call in calls
        )
        taken = f"{statistics.median(times[variant]) / batch:.3f}" if times[variant] else ""
        share = flops * batch / few / of_both / rate
        print(f"| {VARIANTS[variant]} | {taken} "
              f"| {of_one * 1e3:.2f} | {of_both * 1e3:.2f} | {share:.1%} "
              f"| {far[0]:.1e}, {far[1]:.1e} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
