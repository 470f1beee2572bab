"""Bicubic reduction: the usual way small pictures are made, beside the patch mean of Section 5."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from lavps_cli.core.reduction import check_scale, check_whole
from lavps_cli.core.types import Images, Measurement, PerPicture


@dataclass(frozen=True, eq=False)
class BicubicDownsampling:
    """A x = W_h x W_w^T, each row of W the cubic of Keys (1981) stretched by r, centred on a pixel.

    The convention of Pillow and MATLAB: a = -0.5, half-pixel centres, weights that leave the
    picture dropped and the rest scaled to sum 1.

    Args:
        scale: r, the factor of reduction; both sides of a picture are multiples of it.
    """

    scale: int

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def __call__(self, x: Images) -> Measurement:
        r = self.scale
        h, w = x.shape[-2:]
        check_whole(x, r, r, f"reduce by {r} to whole pixels")
        rows, columns = self._weights(h // r, x), self._weights(w // r, x)
        return rows @ x @ columns.mT

    def adjoint(self, y: Measurement) -> Images:
        h, w = y.shape[-2:]
        return self._weights(h, y).mT @ y @ self._weights(w, y)

    def ridge(self, y: Measurement, lam: PerPicture) -> Images:
        """Return A^T (A A^T + lam I)^-1 y, exact in the eigenvectors of W_h W_h^T and W_w W_w^T."""
        h, w = y.shape[-2:]
        values_h, vectors_h = _spectrum(h, self.scale, y.dtype, y.device)
        values_w, vectors_w = _spectrum(w, self.scale, y.dtype, y.device)
        z = vectors_h.mT @ y @ vectors_w / (values_h[:, None] * values_w + lam)
        return self.adjoint(vectors_h @ z @ vectors_w.mT)

    def pinv(self, y: Measurement) -> Images:
        """Return A^+ y; the rows of A are independent and A A^T is well conditioned."""
        return self.ridge(y, 0.0)

    def _weights(self, size: int, x: Images) -> Float[Tensor, "m n"]:
        return _weights(size, self.scale, x.dtype, x.device)


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _weights(
    size: int, scale: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "m n"]:
    """Return W from `size` r to `size` pixels."""
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) * scale
    pixel = torch.arange(size * scale, dtype=torch.float64) + 0.5
    u = ((pixel - centre[:, None]) / scale).abs()
    near = (1.5 * u - 2.5) * u**2 + 1
    far = ((-0.5 * u + 2.5) * u - 4) * u + 2
    weights = torch.where(u < 1, near, far) * (u < 2)
    return (weights / weights.sum(1, keepdim=True)).to(device, dtype)


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _spectrum(
    size: int, scale: int, dtype: torch.dtype, device: torch.device
) -> tuple[Float[Tensor, " m"], Float[Tensor, "m m"]]:
    """Return the eigenvalues and eigenvectors of W W^T."""
    weights = _weights(size, scale, torch.float64, torch.device("cpu"))
    values, vectors = torch.linalg.eigh(weights @ weights.mT)
    return values.to(device, dtype), vectors.to(device, dtype)
