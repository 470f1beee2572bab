"""JPEG: the coefficients of blocks of 8 x 8 pixels, divided by the steps of a file's tables.

A JPEG file holds round(A x). The rounding is an error of deviation 1/sqrt(12), the same for every
coefficient: what is left is a linear problem with white noise. (ITU-T T.81, A.3; JFIF colours.)
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from lavps_cli.core.luma import YCBCR
from lavps_cli.core.operator import Gain
from lavps_cli.core.reduction import check_whole
from lavps_cli.core.types import Images, Measurement, PerPicture

SIDE = 8
Sampling: TypeAlias = tuple[int, int]
"""Pixels, down and to the right, that share a value of colour."""


@dataclass(frozen=True, eq=False)
class JpegCoefficients:
    """A x = DCT coefficients of luma and colour, each divided by its step.

    The measurement has one pixel for each smallest group of whole blocks, and its coefficients as
    channels: those of luma block by block, then those of the two colours.

    Args:
        steps: Of luma and of the two colours, on the scale of a picture in [-1, 1]; row and column
            are the vertical and horizontal frequency. One of luma alone: the channels of a picture
            are grey ones, each coded by itself.
        sampling: Pixels that share a value of colour.
        orientation: The picture's, of EXIF: how the blocks of the file were turned.
    """

    steps: Float[Tensor, "k 8 8"]
    sampling: Sampling = (1, 1)
    orientation: int = 1

    @property
    def patch(self) -> tuple[int, int]:
        """Height and width of a group of blocks, in pixels of the file."""
        return SIDE * self.sampling[0], SIDE * self.sampling[1]

    def __call__(self, x: Images) -> Measurement:
        x = turned_back(x, self.orientation)
        p, q = self.patch
        check_whole(x, p, q, f"divide into blocks of {q} x {p}")
        return (self._patches(x) @ self._matrix(x).mT).movedim(-1, -3)

    def _patches(self, x: Images) -> Float[Tensor, "*lead rows columns n"]:
        p, q = self.patch
        *lead, c, h, w = x.shape
        return (
            x.reshape(*lead, c, h // p, p, w // q, q)
            .movedim((-4, -2), (-5, -4))
            .reshape(*lead, h // p, w // q, c * p * q)
        )

    def _picture(self, patches: Float[Tensor, "*lead rows columns n"]) -> Images:
        p, q = self.patch
        *lead, rows, columns, n = patches.shape
        x = patches.reshape(*lead, rows, columns, n // (p * q), p, q)
        x = x.movedim((-5, -4), (-4, -2)).reshape(*lead, n // (p * q), rows * p, columns * q)
        return turned(x, self.orientation)

    def adjoint(self, y: Measurement) -> Images:
        return self._picture(y.movedim(-3, -1) @ self._matrix(y))

    def ridge(self, y: Measurement, lam: PerPicture) -> Images:
        """Return A^T (A A^T + lam I)^-1 y, exact in the singular vectors of a group of blocks."""
        u, s, vt = self._svd(y)
        weight = s / (s.square() + (lam.to(y) if isinstance(lam, Tensor) else lam))
        return self._picture((y.movedim(-3, -1) @ u * weight) @ vt)

    def spectral(self, gain: Gain, x: Images) -> Images:
        """Return V gain(s) V^T x."""
        _, s, vt = self._svd(x)
        seen = gain(s)
        unseen = float(gain(torch.zeros(1, dtype=torch.float64)))
        inside = self._patches(turned_back(x, self.orientation)) @ vt.mT
        return unseen * x + self._picture((inside * (seen - unseen).to(x)) @ vt)

    def pinv(self, y: Measurement) -> Images:
        """Return A^+ y: what a decoder shows, the colours of a group of pixels alike."""
        return self.ridge(y, 0.0)

    def within(self, x: Images, y: Measurement, reach: float) -> Images:
        """Return a picture whose coefficients differ from `y` by at most `reach`.

        Those that differ more are set to the nearest that does not, all others kept.
        """
        beyond = y - self(x)
        return x + self.pinv(beyond - beyond.clamp(-reach, reach))

    def _matrix(self, x: Tensor) -> Float[Tensor, "m n"]:
        return _matrix(self._key(), self.sampling, x.dtype, x.device)

    def _svd(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _svd(self._key(), self.sampling, x.dtype, x.device)

    def _key(self) -> tuple[float, ...]:
        return tuple(self.steps.flatten().tolist())


def turned(x: Measurement, orientation: int) -> Measurement:
    """Return a picture as it is meant to be seen (CIPA DC-008, 4.6.5)."""
    if orientation in (5, 6, 7, 8):
        x = x.mT
    if orientation in (2, 3, 6, 7):
        x = x.flip(-1)
    return x.flip(-2) if orientation in (3, 4, 7, 8) else x


def turned_back(x: Measurement, orientation: int) -> Measurement:
    """Return a picture as it lies in its file."""
    if orientation in (3, 4, 7, 8):
        x = x.flip(-2)
    if orientation in (2, 3, 6, 7):
        x = x.flip(-1)
    return x.mT if orientation in (5, 6, 7, 8) else x


def cosines() -> Float[Tensor, "8 8"]:
    """Return the DCT of 8 numbers as an orthonormal matrix, a row for each frequency."""
    at = torch.arange(SIDE, dtype=torch.float64)
    waves = torch.cos(torch.pi / SIDE * at[:, None] * (at + 0.5)) * (2 / SIDE) ** 0.5
    return torch.cat([waves[:1] / 2**0.5, waves[1:]])


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _matrix(
    steps: tuple[float, ...], sampling: Sampling, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "m n"]:
    """Return what A does to one group of blocks."""
    q = torch.tensor(steps, dtype=torch.float64).view(-1, SIDE * SIDE, 1)
    down, right = sampling
    waves = cosines()
    if len(q) == 1:
        own = torch.kron(waves, waves) / q[0]
        return torch.kron(torch.eye(3, dtype=torch.float64), own).to(device, dtype)
    blocks = []
    for i in range(down):
        for j in range(right):
            rows = torch.zeros(SIDE, SIDE * down, dtype=torch.float64)
            columns = torch.zeros(SIDE, SIDE * right, dtype=torch.float64)
            rows[:, SIDE * i : SIDE * (i + 1)] = waves
            columns[:, SIDE * j : SIDE * (j + 1)] = waves
            blocks.append(_coded(rows, columns, YCBCR[0], q[0]))
    rows = waves.repeat_interleave(down, 1) / down
    columns = waves.repeat_interleave(right, 1) / right
    colours = [_coded(rows, columns, YCBCR[k], q[k]) for k in (1, 2)]
    return torch.cat([*blocks, *colours]).to(device, dtype)


def _coded(
    rows: Tensor, columns: Tensor, weights: tuple[float, ...], steps: Tensor
) -> Float[Tensor, "64 n"]:
    """Return the coefficients of one block of a mixture of red, green and blue."""
    mix = torch.tensor([weights], dtype=torch.float64)
    return torch.kron(mix, torch.kron(rows, columns)) / steps


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _svd(
    steps: tuple[float, ...], sampling: Sampling, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, s and V^T of that matrix."""
    matrix = _matrix(steps, sampling, torch.float64, torch.device("cpu"))
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    return u.to(device, dtype), s.to(device, dtype), vt.to(device, dtype)
