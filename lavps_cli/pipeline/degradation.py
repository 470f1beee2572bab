"""A concrete degradation, and what flags say about it."""

from dataclasses import dataclass
from typing import cast, get_args

from lavps_cli.catalog import SCALES, DownsampleName, TaskName
from lavps_cli.core.operator import LinearOperator
from lavps_cli.errors import DataError, UsageError
from lavps_cli.images.picture import Picture
from lavps_cli.operators.bicubic import BicubicDownsampling
from lavps_cli.operators.blur import Blur, Boundary
from lavps_cli.operators.denoising import Denoising
from lavps_cli.operators.inpainting import Inpainting
from lavps_cli.operators.super_resolution import SuperResolution
from lavps_cli.options import parse_noise
from lavps_cli.pipeline.kernels import MAX_SIDE, KernelChoice, read_kernel
from lavps_cli.pipeline.masks import MaskChoice
from lavps_cli.pipeline.record import Record
from lavps_cli.pipeline.requests import Problem

_FLAGS = {
    "scale": "sr",
    "downsample": "sr",
    "kernel": "deblur",
    "kernel_intensity": "deblur",
    "kernel_seed": "deblur",
    "blind": "deblur",
    "mask": "inpaint",
    "invert_mask": "inpaint",
    "resize_mask": "inpaint",
}
IMPLIED = {name: _FLAGS[name] for name in ("mask", "kernel", "scale")}
"""Flags that say the task by themselves."""

TOLERANCE = 1e-3
"""Of the ridge inverse, which only the inference model looks at: a fifth of the iterations."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Degradation:
    """A concrete way in which pictures of one size are damaged."""

    task: TaskName
    scale: int = 1
    downsample: DownsampleName = "area"
    kernel: KernelChoice | None = None
    boundary: Boundary = "valid"
    mask: MaskChoice | None = None

    def operator(self) -> LinearOperator:
        if self.task == "sr":
            reduce = SuperResolution if self.downsample == "area" else BicubicDownsampling
            return reduce(self.scale)
        if self.task == "deblur":
            assert self.kernel is not None
            return Blur(self.kernel.values, self.boundary, tolerance=TOLERANCE)
        if self.task == "inpaint":
            assert self.mask is not None
            return Inpainting(self.mask.values)
        return Denoising()

    @property
    def margin(self) -> tuple[int, int]:
        """How far the scene goes beyond what is seen, at the top and at the left."""
        if self.kernel is None or self.boundary != "valid":
            return 0, 0
        rows, columns = self.kernel.values.shape
        return rows // 2, columns // 2


def check_problem(problem: Problem) -> None:
    """Check what does not depend on the pictures.

    Raises:
        UsageError: Flags contradict one another, or one has an impossible value.
        DataError: The kernel cannot be used.
    """
    implied_task(problem)
    parse_noise(problem.noise)
    if problem.blind:
        blind_size(problem)
    given_kernel(problem)


def implied_task(problem: Problem) -> TaskName | None:
    """Return the task that flags name or imply, None where they say nothing.

    Raises:
        UsageError: They contradict one another.
    """
    given = [name for name in _FLAGS if getattr(problem, name) not in (None, False)]
    tasks = {name: _FLAGS[name] for name in given}
    task: str | None = problem.task
    if task is None:
        implied = [tasks[name] for name in IMPLIED if name in tasks]
        if len(set(implied)) > 1:
            flags = " and ".join(_option(name) for name in IMPLIED if name in tasks)
            raise UsageError(f"{flags} belong to different tasks.", "Say which:  --task NAME")
        task = implied[0] if implied else None
    for name, belongs in tasks.items():
        if task is not None and belongs != task:
            raise UsageError(
                f"{_option(name)} has no effect on --task {task}.", f"It is for --task {belongs}."
            )
    if task not in (None, "deblur") and problem.boundary != "auto":
        raise UsageError(f"--boundary has no effect on --task {task}.", "It is for --task deblur.")
    if problem.mask is None and (problem.invert_mask or problem.resize_mask):
        raise UsageError("--invert-mask and --resize-mask need a mask.", "Add:  --mask FILE")
    if problem.kernel is None and _draw_given(problem):
        raise UsageError("--kernel-intensity and --kernel-seed need a size.", "Add:  --kernel 21")
    if problem.blind and _draw_given(problem):
        raise UsageError(
            "--kernel-intensity and --kernel-seed draw a kernel, --blind estimates it.",
            "Leave either out.",
        )
    if problem.scale is not None and problem.scale not in SCALES:
        raise UsageError(
            f"--scale {problem.scale} is not offered.",
            f"Choose a whole number from {min(SCALES)} to {max(SCALES)}.",
        )
    return cast(TaskName | None, task)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def blind_size(problem: Problem) -> int:
    """Return the side within which an unknown kernel is estimated.

    Raises:
        UsageError: It is not given, or is not an odd number of 3 to `MAX_SIDE`.
    """
    spec = problem.kernel
    if spec is None or not spec.isdecimal():
        raise UsageError(
            "--blind needs the size within which to look for the kernel.",
            "For example:  --blind --kernel 21",
        )
    if not 3 <= int(spec) <= MAX_SIDE or int(spec) % 2 == 0:
        raise UsageError(
            f"--blind --kernel {spec}: not an odd number from 3 to {MAX_SIDE}.",
            "For example:  --blind --kernel 21",
        )
    return int(spec)


def given_kernel(problem: Problem) -> KernelChoice | None:
    """Return the kernel of `--kernel`, None where it is not given."""
    if problem.kernel is None:
        return None
    intensity = 0.9 if problem.kernel_intensity is None else problem.kernel_intensity
    choice = read_kernel(problem.kernel, intensity, problem.kernel_seed or 0)
    if not choice.assumed and _draw_given(problem):
        raise UsageError(
            "--kernel-intensity and --kernel-seed are for a drawn kernel.",
            f"Leave them out, or:  --kernel {max(choice.values.shape)}",
        )
    return choice


def _draw_given(problem: Problem) -> bool:
    return (problem.kernel_intensity, problem.kernel_seed) != (None, None)


def boundary_of(problem: Problem, record: Record | None, otherwise: Boundary) -> Boundary:
    """Return the boundary that flags name, else the record, else `otherwise`."""
    if problem.boundary in get_args(Boundary):
        return cast(Boundary, problem.boundary)
    return (record.boundary if record else None) or otherwise


def check_kernel(kernel: KernelChoice, picture: Picture, name: str) -> None:
    """Check that a picture shows more than the kernel mixes.

    Raises:
        DataError: It does not.
    """
    rows, columns = kernel.values.shape
    width, height = picture.size
    if rows > height or columns > width:
        raise DataError(
            f"the kernel is {columns}x{rows} but {name} is only {width}x{height}.",
            "Take a smaller kernel or a larger picture.",
        )
