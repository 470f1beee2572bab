"""Denoisers from scores of pictures with exploding noise (Song et al. 2021, Section 3.4).

Such a network was trained on x_0 + sigma w, pictures x_0 in [0, 1], and returns the gradient of the
log density. Tweedie's formula makes it a denoiser: E[x_0 | x] = x + sigma^2 score(x, sigma).
"""

from dataclasses import dataclass

import torch
from torch import nn

from lavps_cli.core.schedule import Schedule, of_rows, over
from lavps_cli.core.types import Image, Time
from lavps_cli.errors import UsageError


@dataclass(frozen=True, eq=False)
class ScoreDenoiser:
    """D_{0|t} from a score, for any schedule; pictures in [-1, 1] as everywhere."""

    network: nn.Module
    """Called with noisy pictures on the scale of [0, 1], and the deviation of their noise there."""
    schedule: Schedule
    sigma_min: float
    """Least deviation of the training, on the scale of [0, 1]."""
    sigma_max: float
    """Greatest."""
    multiple: int = 1
    """Heights and widths must be multiples of this."""
    autocast: torch.dtype | None = None

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < float("inf"):
            raise UsageError(f"sigma_min is {self.sigma_min}, sigma_max {self.sigma_max}.")

    def __call__(self, xt: Image, t: Time) -> Image:
        a, s = self.schedule.alpha(t).double(), self.schedule.sigma(t).double()
        # x_t / alpha_t, with the noise that is left at alpha_T = 0 brought to the greatest known.
        ratio = (s / a).clamp_max(2 * self.sigma_max)
        scale = torch.rsqrt(a**2 + s**2) * torch.sqrt(1 + ratio**2)
        x = 0.5 * (over(scale, xt) * xt + 1)
        sigma = 0.5 * ratio
        # Below the least deviation the score is that of the least; x_0 still tends to x.
        seen = of_rows(sigma.clamp_min(self.sigma_min), xt)
        with torch.autocast(xt.device.type, self.autocast, enabled=self.autocast is not None):
            out = self.network(x, seen)
        score = getattr(out, "sample", out).to(xt.dtype)
        return 2 * (x + over(sigma**2, xt) * score) - 1
