"""How near the estimated noise level is (`--noise auto`), on pictures with noise of a known level.

    python benchmarks/noise_level.py PICTURE... [--blurred]

Pictures are reduced by two, which hides their own noise, get white noise, and are rounded to 8
bits; with --blurred a disk of 5 pixels blurs them before, as pictures to be restored may be.
Told are the median and the range of 80 % of estimate / truth.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from lavps_cli.images.picture import quantised
from lavps_cli.images.reading import load_picture
from lavps_cli.operators.blur import Blur
from lavps_cli.operators.kernels import disk_kernel
from lavps_cli.pipeline.noise_level import FLOOR, estimate_noise


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--blurred", action="store_true")
    given = parser.parse_args()
    clean = [
        avg_pool2d(load_picture(path, str(path), 1 << 28).pixels, 2) for path in given.pictures
    ]
    if given.blurred:
        clean = [Blur(disk_kernel(5), "valid")(x) for x in clean]
    print("| sigma_y | median of estimate / truth | 10 to 90 % | worst |")
    print("|---|---|---|---|")
    for sigma in (0.0, 0.01, 0.02, 0.05, 0.1, 0.2):
        found = []
        for i, x in enumerate(clean):
            noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(i))
            found.append(estimate_noise(quantised(x + sigma * noise)) / max(sigma, FLOOR))
        low, middle, high = np.quantile(found, [0.1, 0.5, 0.9])
        worst = max(found, key=lambda ratio: abs(np.log(ratio)))
        print(f"| {sigma:g} | {middle:.2f} | {low:.2f} to {high:.2f} | {worst:.2f} |")


if __name__ == "__main__":
    main()
