"""Degradation operators as the samplers see them: A of equation (5)."""

from typing import Protocol, runtime_checkable

from lavps_cli.core.types import Images, Measurement, PerPicture


@runtime_checkable
class Operator(Protocol):
    """A differentiable map from pictures to noiseless observations, batched over leading axes."""

    def __call__(self, x: Images) -> Measurement: ...


@runtime_checkable
class LinearOperator(Operator, Protocol):
    """A linear operator with its adjoint and its ridge inverse.

    Parameters that differ between the images of a batch (a mask, a kernel) carry the same leading
    axes as the pictures. Entries of `y` that are not measurements are exactly zero.
    """

    def adjoint(self, y: Measurement) -> Images:
        """Return A^T y."""

    def ridge(self, y: Measurement, lam: PerPicture) -> Images:
        """Return A^T (A A^T + lam I)^-1 y, the ridge-regularised inverse, lam > 0."""
