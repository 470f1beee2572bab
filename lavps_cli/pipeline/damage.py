"""What `degrade` and `--simulate` do to clean pictures."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from PIL import Image as PillowImage
from torch import Tensor

from lavps_cli.catalog import TaskName, has_holes
from lavps_cli.core.likelihood import observe, observe_photons
from lavps_cli.core.noise import Noise
from lavps_cli.core.types import Image, Measurement
from lavps_cli.errors import DataError, UsageError
from lavps_cli.images.alpha import solid_colours
from lavps_cli.images.jpeg import encoded
from lavps_cli.images.picture import Picture, to_bytes
from lavps_cli.images.reading import load_picture
from lavps_cli.operators.clipping import clipping_of
from lavps_cli.operators.denoising import Denoising
from lavps_cli.options import ShotNoise, parse_noise
from lavps_cli.pipeline.degradation import (
    Degradation,
    boundary_of,
    check_kernel,
    given_filter,
    given_kernel,
    implied_task,
)
from lavps_cli.pipeline.masks import DRAWS, MaskChoice, draw_mask, read_mask
from lavps_cli.pipeline.noise_level import FLOOR
from lavps_cli.pipeline.problem import Observation, jpeg_observation
from lavps_cli.pipeline.record import Record
from lavps_cli.pipeline.requests import Problem
from lavps_cli.pipeline.seeds import derive_seed

DEFAULT_QUALITY = 20


@dataclass(frozen=True, eq=False, kw_only=True)
class Degraded:
    """A damaged picture, and what was done."""

    observation: Observation
    clean: Image
    """What was damaged, cut where the reduction needs it."""
    alpha: Float[Tensor, "1 1 h2 w2"] | None
    """The transparency of what is seen of it."""
    record: Record
    notes: tuple[str, ...] = ()
    jpeg: bytes | None = None
    """The damaged file itself, where the damage is its compression."""


def required_task(problem: Problem) -> TaskName:
    """Return the task that flags name or imply.

    Raises:
        UsageError: They say nothing.
    """
    task = implied_task(problem)
    if task is None:
        raise UsageError(
            "which task?", "For example:  --task sr   or --scale 4, --kernel 21, --mask centre"
        )
    return task


def degrade_picture(picture: Picture, name: str, problem: Problem, seed: int) -> Degraded:
    """Return what the flags make of a clean picture, before rounding.

    Raises:
        UsageError: The task or what it needs is not known.
        DataError: Kernel, mask and picture do not fit.
    """
    task = required_task(problem)
    x, notes = solid_colours(picture.pixels, picture.alpha), list(picture.notes)
    if task == "jpeg":
        return _compressed(picture, x, name, problem, seed)
    height, width = x.shape[-2:]
    if task.startswith("sr"):
        scale = problem.scale or 4
        degradation = Degradation(
            task=task,
            scale=scale,
            downsample=problem.downsample or "area",
            filter=given_filter(problem),
        )
        h, w = height - height % scale, width - width % scale
        if h == 0 or w == 0:
            raise DataError(
                f"{name} is {width}x{height}: too small to shrink by {scale}.",
                "Take a larger picture.",
            )
        if (h, w) != (height, width):
            notes.append(f"{name} was cropped from {width}x{height} to {w}x{h}.")
            x = x[..., :h, :w]
    elif task.startswith("deblur"):
        kernel = given_kernel(problem)
        if kernel is None:
            raise UsageError("blurring needs a kernel.", "For example:  --kernel 21")
        check_kernel(kernel, picture, name)
        degradation = Degradation(
            task=task, kernel=kernel, boundary=boundary_of(problem, None, "reflect")
        )
    else:
        if task == "colorize" and picture.grey:
            raise DataError(f"{name} has no colours to take.", "Take a coloured picture.")
        degradation = Degradation(task=task, gain=problem.gain or 2.0)
    (top, left), (h, w) = degradation.margin, (x.shape[-2], x.shape[-1])
    visible = (h - 2 * top, w - 2 * left)
    if has_holes(task):
        size = (visible[1] // degradation.scale, visible[0] // degradation.scale)
        mask = _damage_mask(picture, name, problem, seed, size)
        degradation = replace(degradation, mask=mask)
    given = parse_noise(problem.noise)
    noise = Noise([derive_seed(seed, "observation")], torch.device("cpu"))
    level = 0.05 if given is None else given
    y, sigma_y, peak = _observed(degradation, x, level, noise)
    A = clipping_of(degradation.gain, y) if task == "declip" else degradation.operator()
    record = Record(
        task=task,
        size=(y.shape[-1], y.shape[-2]),
        noise=sigma_y,
        seed=seed,
        scale=degradation.scale if degradation.base == "sr" else None,
        downsample=degradation.downsample if degradation.base == "sr" else None,
        filter=degradation.filter,
        kernel=degradation.kernel,
        boundary=degradation.boundary if degradation.base == "deblur" else None,
        mask=degradation.mask,
        gain=degradation.gain if task == "declip" else None,
        peak=peak,
    )
    seen = Observation(
        degradation=degradation,
        A=A,
        y=y,
        sigma_y=max(sigma_y, FLOOR),
        peak=peak,
        noise_source="flags" if given is not None else "default",
        shape=(h, w),
        visible_size=visible,
        corner=(top, left),
    )
    alpha = picture.alpha
    if alpha is not None:
        alpha = seen.seen(alpha[..., :h, :w])
    return Degraded(observation=seen, clean=x, alpha=alpha, record=record, notes=tuple(notes))


def _observed(
    degradation: Degradation, x: Image, level: float | ShotNoise, noise: Noise
) -> tuple[Measurement, float, float | None]:
    """Return an observation, its deviation, and the photons that make white if they count."""
    if isinstance(level, ShotNoise):
        made = observe_photons(degradation.operator(), x, level.peak, noise)
        return made.y, made.sigma_y, level.peak
    if degradation.task == "declip":
        # A camera clips what it has measured, noise included.
        y = observe(Denoising(), degradation.gain * x, level, noise).y.clamp(-1, 1)
    else:
        y = observe(degradation.operator(), x, level, noise).y
    return y, level, None


def _compressed(picture: Picture, x: Image, name: str, problem: Problem, seed: int) -> Degraded:
    """Return what a JPEG of a picture says of it."""
    quality = DEFAULT_QUALITY if problem.jpeg_quality is None else problem.jpeg_quality
    levels = to_bytes(x)
    file = PillowImage.fromarray(levels[:, :, 0] if x.shape[1] == 1 else levels)
    content = encoded(file, quality)
    shown = load_picture(content, name)
    seen = jpeg_observation(shown, name, None)
    record = Record(task="jpeg", size=picture.size, noise=seen.sigma_y, seed=seed)
    return Degraded(
        observation=seen, clean=x, alpha=picture.alpha, record=record,
        notes=picture.notes, jpeg=content,
    )  # fmt: skip


def _damage_mask(
    picture: Picture, name: str, problem: Problem, seed: int, size: tuple[int, int]
) -> MaskChoice:
    if problem.mask is None:
        raise UsageError(
            "making holes needs a mask.", f"For example:  --mask {DRAWS[0]}   or --mask FILE"
        )
    if problem.mask not in DRAWS:
        width, height = size
        small = replace(picture, pixels=picture.pixels[..., :height, :width])
        if problem.mask == "alpha" and size != picture.size:
            raise UsageError(
                "--mask alpha is for pictures that keep their size.", "Give a mask of a file."
            )
        return read_mask(
            problem.mask, small, name, invert=problem.invert_mask, resize=problem.resize_mask
        )
    if problem.invert_mask or problem.resize_mask:
        raise UsageError(
            f"--invert-mask and --resize-mask have no effect on --mask {problem.mask}.",
            "They are for mask files.",
        )
    return draw_mask(problem.mask, *size, derive_seed(seed, "mask"))
