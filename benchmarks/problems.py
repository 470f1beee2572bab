"""Test pictures and test problems that the benchmarks share."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image as PillowImage

from lavps_cli.core.likelihood import Likelihood, observe
from lavps_cli.core.noise import Noise
from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.types import Image
from lavps_cli.operators.blur import Blur
from lavps_cli.operators.inpainting import Inpainting, centre_mask, pixel_mask, rectangle_mask
from lavps_cli.operators.kernels import motion_kernel
from lavps_cli.operators.super_resolution import SuperResolution

CPU = torch.device("cpu")
SIGMA_Y = 0.05
TASKS = ("sr4", "deblur21", "centre", "rectangle")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def operator(task: str, size: int) -> LinearOperator:
    """Return the operator of a task for square pictures."""
    makers = {
        "sr4": lambda: SuperResolution(4),
        "sr8": lambda: SuperResolution(8),
        "deblur21": lambda: Blur(motion_kernel(21, 0.9, generator()), "reflect", 1e-3),
        "deblur35": lambda: Blur(motion_kernel(35, 0.3, generator(1)), "reflect", 1e-3),
        "centre": lambda: Inpainting(centre_mask(size, size)),
        "rectangle": lambda: Inpainting(rectangle_mask(size, size, generator())),
        "pixels": lambda: Inpainting(pixel_mask(size, size, generator(), 0.9, 0.92)),
    }
    made: LinearOperator = makers[task]()
    return made


def problem(task: str, x: Image, seed: int = 0) -> Likelihood:
    """Return the observation of pictures, noise drawn per picture."""
    noise = Noise([seed + 1000 + i for i in range(len(x))], CPU)
    return observe(operator(task, x.shape[-1]), x, SIGMA_Y, noise)


def to_tensor(picture: PillowImage.Image) -> Image:
    pixels = torch.from_numpy(np.asarray(picture.convert("RGB")).copy())
    return pixels.permute(2, 0, 1)[None].float() / 127.5 - 1


def centre_crop(x: Image, size: int) -> Image:
    h, w = x.shape[-2:]
    top, left = (h - size) // 2, (w - size) // 2
    return x[..., top : top + size, left : left + size]


def photographs(size: int) -> Iterator[tuple[str, Image]]:
    """Yield crops of astronaut, chelsea and coffee; the face of astronaut is in its crop."""
    from skimage import data

    for name in ("astronaut", "chelsea", "coffee"):
        x = to_tensor(PillowImage.fromarray(getattr(data, name)()))
        yield name, x[..., :size, 100 : 100 + size] if name == "astronaut" else centre_crop(x, size)


def folder(path: Path, size: int) -> Iterator[tuple[str, Image]]:
    """Yield the centre crops of the pictures of a folder that are large enough."""
    for file in sorted(path.iterdir()):
        if file.suffix in (".png", ".jpg", ".bmp"):
            x = to_tensor(PillowImage.open(file))
            if min(x.shape[-2:]) >= size:
                yield file.stem, centre_crop(x, size)


def psnr(a: Image, b: Image) -> float:
    """Return the mean over pictures of the PSNR in dB, values clamped to [-1, 1]."""
    error = (a.clamp(-1, 1) - b.clamp(-1, 1)).square().mean((1, 2, 3)) / 4
    return float((-10 * error.log10()).mean())
