"""Super-resolution from any anti-alias filter: blurred, then every r-th pixel kept."""

from dataclasses import dataclass

from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.solving import Planes, conjugate_gradients
from lavps_cli.core.types import Images, Measurement, PerPicture
from lavps_cli.errors import DataError, UsageError


@dataclass(frozen=True, eq=False)
class FilteredDownsampling:
    """A x = the pixels of B x at the centres of patches of r x r.

    Where r is even, the centre of a patch lies between pixels, and the one below it and to its
    right is kept.

    Args:
        blur: B, which keeps the size of pictures and does not mix their channels.
        scale: r, the factor of reduction; both sides of a picture are multiples of it.
        tolerance: Residual, relative to y, at which the iterations of `ridge` end.
        num_iterations: Their greatest number.
    """

    blur: LinearOperator
    scale: int
    tolerance: float = 1e-6
    num_iterations: int = 50

    def __post_init__(self) -> None:
        if self.scale < 1:
            raise UsageError(f"scale {self.scale} is not a positive whole number.", "Try scale 4.")

    def __call__(self, x: Images) -> Measurement:
        r = self.scale
        h, w = x.shape[-2:]
        if h % r or w % r:
            raise DataError(
                f"A picture of {w} x {h} pixels does not reduce by {r} to whole pixels.",
                f"Crop it to {w - w % r} x {h - h % r} pixels.",
            )
        return self.blur(x)[..., r // 2 :: r, r // 2 :: r]

    def adjoint(self, y: Measurement) -> Images:
        r = self.scale
        x = y.new_zeros(*y.shape[:-2], y.shape[-2] * r, y.shape[-1] * r)
        x[..., r // 2 :: r, r // 2 :: r] = y
        return self.blur.adjoint(x)

    def ridge(self, y: Measurement, lam: PerPicture) -> Images:
        """Return A^T (A A^T + lam I)^-1 y by conjugate gradients."""

        def matrix(z: Planes) -> Planes:
            return self(self.adjoint(z)) + lam * z

        wide = y if y.dtype.itemsize >= 4 else y.float()
        z = conjugate_gradients(matrix, lambda r: r, wide, self.tolerance, self.num_iterations)
        return self.adjoint(z).to(y.dtype)
