"""Blind against known kernels: crops of pictures, blurred with real kernels, restored with both.

python benchmarks/blind.py KERNELS.npz PICTURE... [--side 160] [--sigmas 0.01,0.05]

An estimated kernel is known up to a shift: PSNR is that of the best shift by whole pixels, for all
three columns alike, over the middle of the picture.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch

from lavps_cli.blind.kernel import similarity
from lavps_cli.core.types import Image
from lavps_cli.images.picture import Picture
from lavps_cli.images.reading import load_picture
from lavps_cli.metrics.psnr import psnr
from lavps_cli.operators.blur import Blur
from lavps_cli.operators.kernels import normalise_kernel
from lavps_cli.pipeline.alternation import alternated
from lavps_cli.pipeline.model import Tiling, Weights, open_weights
from lavps_cli.pipeline.problem import Observation, observation
from lavps_cli.pipeline.requests import Compute, Problem, Sampling
from lavps_cli.pipeline.sampling import draw, sampler_options

REACH = 6
"""Shifts that are tried, in pixels."""


def shifted_psnr(x: Image, clean: Image, border: int) -> float:
    """Return the PSNR of the best shift, without `border` pixels at each side."""
    edge = border + REACH
    inner = clean[..., edge:-edge, edge:-edge]
    shifts = range(-REACH, REACH + 1)
    moved = (x.roll((i, j), (-2, -1))[..., edge:-edge, edge:-edge] for i in shifts for j in shifts)
    return max(float(psnr(m, inner)) for m in moved)


def sharp(seen: Observation, weights: Weights) -> Image:
    options = sampler_options("lavps", "fast", (), weights.switch_ratio)
    return draw(
        weights.model(Tiling(0, 0)), seen.likelihood(seen.y), options, method="lavps",
        shape=(3, *seen.shape), seeds=[0],
    ).x.clamp(-1, 1)  # fmt: skip


def crop(path: Path, side: int) -> Image:
    x = load_picture(path, str(path), 1 << 28).pixels
    top, left = (x.shape[-2] - side) // 2, (x.shape[-1] - side) // 2
    x = x[..., top : top + side, left : left + side]
    return x.expand(1, 3, -1, -1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kernels", type=Path)
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--side", type=int, default=160)
    parser.add_argument("--sigmas", default="0.01,0.05")
    given = parser.parse_args()
    stored = np.load(given.kernels)
    arrays = [stored[name] for name in stored.files]
    arrays = list(arrays[0]) if arrays[0].ndim == 3 else arrays
    kernels = [normalise_kernel(torch.tensor(array)) for array in arrays]
    weights = open_weights(Compute(device="cpu"))
    print(
        "| picture | kernel | sigma_y | similar | at last | confidence | blurred | blind | known |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for sigma in map(float, given.sigmas.split(",")):
        rows = []
        for i, path in enumerate(given.pictures):
            clean, kernel = crop(path, given.side), kernels[i % len(kernels)]
            y = Blur(kernel, "valid")(clean)
            y = y + sigma * torch.randn(y.shape, generator=torch.Generator().manual_seed(i))
            size, pad = max(kernel.shape), kernel.shape[0] // 2
            problem = Problem(blind=True, kernel=str(size), noise=str(sigma))
            first = observation(Picture(y), path.stem, problem, None)
            found = alternated(first, weights, Sampling())
            known = replace(found, A=Blur(kernel, "valid"), sigma_y=sigma)
            blurred = torch.nn.functional.pad(y, (pad,) * 4)
            guesses = [blurred, sharp(found, weights), sharp(known, weights)]
            scores = [shifted_psnr(x.clamp(-1, 1), clean, pad) for x in guesses]
            choices = [each.degradation.kernel for each in (first, found)]
            alike = [similarity(choice.values, kernel) for choice in choices]
            rows.append([*alike, choices[0].about["confidence"], *scores])
            told = " | ".join(f"{v:.2f}" for v in rows[-1])
            print(f"| {path.stem} | {i % len(kernels) + 1} | {sigma:g} | {told} |", flush=True)
        middle = " | ".join(f"{median(column):.2f}" for column in zip(*rows, strict=True))
        print(f"| **median** | | {sigma:g} | {middle} |")
        gains = [row[4] - row[3] for row in rows]
        print(f"median gain {median(gains):+.2f} dB; gains {[round(g, 2) for g in gains]}")


if __name__ == "__main__":
    main()
