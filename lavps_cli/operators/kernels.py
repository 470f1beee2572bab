"""Blur kernels: the camera shake of Section 5, straight motion, Gaussian, disk and box."""

import math
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from lavps_cli.errors import DataError, UsageError

Kernel: TypeAlias = Float[Tensor, "kh kw"]

_NUM_POINTS_PER_PIXEL = 64


def motion_kernel(size: int, intensity: int | float, generator: Generator) -> Kernel:
    """Return a camera-shake kernel: the path of a point with inertia, centred by its centroid.

    The velocity is a constant drift plus a stationary random walk that forgets its direction the
    sooner, and weighs the more, the greater the intensity. The longer side of the path fills 0.6
    to 0.95 of the kernel, or less where it would leave it.

    Args:
        size: Side in pixels, odd.
        intensity: From 0, straight and uniform, to 1, with bends, loops and halts.
        generator: On the CPU, so that a seed gives the same kernel on every device, and the same
            path at every size.
    """
    _check_odd(size)
    if not 0 <= intensity <= 1:
        raise UsageError(f"intensity {intensity} is not between 0 and 1.", "Try intensity 0.9.")
    path = _path(intensity, generator)
    at = torch.linspace(0, len(path) - 1, size * _NUM_POINTS_PER_PIXEL, dtype=torch.float64)
    before = at.long().clamp(max=len(path) - 2)
    path = torch.lerp(path[before], path[before + 1], (at - before)[:, None])
    path = path - path.mean(0)
    filled = 0.6 + 0.35 * torch.rand((), generator=generator, dtype=torch.float64)
    longer_side = (path.amax(0) - path.amin(0)).max()
    path = path * (size - 1) * torch.minimum(filled / longer_side, 0.5 / path.abs().max())
    return _summing_to_one(_tent(path[:, 1], size).mT @ _tent(path[:, 0], size))


def _path(intensity: int | float, generator: Generator) -> Float[Tensor, "n 2"]:
    """Return the positions of a shaken point at equal steps of the exposure, in any unit."""
    num_steps = 256
    angle = 2 * math.pi * torch.rand((), generator=generator, dtype=torch.float64)
    drift = 1.5 * torch.stack([angle.cos(), angle.sin()])
    # The memory falls from half the exposure to a tenth: chosen by eye to look like hand shake.
    memory = 0.5 * 0.2**intensity
    kept = math.exp(-1 / (num_steps * memory))
    draws = torch.randn(num_steps, 2, generator=generator, dtype=torch.float64)
    draws[1:] *= math.sqrt(1 - kept**2)
    step = torch.arange(num_steps, dtype=torch.float64)
    shake = (kept ** (step[:, None] - step)).tril() @ draws
    weight = intensity**0.7
    velocity: Tensor = (1 - weight) * drift + weight * shake
    return velocity.cumsum(0)


def line_kernel(length: int | float, degrees: int | float) -> Kernel:
    """Return straight uniform motion, in the least odd square that holds it.

    Args:
        length: In pixels.
        degrees: Direction of the motion, 0 = right, counter-clockwise as seen.
    """
    if not length >= 1:
        raise UsageError(f"length {length} is not at least one pixel.", "Try length 21.")
    num_points = math.ceil(length * _NUM_POINTS_PER_PIXEL)
    along = ((torch.arange(num_points, dtype=torch.float64) + 0.5) / num_points - 0.5) * length
    angle = math.radians(degrees)
    x, y = along * math.cos(angle), -along * math.sin(angle)
    # The nearest pixel along the motion and two neighbours across it: uniform at 0 and 90 degrees.
    flat = abs(math.cos(angle)) >= abs(math.sin(angle))
    size = 2 * math.ceil((length - 1) / 2) + 1
    rows = _tent(y, size) if flat else _nearest(y, size)
    columns = _nearest(x, size) if flat else _tent(x, size)
    return _summing_to_one(rows.mT @ columns)


def gaussian_kernel(size: int, sigma: int | float) -> Kernel:
    """Return a round Gaussian.

    Args:
        size: Side in pixels, odd.
        sigma: Standard deviation in pixels.
    """
    _check_odd(size)
    if not sigma > 0:
        raise UsageError(f"sigma {sigma} is not positive.", f"Try sigma {size / 6:.1f}.")
    profile = (-0.5 * (_offsets(size) / sigma) ** 2).exp()
    return _summing_to_one(profile[:, None] * profile)


def disk_kernel(size: int) -> Kernel:
    """Return a disk of diameter `size` pixels, out-of-focus blur; each weight is a covered area."""
    _check_odd(size)
    fine = 32
    offset = (torch.arange(size * fine, dtype=torch.float64) + 0.5) / fine - size / 2
    inside = offset[:, None] ** 2 + offset**2 <= (size / 2) ** 2
    return _summing_to_one(inside.double().reshape(size, fine, size, fine).sum((1, 3)))


def box_kernel(size: int) -> Kernel:
    """Return the mean over size x size pixels."""
    _check_odd(size)
    return _summing_to_one(torch.ones(size, size, dtype=torch.float64))


def normalise_kernel(kernel: Tensor) -> Kernel:
    """Return a kernel from outside with sum 1 and odd sides, or say why it cannot be one.

    Args:
        kernel: Weights in any real type. Negative values smaller than 1 percent of the greatest
            weight are taken for zero; an even side gets a row or column of zeros at its end.
    """
    if kernel.ndim != 2 or kernel.numel() == 0:
        shape = " x ".join(map(str, kernel.shape))
        raise DataError(
            f"The kernel has shape {shape or 'of a single number'}, not two axes.",
            "Give one grey picture or one matrix.",
        )
    weights = kernel.detach().to("cpu", torch.float64)
    if not weights.isfinite().all():
        raise DataError("The kernel holds values that are not finite.", "Replace NaN and infinity.")
    if weights.min() < -0.01 * weights.max():
        raise DataError(
            f"The kernel holds negative weights, down to {weights.min().item():.3g}.",
            "A blur kernel is non-negative: clip it, or check that the file is a kernel.",
        )
    weights = weights.clamp(min=0)
    if not weights.sum() > 0:
        raise DataError("The kernel is zero everywhere.", "Check that the file is a kernel.")
    height, width = weights.shape
    odd = torch.nn.functional.pad(weights, (0, 1 - width % 2, 0, 1 - height % 2))
    return _summing_to_one(odd)


def _check_odd(size: int) -> None:
    if size < 1 or size % 2 == 0:
        near = max(size, 0) + 1 - max(size, 0) % 2
        raise UsageError(f"size {size} is not a positive odd number.", f"Try size {near}.")


def _offsets(size: int) -> Float[Tensor, " k"]:
    """Return the coordinates of the pixels of one side, 0 in the centre."""
    return torch.arange(size, dtype=torch.float64) - size // 2


def _tent(position: Float[Tensor, " n"], size: int) -> Float[Tensor, "n k"]:
    """Return each point's share of the two pixels beside it, by linear interpolation."""
    return (1 - (position[:, None] - _offsets(size)).abs()).clamp(min=0)


def _nearest(position: Float[Tensor, " n"], size: int) -> Float[Tensor, "n k"]:
    return ((position[:, None] - _offsets(size)).abs() < 0.5).double()


def _summing_to_one(weights: Float[Tensor, "kh kw"]) -> Kernel:
    return (weights / weights.sum()).float()
