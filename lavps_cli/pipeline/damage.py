"""What `degrade` and `--simulate` do to clean pictures."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lavps_cli.catalog import TaskName
from lavps_cli.core.likelihood import observe
from lavps_cli.core.noise import Noise
from lavps_cli.core.types import Image
from lavps_cli.errors import DataError, UsageError
from lavps_cli.images.alpha import solid_colours
from lavps_cli.images.picture import Picture
from lavps_cli.options import parse_noise
from lavps_cli.pipeline.degradation import (
    Degradation,
    boundary_of,
    check_kernel,
    given_kernel,
    implied_task,
)
from lavps_cli.pipeline.masks import DRAWS, MaskChoice, draw_mask, read_mask
from lavps_cli.pipeline.noise_level import FLOOR
from lavps_cli.pipeline.problem import Observation
from lavps_cli.pipeline.record import Record
from lavps_cli.pipeline.requests import Problem
from lavps_cli.pipeline.seeds import derive_seed


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
    height, width = x.shape[-2:]
    if task == "sr":
        scale = problem.scale or 4
        degradation = Degradation(task=task, scale=scale, downsample=problem.downsample or "area")
        h, w = height - height % scale, width - width % scale
        if h == 0 or w == 0:
            raise DataError(
                f"{name} is {width}x{height}: too small to shrink by {scale}.",
                "Take a larger picture.",
            )
        if (h, w) != (height, width):
            notes.append(f"{name} was cropped from {width}x{height} to {w}x{h}.")
            x = x[..., :h, :w]
    elif task == "deblur":
        kernel = given_kernel(problem)
        if kernel is None:
            raise UsageError("blurring needs a kernel.", "For example:  --kernel 21")
        check_kernel(kernel, picture, name)
        degradation = Degradation(
            task=task, kernel=kernel, boundary=boundary_of(problem, None, "reflect")
        )
    elif task == "inpaint":
        degradation = Degradation(task=task, mask=_damage_mask(picture, name, problem, seed))
    else:
        degradation = Degradation(task=task)
    given = parse_noise(problem.noise)
    sigma_y = 0.05 if given is None else given
    A = degradation.operator()
    noise = Noise([derive_seed(seed, "observation")], torch.device("cpu"))
    y = observe(A, x, sigma_y, noise).y
    record = Record(
        task=task,
        size=(y.shape[-1], y.shape[-2]),
        noise=sigma_y,
        seed=seed,
        scale=degradation.scale if task == "sr" else None,
        downsample=degradation.downsample if task == "sr" else None,
        kernel=degradation.kernel,
        boundary=degradation.boundary if task == "deblur" else None,
        mask=degradation.mask,
    )
    seen = Observation(
        degradation=degradation,
        A=A,
        y=y,
        sigma_y=max(sigma_y, FLOOR),
        noise_source="flags" if given is not None else "default",
        shape=(x.shape[-2], x.shape[-1]),
    )
    alpha = picture.alpha
    if alpha is not None:
        alpha = seen.seen(alpha[..., : x.shape[-2], : x.shape[-1]])
    return Degraded(observation=seen, clean=x, alpha=alpha, record=record, notes=tuple(notes))


def _damage_mask(picture: Picture, name: str, problem: Problem, seed: int) -> MaskChoice:
    if problem.mask is None:
        raise UsageError(
            "making holes needs a mask.", f"For example:  --mask {DRAWS[0]}   or --mask FILE"
        )
    if problem.mask not in DRAWS:
        return read_mask(
            problem.mask, picture, name, invert=problem.invert_mask, resize=problem.resize_mask
        )
    if problem.invert_mask or problem.resize_mask:
        raise UsageError(
            f"--invert-mask and --resize-mask have no effect on --mask {problem.mask}.",
            "They are for mask files.",
        )
    return draw_mask(problem.mask, *picture.size, derive_seed(seed, "mask"))
