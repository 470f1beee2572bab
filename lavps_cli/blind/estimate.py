"""The blur kernel of a photograph, from coarse to fine (Cho & Lee 2009, Pan et al. 2014)."""

from dataclasses import dataclass

import torch
from torch.nn.functional import interpolate, pad

from lavps_cli.blind.edges import Plane, filtered, gradients, strong_edges, tapered
from lavps_cli.blind.kernel import Kernel, apart_of, cleaned, kernel_between, similarity
from lavps_cli.core.types import Image, Measurement
from lavps_cli.errors import DataError, UsageError

MAX_SIDE = 384
"""Pixels of the crop that is looked at."""
CONFIDENT = 0.65
"""Estimates that agree less between the parts of a picture are doubtful."""
_ROUNDS = 5
_RIDGE = 1e-3
_WEAKER, _WEAKEST = 0.8, 1e-3
_FLAT = 1e-3


@dataclass(frozen=True, eq=False)
class Estimate:
    """A kernel and how far it can be trusted."""

    kernel: Kernel
    """Not negative, sum 1, centroid in the centre."""
    doubt: float
    """Deviation of what the error of the kernel adds to the observation, about: half of what the
    kernels of the two halves of the picture make different, on the scale of `y`."""
    confidence: float
    """0 to 1: the similarity of the kernels that the two halves of the picture give, less where the
    noise has more energy in the gradients than the picture."""

    @property
    def confident(self) -> bool:
        return self.confidence >= CONFIDENT


def estimate_kernel(y: Image, size: int, sigma_y: float) -> Estimate:
    """Return the kernel of a blurred picture; the same picture gives the same kernel.

    Args:
        y: (1, c, h, w) on [-1, 1].
        size: Side of the support, odd, at least 3.
        sigma_y: Deviation of the noise on the scale of `y`.

    Raises:
        UsageError: `size` is not odd or below 3.
        DataError: The picture is smaller than twice the kernel.
    """
    if size < 3 or size % 2 == 0:
        raise UsageError(f"size {size} is not an odd number of at least 3.", "Try size 21.")
    height, width = y.shape[-2:]
    if min(height, width) < 2 * size:
        raise DataError(
            f"A picture of {width}x{height} is too small for a kernel of {size}x{size}.",
            "Take a smaller kernel or a larger picture.",
        )
    plane = (busiest(y, MAX_SIDE)[0].double().mean(0) + 1) / 2
    energy = float(gradients(plane)[:, :-1, :-1].square().mean())
    of_noise = 2 * (sigma_y / 2) ** 2 / y.shape[1]
    if energy < _FLAT**2:
        delta = torch.zeros(size, size)
        delta[size // 2, size // 2] = 1
        return Estimate(delta, 0.0, 0.0)
    parts = plane.chunk(2, 0 if plane.shape[0] >= plane.shape[1] else 1)
    kernels = [_coarse_to_fine(part, size, sigma_y) for part in (plane, *parts)]
    # Parts that drown in noise agree on a point: their agreement counts as far as there is signal.
    audible = min(1.0, max(0.0, energy / of_noise - 1)) if of_noise > 0 else 1.0
    agreement = min(1.0, max(0.0, similarity(kernels[1], kernels[2])))
    # The whole picture has twice the data of a half: its kernel's error is half their difference.
    apart = filtered(plane, apart_of(kernels[1], kernels[2]))
    return Estimate(kernels[0].float(), float(apart.std()), agreement * audible)


def refitted(x: Measurement, y: Image, size: int) -> Kernel:
    """Return the kernel that explains a blurred picture by a restored one.

    Args:
        x: (1, c, h + size - 1, w + size - 1) on [-1, 1], restored beyond the border of `y`.
        y: (1, c, h, w), blurred.
        size: Side of the support, odd.
    """
    sharp, blurred = ((each[0].double().mean(0) + 1) / 2 for each in (x, y))
    radius = size // 2
    wide = pad(blurred[None, None], (radius,) * 4, mode="replicate")[0, 0]
    found = kernel_between(tapered(sharp, radius), tapered(wide, radius), size, _RIDGE)
    return cleaned(found, 0.05, 0.05).float()


def busiest(y: Image, side: int) -> Measurement:
    """Return the square crop with the strongest gradients, from a grid of half its side."""
    plane = y[0].double().mean(0)
    height, width = plane.shape
    h, w = min(side, height), min(side, width)
    tops = sorted({*range(0, height - h, side // 2), height - h})
    lefts = sorted({*range(0, width - w, side // 2), width - w})

    def strength(at: tuple[int, int]) -> float:
        crop = plane[at[0] : at[0] + h, at[1] : at[1] + w]
        return float(gradients(crop)[:, :-1, :-1].abs().mean())

    top, left = max(((t, s) for t in tops for s in lefts), key=strength)
    return y[..., top : top + h, left : left + w]


def _coarse_to_fine(plane: Plane, size: int, sigma_y: float) -> Kernel:
    sides = [size]
    while sides[-1] > 5:
        smaller = int(sides[-1] / 2**0.5)
        sides.append(max(3, smaller - 1 + smaller % 2))
    kernel = torch.zeros(3, 3, dtype=plane.dtype)
    kernel[1, 1] = 1
    for side in reversed(sides):
        share = side / size
        y = plane if share == 1 else _resized(plane, share)
        kernel = _resized(kernel, side / kernel.shape[0], side).clamp(min=0)
        kernel = kernel / kernel.sum()
        y = tapered(y, min(side // 2, min(y.shape) // 4))
        strength = 4e-3 + (sigma_y * share) ** 2
        for _ in range(_ROUNDS):
            x = strong_edges(y, kernel, strength)
            kernel = cleaned(kernel_between(x, y, side, _RIDGE), 0.05, 0.05)
            strength = max(strength * _WEAKER, _WEAKEST)
    return kernel


def _resized(plane: Plane, share: float, side: int | None = None) -> Plane:
    size = [side, side] if side else [max(3, round(n * share)) for n in plane.shape]
    return interpolate(plane[None, None], size, mode="bilinear", antialias=share < 1)[0, 0]
