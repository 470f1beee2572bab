"""Measure the options of Algorithm 2 on the bundled prior: one change at a time.

    python benchmarks/sampler_options.py [--model DIR] [--size 64] [--distance FILE.py]

Prints PSNR (dB) of one sample, mean over pictures, for three tasks, and evaluations a picture.
`--distance` names a file with `distance(a, b)`, a perceptual distance, as a second number.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path

import torch
from problems import CPU, photographs, problem, psnr

from lavps_cli.core.denoiser import CountedDenoiser
from lavps_cli.core.noise import Noise
from lavps_cli.samplers.lavps import LavpsOptions, lavps
from lavps_cli.weights.checkpoint import load_denoiser
from lavps_cli.weights.index import resolve

TASKS = ("sr4", "deblur21", "centre")
CHANGES: dict[str, dict[str, object]] = {
    "default": {},
    "grid=vp": {"grid": "vp"},
    "renoise=bridge": {"renoise": "bridge"},
    "grid=vp renoise=bridge": {"grid": "vp", "renoise": "bridge"},
    "coordinates=raw lr=0.03": {"coordinates": "raw", "lr": 0.03},
    "coordinates=raw lr=0.01": {"coordinates": "raw", "lr": 0.01},
    "lr=0.1": {"lr": 0.1},
    "lr=1": {"lr": 1.0},
    "num_denoise=2": {"num_denoise": 2},
    "num_denoise=2 stochastic": {"num_denoise": 2, "stochastic": True},
}


def crops(size: int) -> torch.Tensor:
    """Return nine crops: three from each of three photographs."""
    parts = []
    for _, x in photographs(256):
        parts += [x[..., a : a + size, a : a + size] for a in (0, (256 - size) // 2, 256 - size)]
    return torch.cat(parts)


def load_distance(path: Path | None) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None:
    if path is None:
        return None
    spec = importlib.util.spec_from_file_location("distance", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.distance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="default")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--distance", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    denoiser = load_denoiser(resolve(given.model), device=CPU, autocast=torch.bfloat16)
    distance = load_distance(given.distance)
    x = crops(given.size)
    print(f"{'change':<28} {'nfe':>4} {'nbe':>4}  " + "  ".join(f"{t:>12}" for t in TASKS))
    for name, change in CHANGES.items():
        if given.only and name not in given.only.split(","):
            continue
        options = LavpsOptions(**({"num_steps": given.steps} | change))
        cells, counted, started = [], CountedDenoiser(denoiser, len(x)), time.perf_counter()
        for task in TASKS:
            counted = CountedDenoiser(denoiser, len(x))
            noise = Noise(range(len(x)), CPU)
            xhat = lavps(counted, problem(task, x), options, shape=tuple(x.shape), noise=noise)
            far = "" if distance is None else f" {float(distance(xhat, x).mean()):5.3f}"
            cells.append(f"{psnr(xhat, x):6.2f}{far:>6}")
        seconds = time.perf_counter() - started
        print(f"{name:<28} {counted.nfe:4.0f} {counted.nbe:4.0f}  " + "  ".join(cells)
              + f"  {seconds:5.1f} s", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
