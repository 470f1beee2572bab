"""Super-resolution from any anti-alias filter: blurred, then every r-th pixel kept."""

from dataclasses import dataclass

from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.reduction import check_scale, check_whole
from lavps_cli.core.solving import iterated_ridge
from lavps_cli.core.types import Images, Measurement, PerPicture


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
        check_scale(self.scale)

    def __call__(self, x: Images) -> Measurement:
        r = self.scale
        check_whole(x, r, r, f"reduce by {r} to whole pixels")
        return self.blur(x)[..., r // 2 :: r, r // 2 :: r]

    def adjoint(self, y: Measurement) -> Images:
        r = self.scale
        x = y.new_zeros(*y.shape[:-2], y.shape[-2] * r, y.shape[-1] * r)
        x[..., r // 2 :: r, r // 2 :: r] = y
        return self.blur.adjoint(x)

    def ridge(self, y: Measurement, lam: PerPicture) -> Images:
        """Return A^T (A A^T + lam I)^-1 y by conjugate gradients."""
        return iterated_ridge(self, y, lam, self.tolerance, self.num_iterations)
