"""What a damaged picture tells: flags and `degrade`'s record to an operator and a noise level."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from lavps_cli.catalog import TaskName, has_holes
from lavps_cli.core.likelihood import Likelihood, shot_noise
from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.types import Image, Measurement
from lavps_cli.errors import UsageError
from lavps_cli.images.alpha import solid_colours
from lavps_cli.images.picture import Picture
from lavps_cli.operators.clipping import clipping_of
from lavps_cli.operators.colorization import Colorization
from lavps_cli.operators.denoising import Denoising
from lavps_cli.operators.jpeg import JpegCoefficients
from lavps_cli.options import ShotNoise, parse_noise
from lavps_cli.pipeline.blind import blind_kernel
from lavps_cli.pipeline.compression import compressed
from lavps_cli.pipeline.degradation import (
    Degradation,
    boundary_of,
    check_kernel,
    given_filter,
    given_kernel,
    implied_task,
)
from lavps_cli.pipeline.kernels import KernelChoice
from lavps_cli.pipeline.masks import MaskChoice, read_mask
from lavps_cli.pipeline.noise_level import FLOOR, estimate_noise
from lavps_cli.pipeline.record import Record
from lavps_cli.pipeline.requests import Problem

_COLOURED = 4 / 127.5
"""Channels that differ by more are colours, not the noise of a scan."""


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
    visible_size: tuple[int, int]
    """Height and width of the part of it that the picture shows."""
    corner: tuple[int, int] = (0, 0)
    """Row and column of the scene where that part begins."""
    peak: float | None = None
    """Photons that make white, where they are counted."""
    warnings: tuple[str, ...] = ()

    def seen(self, x: Image) -> Measurement:
        """Return the part of the scene that the picture shows."""
        (top, left), (height, width) = self.corner, self.visible_size
        return x[..., top : top + height, left : left + width]

    def explained(self, x: Image) -> Image:
        """Return samples, moved where they contradict what is certain.

        Coefficients of a JPEG were rounded: none is further from the file's than half a step.
        """
        if not isinstance(self.A, JpegCoefficients):
            return x
        half = 3**0.5 * self.sigma_y  # Of the deviation that rounding has.
        return self.A.within(x, self.y.expand(len(x), -1, -1, -1), half)

    @property
    def is_grey(self) -> bool:
        """Whether the picture is grey, and so is what is sought."""
        return self.y.shape[1] == 1 and self.degradation.task != "colorize"

    def likelihood(self, y: Measurement) -> Likelihood:
        """Return the likelihood of observations, (b, c, h, w), that were made in this way."""
        sigma_y, peak = self.sigma_y, self.peak
        if self.is_grey:
            # Three equal channels are one measurement: together they weigh as much as it does.
            y, sigma_y = y.expand(-1, 3, -1, -1), sigma_y * math.sqrt(3)
            peak = None if peak is None else peak / 3
        return Likelihood(y, self.A, sigma_y, peak)

    @property
    def about_noise(self) -> dict[str, Any]:
        """The noise level in both scales, and where it comes from."""
        about: dict[str, Any] = {
            "sigma": round(self.sigma_y, 6),
            "sigma_255": round(self.sigma_y * 127.5, 3),
            "source": self.noise_source,
        }
        return about if self.peak is None else about | {"peak": self.peak}


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
    if task == "jpeg":
        if picture.jpeg is not None and problem.jpeg_quality is not None:
            warnings.append(f"{name} is a JPEG: its own tables are used, not --jpeg-quality.")
        return jpeg_observation(picture, name, problem.jpeg_quality, tuple(warnings))
    mask = _mask(picture, name, problem, recorded, warnings) if has_holes(task) else None
    sigma_y, peak, source = _noise(picture, problem, record, mask)
    if problem.blind:
        level = sigma_y if peak is None else shot_noise(picture.pixels, Denoising(), peak)
        degradation = _blindly(picture, name, problem, recorded, level, warnings)
    else:
        degradation = _restorable(picture, name, problem, task, recorded, mask, warnings)
    top, left = degradation.margin
    visible = (height * degradation.scale, width * degradation.scale)
    y: Image = solid_colours(picture.pixels, picture.alpha)
    if task == "colorize" and not picture.grey:
        if float((y.amax(1) - y.amin(1)).max()) > _COLOURED:
            warnings.append(f"{name} has colours; only its brightness is looked at.")
        y = Colorization()(y)
    if degradation.mask is not None:
        y = degradation.mask.values * y
    A = clipping_of(degradation.gain, y) if task == "declip" else degradation.operator()
    if peak is not None:
        sigma_y = shot_noise(y, A, peak)
    return Observation(
        degradation=degradation,
        A=A,
        y=y,
        sigma_y=math.hypot(sigma_y, degradation.doubt),
        peak=peak,
        noise_source=source,
        shape=(visible[0] + 2 * top, visible[1] + 2 * left),
        visible_size=visible,
        corner=(top, left),
        warnings=tuple(warnings),
    )


def jpeg_observation(
    picture: Picture, name: str, quality: int | None, warnings: tuple[str, ...] = ()
) -> Observation:
    """Return the problem that a compressed picture poses.

    Raises:
        UsageError: It is no JPEG, and no quality is given.
        DataError: It is one that is not undone here.
    """
    found = compressed(picture, name, quality)
    width, height = picture.size
    return Observation(
        degradation=Degradation(task="jpeg"),
        A=found.A,
        y=found.y,
        sigma_y=found.sigma_y,
        noise_source="tables",
        shape=found.shape,
        visible_size=(height, width),
        corner=found.corner,
        warnings=warnings,
    )


def _blindly(
    picture: Picture,
    name: str,
    problem: Problem,
    record: Record | None,
    sigma_y: float,
    warnings: list[str],
) -> Degradation:
    found, doubt = blind_kernel(picture, name, problem, sigma_y, warnings)
    boundary = boundary_of(problem, record, "valid")
    return Degradation(task="deblur", kernel=found, boundary=boundary, doubt=doubt)


def _restorable(
    picture: Picture,
    name: str,
    problem: Problem,
    task: TaskName,
    record: Record | None,
    mask: MaskChoice | None,
    warnings: list[str],
) -> Degradation:
    if task.startswith("sr"):
        scale = problem.scale or (record.scale if record else None) or 4
        used, own = given_filter(problem), problem.downsample
        if own is None and record is not None:
            used, own = record.filter, record.downsample
        return Degradation(task=task, scale=scale, downsample=own or "area", filter=used, mask=mask)
    if task == "declip":
        gain = problem.gain or (record.gain if record else None) or 2.0
        return Degradation(task=task, gain=gain)
    if task.startswith("deblur"):
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
        return Degradation(task=task, kernel=kernel, boundary=boundary, mask=mask)
    return Degradation(task=task, mask=mask)


def _mask(
    picture: Picture, name: str, problem: Problem, record: Record | None, warnings: list[str]
) -> MaskChoice:
    mask = record.mask if record else None
    if problem.mask is not None:
        mask = read_mask(
            problem.mask, picture, name, invert=problem.invert_mask, resize=problem.resize_mask
        )
    if mask is None:
        raise UsageError(f"{name}: inpainting needs a mask.", "For example:  --mask hole.png")
    if mask.doubtful:
        warnings.append(f"{problem.mask} is mostly grey: what is brighter than half is filled.")
    return mask


def _told(kernel: KernelChoice) -> str:
    about = kernel.about
    return f"{about['size']} (intensity {about['intensity']}, seed {about['seed']})"


def _noise(
    picture: Picture, problem: Problem, record: Record | None, mask: MaskChoice | None
) -> tuple[float, float | None, str]:
    """Return the deviation, the photons that make white where they count, and who says so."""
    given = parse_noise(problem.noise)
    if isinstance(given, ShotNoise):
        return FLOOR, given.peak, "flags"
    if given is not None:
        if given == 0:
            raise UsageError(
                "--noise 0: restoring needs a positive noise level.",
                "For a clean 8-bit picture:  --noise 0.5/255   or leave it out",
            )
        return given, None, "flags"
    if record is not None:
        return max(record.noise, FLOOR), record.peak, "record"
    known = None if mask is None else mask.values
    if picture.alpha is not None:
        visible = (picture.alpha[0] > 0).float()
        known = visible if known is None else known * visible
    return estimate_noise(picture.pixels, known), None, "estimated"
