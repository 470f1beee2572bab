"""EDM preconditioning (Karras et al. 2022, Table 1), written in (alpha_t, sigma_t).

The raw network is called at x_t / alpha_t with noise ratio sigma_t / alpha_t. Written without the
division, every coefficient stays finite at alpha_T = 0.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lavps_cli.core.schedule import Schedule, noise_ratio, of_rows, of_times, over
from lavps_cli.core.types import Image, Time
from lavps_cli.models.hdit import HDiT

SIGMA_DATA = 0.5
RATIO_MIN, RATIO_MAX = 2e-3, 160.0


def c_noise(ratio: Time) -> Time:
    """Return log(sigma / alpha) / 4, the noise level as networks see it."""
    return ratio.clamp(RATIO_MIN, RATIO_MAX).log() / 4


def input_scale(alpha: Time, sigma: Time, sigma_data: float = SIGMA_DATA) -> Time:
    """Return the factor that brings x_t to unit variance for data of that deviation."""
    return torch.rsqrt(sigma**2 + sigma_data**2 * alpha**2)


@of_times
def coefficients(schedule: Schedule, t: Time, *, sigma_data: float) -> tuple[Time, ...]:
    """Return the factors of x_t inside, the noise level, and the factors of x_t and the output."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    scale = input_scale(alpha, sigma, sigma_data)
    level = c_noise(noise_ratio(schedule, t))
    return scale, level, sigma_data**2 * alpha * scale**2, sigma * sigma_data * scale


@dataclass(frozen=True, eq=False)
class PreconditionedDenoiser:
    """D_{0|t} from a raw network, for any schedule."""

    network: nn.Module
    schedule: Schedule
    multiple: int = 1
    """Heights and widths must be multiples of this."""
    autocast: torch.dtype | None = None
    """Lower precision of the network's inside; its input and output stay float32."""
    label: int | None = None
    """Class that the network is told, None for a network without classes."""
    sigma_data: float = SIGMA_DATA
    """Deviation of pictures that the network was trained with."""

    def __call__(self, xt: Image, t: Time) -> Image:
        scale, level, skip, out = coefficients(self.schedule, t, sigma_data=self.sigma_data)
        noise = of_rows(level, xt)
        kind = xt.device.type
        with torch.autocast(kind, self.autocast, enabled=self.autocast is not None):
            raw = self.network(over(scale, xt) * xt, noise, **self._told(xt))
        return over(skip, xt) * xt + over(out, xt) * raw.to(xt.dtype)

    def _told(self, xt: Image) -> dict[str, Tensor]:
        if self.label is None:
            return {}
        return {"class_cond": torch.full((len(xt),), self.label, device=xt.device)}


def hdit_denoiser(
    network: HDiT,
    schedule: Schedule,
    autocast: torch.dtype | None = None,
    label: int | None = None,
    sigma_data: float = SIGMA_DATA,
) -> PreconditionedDenoiser:
    """Return the network as a prior."""
    multiple = network.config.multiple
    return PreconditionedDenoiser(network, schedule, multiple, autocast, label, sigma_data)
