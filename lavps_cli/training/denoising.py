"""The denoising loss, equation (4), with the weights of EDM."""

import torch
from torch import Tensor, nn

from lavps_cli.core.types import Image
from lavps_cli.models.preconditioning import RATIO_MAX, RATIO_MIN, SIGMA_DATA, c_noise


def denoising_loss(
    network: nn.Module,
    x: Image,
    generator: torch.Generator,
    *,
    log_mean: float = -0.4,
    log_std: float = 1.4,
    autocast: torch.dtype | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss and its mean by noise level.

    The noise ratio sigma_t / alpha_t is log-normal, one draw per image and stratified over the
    batch; the weight makes the network's target of unit variance at every level.
    """
    b = len(x)
    quantile = (torch.arange(b) + torch.rand(b, generator=generator)) / b
    log_ratio = log_mean + log_std * torch.special.ndtri(quantile.clamp(1e-5, 1 - 1e-5))
    ratio = log_ratio.exp().clamp(RATIO_MIN, RATIO_MAX)
    w = torch.randn(x.shape, generator=generator)
    r = ratio.view(-1, 1, 1, 1)
    norm = torch.rsqrt(r**2 + SIGMA_DATA**2)
    xt = x + r * w
    target = (x - SIGMA_DATA**2 * norm**2 * xt) / (r * SIGMA_DATA * norm)
    with torch.autocast(x.device.type, autocast, enabled=autocast is not None):
        raw = network(norm * xt, c_noise(ratio))
    each = (raw.float() - target).square().mean((1, 2, 3))
    parts = each.detach().chunk(4)
    numbers = {f"loss_q{i}": float(part.mean()) for i, part in enumerate(parts)}
    return each.mean(), numbers
