"""A concrete degradation, and what flags say about it."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import cast, get_args

from lavps_cli.catalog import DOWNSAMPLES, MASKED, SCALES, TaskName
from lavps_cli.core.operator import LinearOperator
from lavps_cli.errors import DataError, UsageError
from lavps_cli.images.picture import Picture
from lavps_cli.operators.bicubic import BicubicDownsampling
from lavps_cli.operators.blur import Blur, Boundary
from lavps_cli.operators.colorization import Colorization
from lavps_cli.operators.denoising import Denoising
from lavps_cli.operators.filtered import FilteredDownsampling
from lavps_cli.operators.inpainting import Inpainting
from lavps_cli.operators.masked import Masked
from lavps_cli.operators.super_resolution import SuperResolution
from lavps_cli.options import ShotNoise, parse_noise
from lavps_cli.pipeline.kernels import MAX_SIDE, KernelChoice, read_kernel
from lavps_cli.pipeline.masks import MaskChoice
from lavps_cli.pipeline.record import Record
from lavps_cli.pipeline.requests import Problem

_SR, _DEBLUR = ("sr", "sr" + MASKED), ("deblur", "deblur" + MASKED)
_INPAINT = ("inpaint", "sr" + MASKED, "deblur" + MASKED)
_FLAGS: dict[str, tuple[str, ...]] = {
    "scale": _SR,
    "downsample": _SR,
    "kernel": _DEBLUR,
    "kernel_intensity": _DEBLUR,
    "kernel_seed": _DEBLUR,
    "blind": ("deblur",),
    "mask": _INPAINT,
    "invert_mask": _INPAINT,
    "resize_mask": _INPAINT,
    "jpeg_quality": ("jpeg",),
    "gain": ("declip",),
}
_IMPLYING = ("scale", "kernel", "mask", "jpeg_quality", "gain")
_MOST_GAIN = 16

TOLERANCE = 1e-3
"""Of the ridge inverse, which only the inference model looks at: a fifth of the iterations."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Degradation:
    """A concrete way in which pictures of one size are damaged."""

    task: TaskName
    scale: int = 1
    downsample: str = "area"
    """`area`, `bicubic`, or the spec of the filter."""
    filter: KernelChoice | None = None
    """Of a reduction that is neither."""
    kernel: KernelChoice | None = None
    doubt: float = 0.0
    """Deviation of what the error of an estimated kernel adds to the observation."""
    boundary: Boundary = "valid"
    mask: MaskChoice | None = None
    gain: float = 2.0

    @property
    def base(self) -> str:
        """The task without what is said of missing parts."""
        return self.task.removesuffix(MASKED)

    @property
    def known(self) -> MaskChoice | None:
        """The mask, where the pixels that it keeps are those of the result."""
        return self.mask if self.task == "inpaint" else None

    def operator(self) -> LinearOperator:
        """Return A, of a task whose operator does not depend on the observation."""
        if self.task == "inpaint":
            assert self.mask is not None
            return Inpainting(self.mask.values)
        whole = self._whole()
        return whole if self.mask is None else Masked(whole, self.mask.values, tolerance=TOLERANCE)

    def _whole(self) -> LinearOperator:
        if self.base == "sr":
            if self.filter is not None:
                blur = Blur(self.filter.values, "reflect")
                return FilteredDownsampling(blur, self.scale, tolerance=TOLERANCE)
            reduce = SuperResolution if self.downsample == "area" else BicubicDownsampling
            return reduce(self.scale)
        if self.base == "deblur":
            assert self.kernel is not None
            return Blur(self.kernel.values, self.boundary, tolerance=TOLERANCE)
        return Colorization() if self.task == "colorize" else Denoising()

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
    task, noise = implied_task(problem), parse_noise(problem.noise)
    if task == "jpeg" and noise is not None:
        raise UsageError(
            "--noise has no effect on --task jpeg: what was rounded away is told by the file.",
            "Leave it out.",
        )
    if task == "declip" and isinstance(noise, ShotNoise):
        raise UsageError("--task declip takes no shot noise.", "Say a deviation:  --noise 2/255")
    if problem.blind:
        blind_size(problem)
    given_kernel(problem)
    given_filter(problem)


def implied_task(problem: Problem) -> TaskName | None:
    """Return the task that flags name or imply, None where they say nothing.

    Raises:
        UsageError: They contradict one another.
    """
    given = [name for name in _FLAGS if getattr(problem, name) not in (None, False)]
    task: str | None = problem.task or task_of_flags(given)
    for name in given:
        if task is not None and task not in _FLAGS[name]:
            raise UsageError(
                f"{_option(name)} has no effect on --task {task}.",
                f"It is for --task {_FLAGS[name][0]}.",
            )
    if task not in (None, *_DEBLUR) and problem.boundary != "auto":
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
    if problem.jpeg_quality is not None and not 1 <= problem.jpeg_quality <= 100:
        raise UsageError(
            f"--jpeg-quality {problem.jpeg_quality} is not one.", "Choose a number from 1 to 100."
        )
    if problem.gain is not None and not 1 < problem.gain <= _MOST_GAIN:
        raise UsageError(
            f"--gain {problem.gain:g}: nothing would be clipped, or all."
            if problem.gain <= 1
            else f"--gain {problem.gain:g} leaves nothing of a picture.",
            f"Choose a number above 1, up to {_MOST_GAIN}; 2 is usual.",
        )
    return cast(TaskName | None, task)


def task_of_flags(given: Collection[str]) -> str | None:
    """Return the task that the names of flags say by themselves, None where they do not.

    Raises:
        UsageError: They contradict one another.
    """
    implying = [name for name in _IMPLYING if name in given]
    if not implying:
        return None
    fitting = set(_FLAGS[implying[0]]).intersection(*(_FLAGS[name] for name in implying))
    if not fitting:
        flags = " and ".join(_option(name) for name in implying)
        raise UsageError(f"{flags} belong to different tasks.", "Say which:  --task NAME")
    return min(fitting, key=len)


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


def given_filter(problem: Problem) -> KernelChoice | None:
    """Return the filter of `--downsample`, None where it is a name or not given.

    Raises:
        UsageError: It is no name, formula or file.
        DataError: The file holds no filter.
    """
    spec = problem.downsample
    if spec is None or spec in DOWNSAMPLES:
        return None
    try:
        choice = read_kernel(spec, 0.9, 0)
    except UsageError:
        choice = None
    if choice is None or choice.assumed:
        raise UsageError(
            f"--downsample {spec}: expected {', '.join(DOWNSAMPLES)}, or a filter.",
            "For example:  --downsample gaussian:9@1.6   or box:5, or an image/.npy file",
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
