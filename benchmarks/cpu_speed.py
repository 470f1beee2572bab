"""Seconds for a picture of 256x256 by preset, and bf16 against float32, alternating.

    python benchmarks/cpu_speed.py [--repeats 3] [--presets fast,balanced]

The sampler alone is timed, after one evaluation to warm up. Medians are printed, with the mean
PSNR of both precisions over the repeats (each with its own seed).
"""

import argparse
import platform
import statistics
import time

import torch
from problems import CPU, photographs, problem, psnr

from lavps_cli.pipeline.model import Tiling, open_weights
from lavps_cli.pipeline.requests import Compute
from lavps_cli.pipeline.sampling import draw, sampler_options


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--presets", default="fast,balanced")
    parser.add_argument("--dtypes", default="bf16,fp32")
    parser.add_argument("--task", default="deblur21")
    given = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, "
          f"torch {torch.__version__}")  # fmt: skip
    _, x = next(photographs(256))
    likelihood = problem(given.task, x)
    for preset in given.presets.split(","):
        seconds: dict[str, list[float]] = {}
        quality: dict[str, list[float]] = {}
        for seed in range(given.repeats):
            for dtype in given.dtypes.split(","):
                weights = open_weights(Compute(device="cpu", dtype=dtype))
                model = weights.model(Tiling(0, 0))
                model.denoiser(x, torch.tensor(0.5, dtype=torch.float64))
                options = sampler_options("lavps", preset, (), weights.switch_ratio)
                started = time.perf_counter()
                drawn = draw(
                    model, likelihood, options, method="lavps", shape=tuple(x.shape[1:]),
                    seeds=[seed],
                )  # fmt: skip
                seconds.setdefault(dtype, []).append(time.perf_counter() - started)
                quality.setdefault(dtype, []).append(psnr(drawn.x.to(CPU), x))
        for dtype, values in seconds.items():
            print(f"{preset:<9} {dtype}  {statistics.median(values):6.1f} s   "
                  f"{statistics.mean(quality[dtype]):.2f} dB   nfe {drawn.nfe:.0f} "
                  f"nbe {drawn.nbe:.0f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
