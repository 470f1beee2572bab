"""Linear systems of operators that have no inverse in closed form."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.types import Images, Measurement, PerPicture

Planes: TypeAlias = Float[Tensor, "... _h _w"]
_CHANNELS_TOGETHER, _OF_DEVICES = {"cpu": 2**19}, 2**22
"""Numbers of a measurement from which `iterated_ridge` solves for one channel at a time: less
memory, which a CPU's caches hold, for more operations, which other devices are slow to begin."""


def conjugate_gradients(
    matrix: Callable[[Planes], Planes],
    precondition: Callable[[Planes], Planes],
    y: Planes,
    tolerance: float,
    num_iterations: int,
) -> Planes:
    """Return z with matrix(z) = y by conjugate gradients; a plane that is done stays as it is.

    Args:
        matrix: Symmetric and positive, on planes.
        precondition: About its inverse, as symmetric and positive.
        y: The right side, every plane a system of its own.
        tolerance: Residual, relative to y, at which a plane is done.
        num_iterations: The most that are made.
    """

    def dot(a: Planes, b: Planes) -> Planes:
        product: Tensor = a * b
        return product.sum((-2, -1), keepdim=True)

    z, r = torch.zeros_like(y), y
    enough = tolerance**2 * dot(y, y)
    d = s = precondition(r)
    rs = dot(r, s)
    for _ in range(num_iterations):
        active = ~(dot(r, r) <= enough)  # so that a NaN goes on and is seen
        if not active.any():
            break
        q = matrix(d)
        step = torch.where(active, rs / torch.where(active, dot(d, q), 1), 0)
        z, r = z + step * d, r - step * q
        s = precondition(r)
        rs_next = dot(r, s)
        d = s + torch.where(active, rs_next / torch.where(active, rs, 1), 0) * d
        rs = rs_next
    return z


def iterated_ridge(
    A: LinearOperator, y: Measurement, lam: PerPicture, tolerance: float, num_iterations: int
) -> Images:
    """Return A^T (A A^T + lam I)^-1 y by conjugate gradients, of an A that mixes no channels.

    Of a large picture one channel at a time.

    Args:
        A: Of which `adjoint` alone is asked.
        y: Zero where A measures nothing.
        lam: Ridge.
        tolerance: Residual, relative to y, at which a plane is done.
        num_iterations: The most that are made.
    """

    def matrix(z: Planes) -> Planes:
        return A(A.adjoint(z)) + lam * z

    def solution(y: Planes) -> Planes:
        z = conjugate_gradients(matrix, lambda r: r, y, tolerance, num_iterations)
        return A.adjoint(z)

    return by_channel(solution, y, _CHANNELS_TOGETHER.get(y.device.type, _OF_DEVICES))


def by_channel(function: Callable[[Planes], Planes], x: Images, together: int) -> Tensor:
    """Return a function of the planes of `x`, in its type.

    Of pictures of more than `together` numbers one channel at a time.
    """
    if x[0].numel() <= together:
        return function(computable(x)).to(x.dtype)
    parts = torch.split(x, 1, -3)
    return torch.cat([function(computable(part)).to(x.dtype) for part in parts], -3)


def computable(x: Tensor) -> Tensor:
    """Return `x` in a type that has a Fourier transform everywhere, and digits for iterations."""
    return x if x.dtype == torch.float64 else x.float()
