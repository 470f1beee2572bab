"""Motion deblurring of Section 5 and Appendix B: convolution with a kernel."""

from collections.abc import Hashable
from dataclasses import dataclass
from itertools import count
from typing import Literal, TypeAlias
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Complex, Float
from torch import Tensor
from torch.nn.functional import pad

from lavps_cli.core.operator import Gain
from lavps_cli.core.solving import Planes, by_channel, computable, conjugate_gradients
from lavps_cli.core.types import Images, Measurement, PerPicture
from lavps_cli.errors import DataError, UsageError

FLOOR = 1e-3
"""To `spectral`, frequencies weaker than this share of the strongest are not there."""
CHANNELS_TOGETHER = 2**22
"""Numbers of a picture from which one channel is transformed at a time: a transform holds four
times, the iterations of `ridge` ten times what they are given."""
KEPT_NUMBERS = 2**20
"""A kernel's transform of no more than so many is kept for the next call."""
Boundary: TypeAlias = Literal["circular", "reflect", "replicate", "valid"]


@dataclass(frozen=True, eq=False)
class Blur:
    """A x = k * x, a convolution: k is what becomes of a single bright point.

    Everything goes through the Fourier transform: on a CPU faster than a direct convolution from
    kernels of 5 x 5 on, and much faster for the adjoint. Half precision is computed in float32.

    Args:
        kernel: k, with odd sides. Its leading axes are the first ones of the pictures; without
            any, the same kernel serves every picture.
        boundary: What lies beyond the border. With "valid" nothing does: y keeps the pixels whose
            whole neighbourhood is in the picture, and is smaller by the side of k less 1.
        tolerance: Residual, relative to y, at which the iterations of `ridge` end.
        num_iterations: Their greatest number. For camera shake it leaves an error below 1e-5 with
            "valid" from lam = 1e-4 on; with "reflect" and "replicate" 1e-5 at lam = 0.1, 1e-3 at
            0.01, some percent at 1e-3.
    """

    kernel: Float[Tensor, "... kh kw"]
    boundary: Boundary
    tolerance: float = 1e-6
    num_iterations: int = 50

    def __post_init__(self) -> None:
        kh, kw = self.kernel.shape[-2:]
        if kh % 2 == 0 or kw % 2 == 0:
            raise DataError(
                f"The kernel is {kw} x {kh} pixels; both sides must be odd.",
                "Add a row or column of zeros at its end.",
            )

    def __call__(self, x: Images) -> Measurement:
        (h, w), (p, q) = x.shape[-2:], self._border()
        return by_channel(self._convolution(x, h - p, w - q).forward, x, CHANNELS_TOGETHER)

    def adjoint(self, y: Measurement) -> Images:
        return by_channel(self._convolution(y, *y.shape[-2:]).adjoint, y, CHANNELS_TOGETHER)

    def ridge(self, y: Measurement, lam: PerPicture) -> Images:
        """Return A^T (A A^T + lam I)^-1 y.

        Closed form when circular. Otherwise conjugate gradients, each channel of each picture with
        its own steps, preconditioned by the same filter on the picture padded with zeros.
        """
        convolution = self._convolution(y, *y.shape[-2:])
        power = convolution.transfer.abs().square()

        def matrix(z: Planes) -> Planes:
            if self.boundary == "valid":
                return convolution.filtered(z, power) + lam * z
            return convolution.forward(convolution.adjoint(z)) + lam * z

        def inverse(r: Planes) -> Planes:
            return convolution.filtered(r, 1 / (power + lam))

        def solution(r: Planes) -> Planes:
            if self.boundary == "circular":
                return convolution.adjoint(inverse(r))
            z = conjugate_gradients(matrix, inverse, r, self.tolerance, self.num_iterations)
            return convolution.adjoint(z)

        return by_channel(solution, y, CHANNELS_TOGETHER)

    def spectral(self, gain: Gain, x: Images) -> Images:
        """Return V gain(s) V^T x: with a circular boundary, s is the transfer function's size.

        Raises:
            UsageError: The boundary is another one.
        """
        if self.boundary != "circular":
            raise UsageError(
                f"a blur with boundary {self.boundary} has no singular vectors in closed form.",
                "Use:  --boundary circular   or a method that needs none: lavps, mgdm, dps, pigdm, "
                "diffpir, daps",
            )
        convolution = self._convolution(x, *x.shape[-2:])
        values = convolution.transfer.abs()
        weak = values < FLOOR * values.amax((-2, -1), keepdim=True)
        return convolution.filtered(computable(x), gain(values.masked_fill(weak, 0))).to(x.dtype)

    def _border(self) -> tuple[int, int]:
        """Return by how many rows and columns y is smaller than x."""
        kh, kw = self.kernel.shape[-2:]
        return (kh - 1, kw - 1) if self.boundary == "valid" else (0, 0)

    def _convolution(self, x: Images, h: int, w: int) -> "_Convolution":
        """Return A for measurements of h x w, the axes of the kernel in line with those of `x`."""
        *lead, kh, kw = self.kernel.shape
        height, width = h + self._border()[0], w + self._border()[1]
        if kh > height or kw > width:
            raise DataError(
                f"The kernel of {kw} x {kh} exceeds the picture of {width} x {height} pixels.",
                "Take a smaller kernel or a larger picture.",
            )
        if self.boundary == "circular":
            rows, columns, shift = h, w, (-(kh // 2), -(kw // 2))
        else:
            rows, columns, shift = _fast(h + kh - 1), _fast(w + kw - 1), (1 - kh, 1 - kw)
        size, radius = (rows, columns), (kh // 2, kw // 2)
        shared = x.ndim - len(lead) - 3
        transfer = self._transfer(computable(x[..., :0]), shared, size, shift)
        return _Convolution(transfer, size, (h, w), radius, self.boundary)

    def _transfer(
        self, like: Tensor, shared: int, size: tuple[int, int], shift: tuple[int, int]
    ) -> Complex[Tensor, "... _h _w"]:
        """Return the transform of k, shifted so that whatever is filtered begins at index 0.

        That of the last call is kept, as long as the operator: a sampler asks for it hundreds of
        times.
        """
        key = (like.dtype, like.device, shared, size)
        kept = _transfers.get(self)
        if kept is not None and kept[0] == key:
            return kept[1]
        (*lead, kh, kw), (rows, columns) = self.kernel.shape, size
        kernel = self.kernel.to(like).reshape(*lead, *(1,) * shared, 1, kh, kw)
        placed = pad(kernel, (0, columns - kw, 0, rows - kh)).roll(shift, (-2, -1))
        transfer = torch.fft.rfft2(placed)
        passing = transfer.requires_grad or transfer.is_inference()
        if transfer.numel() <= KEPT_NUMBERS and not passing:
            _transfers[self] = key, transfer
        return transfer


_transfers: WeakKeyDictionary[Blur, tuple[Hashable, Tensor]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class _Convolution:
    """The blur for y of size `on`, with the transform of k at hand, which has length `size`."""

    transfer: Complex[Tensor, "... _h _w"]
    size: tuple[int, int]
    on: tuple[int, int]
    radius: tuple[int, int]
    boundary: Boundary

    def forward(self, x: Planes) -> Planes:
        if self.boundary in ("reflect", "replicate"):
            x = _extended(_extended(x, -2, self), -1, self)
        return self.filtered(x, self.transfer)

    def adjoint(self, y: Planes) -> Planes:
        conjugate = self.transfer.conj()
        if self.boundary == "circular":
            return self.filtered(y, conjugate)
        x = self.filtered(y, conjugate, margin=(2 * self.radius[0], 2 * self.radius[1]))
        return x if self.boundary == "valid" else _folded(_folded(x, -2, self), -1, self)

    def filtered(self, x: Planes, by: Tensor, margin: tuple[int, int] = (0, 0)) -> Planes:
        """Return `x` with its transform multiplied, cut to the size of y and a margin."""
        result: Tensor = torch.fft.irfft2(torch.fft.rfft2(x, s=self.size) * by, s=self.size)
        return result[..., : self.on[0] + margin[0], : self.on[1] + margin[1]]


def _fast(length: int) -> int:
    """Return the least length >= `length` without prime factors beyond 5."""
    return next(n for n in count(length) if 30**20 % n == 0)


def _extended(x: Planes, dim: int, by: _Convolution) -> Planes:
    """Return `x` with the pixels beyond both ends of an axis."""
    n, p = x.shape[dim], by.radius[dim]
    if by.boundary == "reflect":
        before, after = x.narrow(dim, 1, p).flip(dim), x.narrow(dim, n - 1 - p, p).flip(dim)
    else:
        before = x.narrow(dim, 0, 1).repeat_interleave(p, dim)
        after = x.narrow(dim, n - 1, 1).repeat_interleave(p, dim)
    return torch.cat([before, x, after], dim)


def _folded(x: Planes, dim: int, by: _Convolution) -> Planes:
    """Return the adjoint of `_extended`: what was added goes back to where it came from."""
    p = by.radius[dim]
    n = x.shape[dim] - 2 * p
    before, inside, after = x.narrow(dim, 0, p), x.narrow(dim, p, n), x.narrow(dim, p + n, p)
    if by.boundary == "reflect":
        borders = [(1, before.flip(dim)), (n - 1 - p, after.flip(dim))]
    else:
        borders = [(0, before.sum(dim, keepdim=True)), (n - 1, after.sum(dim, keepdim=True))]
    for start, border in borders:
        room = (start, n - start - border.shape[dim])
        inside = inside + pad(border, room if dim == -1 else (0, 0, *room))
    return inside
