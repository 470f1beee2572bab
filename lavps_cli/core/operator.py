"""Degradation operators as the samplers see them: A of equation (5)."""

from collections.abc import Callable
from typing import Protocol, TypeAlias, runtime_checkable

from torch import Tensor

from lavps_cli.core.types import Images, Measurement, PerPicture

Gain: TypeAlias = Callable[[Tensor], Tensor]
"""Singular values -> what the parts of a picture along them are multiplied by."""


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


@runtime_checkable
class SpectralOperator(LinearOperator, Protocol):
    """A linear operator A = U S V^T whose singular vectors are at hand."""

    def spectral(self, gain: Gain, x: Images) -> Images:
        """Return V gain(s) V^T x; directions that A does not see have s = 0.

        Raises:
            UsageError: This one has no singular vectors in closed form.
        """
