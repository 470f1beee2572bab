"""What a damaged picture tells: flags and `degrade`'s record to an operator and a noise level."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from lavps_cli.catalog import TaskName
from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.types import Image, Measurement
from lavps_cli.errors import UsageError
from lavps_cli.images.alpha import solid_colours
from lavps_cli.images.picture import Picture
from lavps_cli.options import parse_noise
from lavps_cli.pipeline.blind import blind_kernel
from lavps_cli.pipeline.degradation import (
    Degradation,
    boundary_of,
    check_kernel,
    given_kernel,
    implied_task,
)
from lavps_cli.pipeline.kernels import KernelChoice
from lavps_cli.pipeline.masks import read_mask
from lavps_cli.pipeline.noise_level import FLOOR, estimate_noise
from lavps_cli.pipeline.record import Record
from lavps_cli.pipeline.requests import Problem


@dataclass(frozen=True, eq=False, kw_only=True)
class Observation:
    """What is known of one picture."""

    degradation: Degradation
    A: LinearOperator
    y: Measurement
    """(1, c, h, w)"""
    sigma_y: float
    noise_source: str
    shape: tuple[int, int]
    """Height and width of the scene that is sampled."""
    warnings: tuple[str, ...] = ()

    def seen(self, x: Image) -> Measurement:
        """Return the part of the scene that the picture shows."""
        top, left = self.degradation.margin
        height, width = self.visible_size
        return x[..., top : top + height, left : left + width]

    @property
    def visible_size(self) -> tuple[int, int]:
        """Height and width of what is seen."""
        top, left = self.degradation.margin
        return self.shape[0] - 2 * top, self.shape[1] - 2 * left

    @property
    def about_noise(self) -> dict[str, Any]:
        """The noise level in both scales, and where it comes from."""
        return {
            "sigma": round(self.sigma_y, 6),
            "sigma_255": round(self.sigma_y * 127.5, 3),
            "source": self.noise_source,
        }


def observation(
    picture: Picture, name: str, problem: Problem, record: Record | None
) -> Observation:
    """Return the problem that a damaged picture poses; flags win over its record.

    Raises:
        UsageError: The task or what it needs is not known.
        DataError: Kernel, mask and picture do not fit.
    """
    task = implied_task(problem) or (record.task if record is not None else None)
    if task is None:
        raise UsageError(
            f"{name}: which task? It carries no record of `lavps degrade`.",
            "For example:  --task denoise   or --scale 4, --kernel 21, --mask FILE",
        )
    implied_task(replace(problem, task=task))  # Flags must suit the task of a record, too.
    recorded = record if record is not None and record.task == task else None
    warnings: list[str] = []
    if task == "deblur" and picture.format == "jpg":
        warnings.append(
            f"{name} is a JPEG; the blur model assumes an uncompressed picture. The result may "
            "show blocks."
        )
    if record is not None and recorded is None:
        warnings.append(f"{name} was made by `lavps degrade --task {record.task}`, not {task}.")
    width, height = picture.size
    degradation = _restorable(picture, name, problem, task, recorded, warnings)
    top, left = degradation.margin
    shape = (height * degradation.scale + 2 * top, width * degradation.scale + 2 * left)
    y: Image = solid_colours(picture.pixels, picture.alpha)
    if degradation.mask is not None:
        y = degradation.mask.values * y
    sigma_y, source = _noise(picture, problem, record, degradation)
    return Observation(
        degradation=degradation,
        A=degradation.operator(),
        y=y,
        sigma_y=sigma_y,
        noise_source=source,
        shape=shape,
        warnings=tuple(warnings),
    )


def _restorable(
    picture: Picture,
    name: str,
    problem: Problem,
    task: TaskName,
    record: Record | None,
    warnings: list[str],
) -> Degradation:
    if task == "sr":
        scale = problem.scale or (record.scale if record else None) or 4
        downsample = problem.downsample or (record.downsample if record else None) or "area"
        return Degradation(task=task, scale=scale, downsample=downsample)
    if task == "deblur":
        if problem.blind:
            sigma_y, _ = _noise(picture, problem, record, Degradation(task="denoise"))
            found = blind_kernel(picture, name, problem, sigma_y, warnings)
            boundary = boundary_of(problem, record, "valid")
            return Degradation(task=task, kernel=found, boundary=boundary)
        kernel = given_kernel(problem) or (record.kernel if record else None)
        if kernel is None:
            raise UsageError(
                f"{name}: deblurring needs the kernel.", "For example:  --kernel 21   or psf.png"
            )
        if problem.kernel is not None and record is not None and record.kernel is not None:
            a, b = kernel.values, record.kernel.values
            if a.shape != b.shape or not torch.allclose(a, b, atol=1e-6):
                warnings.append(f"{name} records another kernel; the one of --kernel is used.")
        elif kernel.assumed:
            warnings.append(
                f"{name} is taken to be blurred by the drawn kernel {_told(kernel)}, as "
                "`lavps degrade` would; give a measured one with --kernel FILE, or let it be "
                "estimated with --blind."
            )
        boundary = boundary_of(problem, record, "valid")
        check_kernel(kernel, picture, name)
        return Degradation(task=task, kernel=kernel, boundary=boundary)
    if task == "inpaint":
        mask = record.mask if record else None
        if problem.mask is not None:
            mask = read_mask(
                problem.mask, picture, name, invert=problem.invert_mask, resize=problem.resize_mask
            )
        if mask is None:
            raise UsageError(f"{name}: inpainting needs a mask.", "For example:  --mask hole.png")
        return Degradation(task=task, mask=mask)
    return Degradation(task=task)


def _told(kernel: KernelChoice) -> str:
    about = kernel.about
    return f"{about['size']} (intensity {about['intensity']}, seed {about['seed']})"


def _noise(
    picture: Picture, problem: Problem, record: Record | None, degradation: Degradation
) -> tuple[float, str]:
    given = parse_noise(problem.noise)
    if given is not None:
        if given == 0:
            raise UsageError(
                "--noise 0: restoring needs a positive noise level.",
                "For a clean 8-bit picture:  --noise 0.5/255   or leave it out",
            )
        return given, "flags"
    if record is not None:
        return max(record.noise, FLOOR), "record"
    mask = degradation.mask.values if degradation.mask is not None else None
    if picture.alpha is not None:
        visible = (picture.alpha[0] > 0).float()
        mask = visible if mask is None else mask * visible
    return estimate_noise(picture.pixels, mask), "estimated"
