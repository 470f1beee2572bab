"""DPS and DiffPIR beside those of deepinv: same prior, operators, observations, in turns.

    pip install deepinv==0.5.0        # not a dependency of lavps
    python benchmarks/deepinv_peers.py FACES [--pictures 8] [--seeds 2] [--dps-steps 50]

FACES holds 00000.jpg and so on at 128x128, reduced 2:1 here; the prior is ffhq-64. deepinv has
pictures in [0, 1], so that its sigma_y is half of ours; a circular blur and a mask are its own
there, the mean of blocks is ours, wrapped with its closed-form proximal operator.

Where the two differ by convention, each is also run with the other's:

* DiffPIR weighs its data term by prox with 1 / (2 rho) where the paper has rho |x - x_0|^2 beside
  |y - A x|^2: its lambda 7 is `strength` 3.5, the published 7 is 1.75.
* DPS of deepinv puts weight times the gradient into the score, so that its step has a factor
  beta_t; the paper subtracts zeta times the gradient. `Published` divides that factor out.

Seconds are of the CPU for a picture of the batch. A unit is a forward evaluation, a backward one
counts two.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deepinv
import numpy as np
import torch
from deepinv.physics import BlurFFT, GaussianNoise, LinearPhysics
from deepinv.physics import Inpainting as TheirMask
from deepinv.sampling import DPS, DiffPIR
from ffhq64 import face
from problems import CPU, SIGMA_Y
from torch import Tensor

import lavps_cli as lavps
from lavps_cli import catalog
from lavps_cli.core.denoiser import CountedDenoiser, denoised
from lavps_cli.core.likelihood import Likelihood, observe
from lavps_cli.core.noise import Noise
from lavps_cli.core.types import Image
from lavps_cli.operators.blur import Blur
from lavps_cli.operators.inpainting import Inpainting, centre_mask
from lavps_cli.operators.kernels import motion_kernel
from lavps_cli.operators.super_resolution import SuperResolution
from lavps_cli.pipeline.sampling import draw
from lavps_cli.samplers.diffpir import DiffpirOptions, diffpir
from lavps_cli.samplers.dps import DpsOptions, dps
from lavps_cli.samplers.lavps import LavpsOptions

SIZE = 64
ZETA = 0.3
Method = Callable[[Likelihood, int], Image]
"""An observation of n pictures and a seed to samples in [-1, 1]."""


class Clipped:
    """The prior with its pictures cut to [-1, 1], as deepinv's DiffPIR does."""

    def __init__(self, denoiser: CountedDenoiser) -> None:
        self.inner, self.schedule = denoiser, denoiser.schedule

    def __call__(self, xt: Tensor, t: Tensor) -> Tensor:
        return self.inner(xt, t).clamp(-1, 1)


class Prior(torch.nn.Module):
    """The prior as a denoiser of deepinv: pictures and sigma on [0, 1]."""

    def __init__(self, denoiser: CountedDenoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x: Tensor, sigma: Tensor | float, **_: Any) -> Tensor:
        ratio = 2 * torch.as_tensor(sigma, dtype=torch.float64).flatten()[0]
        return (denoised(self.denoiser, 2 * x - 1, ratio) + 1) / 2


class Means(LinearPhysics):
    """Our mean of blocks as an operator of deepinv, its proximal operator in closed form."""

    def __init__(self, A: SuperResolution, noise_model: GaussianNoise) -> None:
        super().__init__(noise_model=noise_model)
        self.ours = A

    def A(self, x: Tensor, **_: Any) -> Tensor:
        return self.ours(x)

    def A_adjoint(self, y: Tensor, **_: Any) -> Tensor:
        return self.ours.adjoint(y)

    def prox_l2(self, z: Tensor, y: Tensor, gamma: Tensor, **_: Any) -> Tensor:
        return z + self.ours.ridge(y - self.ours(z), 1 / float(gamma))


class Published:
    """The gradient of a DPS of deepinv, weighted so that a step subtracts zeta times that of |.|.

    Its step multiplies the score by a_t a_s (r_t^2 - r_s^2) in x_t, a_t the signal and r_t the
    ratio, and the norm of its residual is half of ours.
    """

    def __init__(self, sampler: DPS, zeta: float) -> None:
        sde, times = sampler.sde, sampler.solver.timesteps
        scale, r = sde.scale_t(times), sde.sigma_t(times)
        steps = scale[:-1] * scale[1:] * (r[:-1] ** 2 - r[1:] ** 2)
        self.weights = iter((2 * zeta / steps).tolist())
        self.inner = sampler.data_fidelity.grad

    def __call__(self, *given: Any, **named: Any) -> tuple[Tensor, Tensor]:
        gradient, x0 = self.inner(*given, **named)
        return next(self.weights) * gradient, x0


