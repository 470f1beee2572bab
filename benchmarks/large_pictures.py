"""What a picture takes by its size: evaluations, seconds of CPU, memory as told and as it was.

Each run is a command of its own, the smallest number of steps: memory does not grow with them.

    python benchmarks/large_pictures.py --sides 256,512,1024,2048 --tasks denoise,sr,deblur
    python benchmarks/large_pictures.py --windows   # how many windows the network is best given
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PillowImage

from lavps_cli.models.trained import Trained
from lavps_cli.pipeline.model import Tiling, open_weights
from lavps_cli.pipeline.requests import Compute

TASKS = {
    "denoise": ["--task", "denoise", "--noise", "0.1"],
    "sr": ["--scale", "4", "--noise", "0.05"],
    "deblur": ["--kernel", "21@30", "--noise", "0.05"],
}
METHODS = {
    "lavps": ["--preset", "fast", "-O", "num_steps=3"],
    "mgdm": ["--method", "mgdm", "--preset", "fast", "-O", "num_steps=3"],
}


def picture(path: Path, width: int, height: int) -> Path:
    """Write a picture with something to see in it."""
    coarse = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    size = PillowImage.Resampling.BICUBIC
    PillowImage.fromarray(coarse).resize((width, height), size).save(path)
    return path


def run(command: list[str]) -> tuple[dict[str, Any], float, int]:
    """Return what a command tells of its picture, its seconds of CPU, and its peak in bytes."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = json.loads(process.stdout.read())
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, told
    return told, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def row(task: str, method: str, width: int, height: int, extra: list[str], folder: Path) -> str:
    """Restore one picture and return a row of the table."""
    scale = 4 if task == "sr" else 1
    path = picture(folder / "in.png", width // scale, height // scale)
    base = [sys.executable, "-m", "lavps_cli", "restore", str(path), "-o", str(folder / "out.png")]
    base += ["--json", "--force", "--quiet", "--device", "cpu", *TASKS[task], *METHODS[method]]
    planned, _, _ = run([*base, *extra, "-n"])
    told, seconds, most = run([*base, *extra])
    work = (told["nfe"] + 2 * told["nbe"]) * width * height / 1e6
    estimate = planned["memory_bytes"]
    return (
        f"| {width}x{height} | {task} | {method} | {told['nfe']} + {told['nbe']} | {seconds:.0f} "
        f"| {seconds / work:.2f} | {most / 2**30:.2f} | {estimate / 2**30:.2f} "
        f"| {100 * (estimate / most - 1):+.0f} % |"
    )


def windows(dtype: Any) -> None:
    """Print seconds of CPU per megapixel of windows, so many of them at once, alternating."""
    torch.set_num_threads(1)
    prior = open_weights(Compute(device="cpu", dtype=dtype)).model(Tiling(0, 0)).denoiser
    assert not isinstance(prior, Trained)
    t = torch.tensor(0.5, dtype=torch.float64)
    for side in (64, 128, 256, 512):
        total = max(16 * 64**2 * 2 // side**2, 1)
        x = torch.randn(total, 3, side, side)
        best: dict[tuple[int, bool], float] = {}
        for count in [n for n in (1, 2, 4, 8, 16) if n <= total] * 3:
            for gradient in (False, True):
                start = time.process_time()
                for part in torch.split(x, count):
                    given = part.clone().requires_grad_(gradient)
                    with torch.set_grad_enabled(gradient):
                        out = prior(given, t)
                    if gradient:
                        torch.autograd.grad(out.sum(), given)
                spent = (time.process_time() - start) / (total * side**2 / 1e6)
                best[count, gradient] = min(spent, best.get((count, gradient), spent))
        told = ", ".join(f"{n}{' with gradient' * g}: {s:.1f}" for (n, g), s in best.items())
        print(f"{side}x{side}: {told}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", default="256,512,1024,2048")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--windows", action="store_true")
    args = parser.parse_args()
    if args.windows:
        windows(args.dtype)
        return
    print("| picture | task | method | forward + backward | s of CPU | s/Mpx | GiB | told | off |")
    print("|---|---|---|---|---|---|---|---|---|")
    for side in args.sides.split(","):
        width, _, height = side.partition("x")
        for task in args.tasks.split(","):
            for method in args.methods.split(","):
                with tempfile.TemporaryDirectory() as folder:
                    extra = ["--dtype", args.dtype]
                    size = int(width), int(height or width)
                    print(row(task, method, *size, extra, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
