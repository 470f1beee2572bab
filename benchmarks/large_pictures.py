"""What a picture takes by its size: evaluations, seconds of CPU, memory as told before and as it was.

Each run is a command of its own, the smallest number of steps: memory does not grow with them.

    python benchmarks/large_pictures.py --sides 256,512,1024,2048 --tasks denoise,sr,deblur
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", default="256,512,1024,2048")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--dtype", default="auto")
    args = parser.parse_args()
    print(
        "| picture | task | method | forward + backward | s of CPU | s / Mpixel | GiB | told | off |"
    )
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
