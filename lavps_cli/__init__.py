"""Restore photographs by diffusion posterior sampling.

    >>> import lavps_cli as lavps
    >>> model = lavps.load("default")
    >>> xhat = lavps.restore(y, lavps.SuperResolution(4), sigma_y=0.05, model=model)

Names are resolved on first use, so that importing the package is cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lavps_cli.core.likelihood import observe
    from lavps_cli.core.noise import Noise
    from lavps_cli.metrics.psnr import psnr
    from lavps_cli.metrics.ssim import ssim
    from lavps_cli.operators.bicubic import BicubicDownsampling
    from lavps_cli.operators.blur import Blur
    from lavps_cli.operators.denoising import Denoising
    from lavps_cli.operators.inpainting import (
        Inpainting,
        centre_mask,
        pixel_mask,
        rectangle_mask,
    )
    from lavps_cli.operators.kernels import (
        box_kernel,
        disk_kernel,
        gaussian_kernel,
        line_kernel,
        motion_kernel,
        normalise_kernel,
    )
    from lavps_cli.operators.super_resolution import SuperResolution
    from lavps_cli.pipeline.api import load, restore
    from lavps_cli.pipeline.model import Model
    from lavps_cli.samplers.lavps import LavpsOptions, lavps

__version__ = "0.2.0"

_WHERE = {
    "BicubicDownsampling": "operators.bicubic",
    "Blur": "operators.blur",
    "Denoising": "operators.denoising",
    "Inpainting": "operators.inpainting",
    "LavpsOptions": "samplers.lavps",
    "Model": "pipeline.model",
    "Noise": "core.noise",
    "SuperResolution": "operators.super_resolution",
    "box_kernel": "operators.kernels",
    "centre_mask": "operators.inpainting",
    "disk_kernel": "operators.kernels",
    "gaussian_kernel": "operators.kernels",
    "lavps": "samplers.lavps",
    "line_kernel": "operators.kernels",
    "load": "pipeline.api",
    "motion_kernel": "operators.kernels",
    "normalise_kernel": "operators.kernels",
    "observe": "core.likelihood",
    "pixel_mask": "operators.inpainting",
    "psnr": "metrics.psnr",
    "rectangle_mask": "operators.inpainting",
    "restore": "pipeline.api",
    "ssim": "metrics.ssim",
}

__all__ = [
    "BicubicDownsampling",
    "Blur",
    "Denoising",
    "Inpainting",
    "LavpsOptions",
    "Model",
    "Noise",
    "SuperResolution",
    "box_kernel",
    "centre_mask",
    "disk_kernel",
    "gaussian_kernel",
    "lavps",
    "line_kernel",
    "load",
    "motion_kernel",
    "normalise_kernel",
    "observe",
    "pixel_mask",
    "psnr",
    "rectangle_mask",
    "restore",
    "ssim",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