def tasks() -> dict[str, tuple[Any, LinearPhysics]]:
    """Return the operators, ours and deepinv's."""
    noise = GaussianNoise(SIGMA_Y / 2)
    kernel = motion_kernel(9, 0.9, torch.Generator().manual_seed(0))
    mask = centre_mask(SIZE, SIZE)
    shape = (3, SIZE, SIZE)
    means = SuperResolution(4)
    return {
        "sr 4": (means, Means(means, noise)),
        "deblur 9@0.9": (
            Blur(kernel, "circular"),
            BlurFFT(img_size=shape, filter=kernel[None, None].float(), noise_model=noise),
        ),
        "centre": (
            Inpainting(mask),
            TheirMask(img_size=shape, mask=mask.float(), noise_model=noise),
        ),
    }


def methods(
    model: Any, prior: CountedDenoiser, physics: LinearPhysics, dps_steps: int
) -> dict[str, Method]:
    def in_unit(seen: Likelihood) -> Tensor:
        white = seen.A(torch.ones(1, 3, SIZE, SIZE))
        return (seen.y + white) / 2

    def their_diffpir(seen: Likelihood, seed: int) -> Image:
        made = DiffPIR(
            Prior(prior), deepinv.optim.data_fidelity.L2(), SIGMA_Y / 2, 100, ZETA, lambda_=7.0
        )
        start = torch.full((len(seen.y), 3, SIZE, SIZE), 0.5)
        return 2 * made(in_unit(seen), physics, seed=seed + 1, x_init=start) - 1

    def their_dps(weight: float | None) -> Method:
        def run(seen: Likelihood, seed: int) -> Image:
            rng = torch.Generator().manual_seed(seed)
            made = DPS(Prior(prior), num_steps=dps_steps + 1, weight=weight or 1.0, rng=rng)
            if weight is None:
                made.data_fidelity.grad = Published(made, 1.0)
            start = (len(seen.y), 3, SIZE, SIZE)
            return 2 * made(in_unit(seen), physics, x_init=start).float() - 1

        return run

    def ours(sampler: Callable[..., Image], options: Any, clipped: bool = False) -> Method:
        denoiser = Clipped(prior) if clipped else prior

        def run(seen: Likelihood, seed: int) -> Image:
            seeds = [1000 * seed + i for i in range(len(seen.y))]
            shape = (len(seeds), 3, SIZE, SIZE)
            return sampler(denoiser, seen, options, shape=shape, noise=Noise(seeds, CPU))

        return run

    def with_starts(preset: str) -> Method:
        options = LavpsOptions(**catalog.PRESETS[preset].warm)

        def run(seen: Likelihood, seed: int) -> Image:
            seeds = [1000 * seed + i for i in range(len(seen.y))]
            drawn = draw(
                model, seen, options, method="lavps", shape=(3, SIZE, SIZE), seeds=seeds,
                coarse=False,
            )  # fmt: skip
            prior.nfe, prior.nbe = drawn.nfe, drawn.nbe
            return drawn.x

        return run

    return {
        "DiffPIR, deepinv, lambda 7": their_diffpir,
        "DiffPIR, ours, strength 3.5": ours(diffpir, DiffpirOptions(strength=3.5)),
        "DiffPIR, ours, the same, clipped": ours(diffpir, DiffpirOptions(strength=3.5), True),
        "DiffPIR, ours, as published": ours(diffpir, DiffpirOptions()),
        "DPS, deepinv, weight 1": their_dps(1.0),
        "DPS, deepinv, published step": their_dps(None),
        "DPS, ours": ours(dps, DpsOptions(num_steps=dps_steps)),
        "LAVPS fast": with_starts("fast"),
        "LAVPS balanced": with_starts("balanced"),
    }


def psnr(x: Image, clean: Image) -> float:
    error = (x.clamp(-1, 1) - clean).square().mean((1, 2, 3)) / 4
    return float((-10 * error.log10()).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--first", type=int, default=4100)
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--dps-steps", type=int, default=50)
    parser.add_argument("--only", default="", help="part of the names of the methods")
    given = parser.parse_args()
    numbers = range(given.first, given.first + given.pictures)
    clean = torch.cat([face(given.faces, n) for n in numbers])
    model = lavps.load("ffhq-64")
    print("| task | method | PSNR, mean over seeds +- se | CPU s a picture | units |")
    print("|---|---|---|---|---|", flush=True)
    for task, (A, physics) in tasks().items():
        seen = observe(A, clean, SIGMA_Y, Noise([9000 + n for n in numbers], CPU))
        prior = CountedDenoiser(model.denoiser, len(clean))
        found: dict[str, list[tuple[float, float, float]]] = {}
        for seed in range(given.seeds):
            for name, method in methods(model, prior, physics, given.dps_steps).items():
                if given.only not in name:
                    continue
                prior.nfe = prior.nbe = 0
                began = time.process_time()
                x = method(seen, seed)
                seconds = (time.process_time() - began) / len(clean)
                row = (psnr(x, clean), seconds, prior.nfe + 2 * prior.nbe)
                found.setdefault(name, []).append(row)
        for name, rows in found.items():
            by_seed, seconds, units = zip(*rows, strict=True)
            spread = np.std(by_seed, ddof=1) / len(rows) ** 0.5 if len(rows) > 1 else float("nan")
            print(f"| {task} | {name} | {np.mean(by_seed):.2f} +- {spread:.2f} | "
                  f"{np.median(seconds):.2f} | {np.mean(units):.0f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
