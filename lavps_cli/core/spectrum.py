"""The singular vectors of an operator as the samplers use them."""

import torch
from torch import Tensor

from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.operator import SpectralOperator
from lavps_cli.core.types import Images
from lavps_cli.errors import UsageError


def spectral_operator(likelihood: Likelihood, method: str) -> SpectralOperator:
    """Return the operator, whose singular vectors are at hand.

    Raises:
        UsageError: They are not.
    """
    A = likelihood.A
    if not isinstance(A, SpectralOperator):
        raise UsageError(
            f"{method} needs singular vectors, which {type(A).__name__} has not in closed form.",
            "Use:  --method lavps   or mgdm, dps, pigdm, diffpir, daps",
        )
    return A


def least_squares(A: SpectralOperator, y: Tensor) -> Images:
    """Return A^+ y = V s^-2 V^T A^T y, zero where A sees nothing."""
    return A.spectral(inverse_square, A.adjoint(y))


def inverse_square(s: Tensor) -> Tensor:
    """Return 1 / s^2, and 0 where s is 0."""
    return torch.where(s > 0, 1 / s.clamp_min(1e-30) ** 2, 0.0)
