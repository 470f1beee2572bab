"""The last step towards the data, in closed form."""

from typing import cast

import torch

from lavps_cli.core.likelihood import Likelihood, is_measured
from lavps_cli.core.noise import Noise
from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.types import Image


@torch.no_grad()
def data_step(x0: Image, likelihood: Likelihood, noise: Noise) -> Image:
    """Return the mean of x given y, where x0 is x with white errors of a variance v.

    A denoiser's last word leaves out of the observation what it cannot express. How much that is,
    the residual tells: beyond sigma_y, its mean square is v times that of A (the discrepancy
    principle). Then x0 + A^T (A A^T + sigma_y^2 / v I)^-1 (y - A x0) is the mean. A picture
    whose residual is no larger than the noise stays as it is; so does one that v = 0 fits.

    Entries count where A x0 stands out of the noise: of what is rounded to zero, as most
    coefficients of a JPEG, the error is far below that of rounding.

    Args:
        x0: The pictures.
        likelihood: The observations, of an operator with `ridge`.
        noise: One generator per image: the mean square of A is that of a normal draw.
    """
    A, sigma_y = cast(LinearOperator, likelihood.A), likelihood.sigma_y
    seen = A(x0)
    residual = likelihood.y - seen
    counts = is_measured(A, residual) * (seen.abs() > 3**0.5 * sigma_y)
    gain = (A(noise.normal_like(x0)).square() * counts).flatten(1).sum(1)
    excess = ((residual.square() - sigma_y**2) * counts).flatten(1).sum(1)
    v = torch.where(gain > 0, excess / gain.clamp_min(1e-30), 0)[:, None, None, None]
    lam = sigma_y**2 / v.clamp_min(1e-12)
    return torch.where(v > 0, x0 + A.ridge(residual, lam), x0)
