"""Degraded pictures of which only a part is known: a mask after any other operator."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.solving import iterated_ridge
from lavps_cli.core.types import Images, Measurement, PerPicture
from lavps_cli.errors import DataError


@dataclass(frozen=True, eq=False)
class Masked:
    """A x = mask B x; what is missing is exactly zero.

    Args:
        inner: B, whose channels do not mix.
        mask: 1 = known, 0 = missing, of the size of B x. Its leading axes are the first ones of the
            pictures; without any, the same mask serves every picture.
        tolerance: Residual, relative to y, at which the iterations of `ridge` end.
        num_iterations: Their greatest number.
    """

    inner: LinearOperator
    mask: Float[Tensor, "... 1 h w"]
    tolerance: float = 1e-6
    num_iterations: int = 50

    def __call__(self, x: Images) -> Measurement:
        y = self.inner(x)
        return self.measured(y) * y

    def adjoint(self, y: Measurement) -> Images:
        return self.inner.adjoint(self.measured(y) * y)

    def ridge(self, y: Measurement, lam: PerPicture) -> Images:
        """Return A^T (A A^T + lam I)^-1 y by conjugate gradients."""
        known = self.measured(y) * y
        return iterated_ridge(self, known, lam, self.tolerance, self.num_iterations)

    def measured(self, y: Measurement) -> Measurement:
        """Return 1 where an entry of `y` is a measurement, 0 where it is zero for any picture."""
        *lead, _, h, w = self.mask.shape
        if y.shape[-2:] != (h, w):
            raise DataError(
                f"The mask is {w} x {h} pixels, the degraded picture "
                f"{y.shape[-1]} x {y.shape[-2]}.",
                "Give a mask of the size of the degraded picture, or resize it.",
            )
        shared = (1,) * (y.ndim - len(lead) - 3)
        return self.mask.to(y).reshape(*lead, *shared, 1, h, w).expand_as(y)
