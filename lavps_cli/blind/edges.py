"""A picture of strong edges behind a blurred one: Pan et al. 2014, L0 gradients."""

from typing import TypeAlias

import torch
from jaxtyping import Complex, Float
from torch import Tensor

Plane: TypeAlias = Float[Tensor, "_h _w"]
_BETA_MAX = 1e4


def gradients(x: Plane) -> Float[Tensor, "2 _h _w"]:
    """Return forward differences to the right and below, the picture going on around its border."""
    return torch.stack([x.roll(-1, 1) - x, x.roll(-1, 0) - x])


def transfer(kernel: Plane, size: tuple[int, int]) -> Complex[Tensor, "_h _w2"]:
    """Return the transform of a centred kernel on a picture of a size."""
    (kh, kw), (h, w) = kernel.shape, size
    placed = torch.nn.functional.pad(kernel, (0, w - kw, 0, h - kh))
    return torch.fft.rfft2(placed.roll((-(kh // 2), -(kw // 2)), (0, 1)))


def filtered(x: Plane, kernel: Plane) -> Plane:
    """Return k * x, the picture going on around its border."""
    return torch.fft.irfft2(torch.fft.rfft2(x) * transfer(kernel, _size(x)), s=x.shape)


def tapered(y: Plane, radius: int) -> Plane:
    """Return `y` blended into its own blur near the border, so that it goes on around it."""
    side = 2 * radius + 1
    blurred = filtered(y, y.new_full((side, side), side**-2.0))
    weight = _ramp(y.shape[0], side)[:, None] * _ramp(y.shape[1], side)
    return weight.to(y) * y + (1 - weight.to(y)) * blurred


def strong_edges(y: Plane, kernel: Plane, strength: float) -> Plane:
    """Return argmin_x |k * x - y|^2 + strength |grad x|_0, by half-quadratic splitting.

    Args:
        y: Tapered blurred picture on [0, 1].
        kernel: k, odd sides.
        strength: Squared height below which a difference is no edge.
    """
    of_k = transfer(kernel, _size(y))
    right, below = y.new_zeros(1, 3), y.new_zeros(3, 1)
    right[0, 0], right[0, 1] = 1, -1
    below[0, 0], below[1, 0] = 1, -1
    of_d = torch.stack([transfer(right, _size(y)), transfer(below, _size(y))])
    data, power = of_k.conj() * torch.fft.rfft2(y), of_k.abs().square()
    power_d = of_d.abs().square().sum(0)
    x, beta = y, 2 * strength
    while beta < _BETA_MAX:
        g = gradients(x)
        g = g * (g.square().sum(0) > strength / beta)
        total = data + beta * (of_d.conj() * torch.fft.rfft2(g)).sum(0)
        x = torch.fft.irfft2(total / (power + beta * power_d), s=y.shape)
        beta *= 2
    return x


def _size(y: Plane) -> tuple[int, int]:
    return (y.shape[0], y.shape[1])


def _ramp(length: int, side: int) -> Float[Tensor, " n"]:
    at = torch.arange(length, dtype=torch.float64)
    return (torch.minimum(at, length - 1 - at) / side).clamp(max=1)
