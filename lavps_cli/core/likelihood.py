"""The observation model y = A(x0) + sigma_y w, equations (5) and (6)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lavps_cli.core.noise import Noise
from lavps_cli.core.operator import Operator
from lavps_cli.core.types import Image, Measurement, PerImage


@dataclass(frozen=True, eq=False)
class Likelihood:
    """l_0(y | x0, A), with sigma_y on the [-1, 1] scale."""

    y: Measurement
    A: Operator
    sigma_y: float
    """Deviation of the noise; of shot noise, over the whole observation."""
    peak: float | None = None
    """Photons that make white: y counts them, 0 at -1; None is normal noise."""

    def log_prob(self, x0: Image) -> PerImage:
        """Return log l_0(y | x0, A) per image, without the constant."""
        if self.peak is not None:
            counts, rate = photons(self.y, self.peak), photons(self.A(x0), self.peak)
            return poisson_excess(counts, rate).flatten(1).sum(1)
        residual = self.y - self.A(x0)
        return -0.5 * residual.square().flatten(1).sum(1) / self.sigma_y**2


def photons(y: Measurement, peak: float) -> Measurement:
    """Return how many photons make the values of an observation on [-1, 1], white being `peak`."""
    return 0.5 * peak * (y + 1)


def poisson_excess(counts: Tensor, rate: Tensor) -> Tensor:
    """Return log p(counts | rate) - log p(counts | counts) of Poisson's law, 0 at the best rate.

    Below half a photon the parabola that continues it takes over, also for negative rates: a
    picture darker than black is led back.
    """
    least = 0.5
    safe = rate.clamp_min(least)
    below = rate - safe
    best = counts.clamp_min(least)
    excess = counts * (safe / best).log() - safe + best
    slope, bend = counts / safe - 1, counts / safe**2
    return excess + slope * below - 0.5 * (bend + 1) * below.square()


def shot_noise(y: Measurement, A: Operator, peak: float) -> float:
    """Return the deviation of shot noise over an observation, of which `peak` photons are white."""
    measured = is_measured(A, y)
    variance = (2 / peak * (y + 1)).clamp_min(2 / peak**2) * measured
    return float(variance.sum() / measured.sum()) ** 0.5


def corrupt(A: Operator, clean: Measurement, sigma_y: float, w: Measurement) -> Likelihood:
    """Return the likelihood of y = clean + sigma_y w, for a noiseless observation and a draw.

    Entries that A does not measure (those it sends to zero whatever the picture) carry no noise.
    """
    return Likelihood(clean + sigma_y * is_measured(A, clean) * w, A, sigma_y)


def is_measured(A: Operator, y: Measurement) -> Measurement:
    """Return 1 where an entry of `y` is a measurement, 0 where A sends every picture to zero."""
    measured: Measurement = getattr(A, "measured", torch.ones_like)(y)
    return measured


def observe(A: Operator, x0: Image, sigma_y: float, noise: Noise) -> Likelihood:
    """Return the likelihood of an observation drawn from equation (5)."""
    clean = A(x0)
    return corrupt(A, clean, sigma_y, noise.normal_like(clean))


def observe_photons(A: Operator, x0: Image, peak: float, noise: Noise) -> Likelihood:
    """Return the likelihood of an observation whose photons are counted, `peak` at white.

    Entries that A does not measure carry no noise.
    """
    clean = A(x0)
    counts = noise.poisson(photons(clean, peak).clamp_min(0))
    y = torch.where(is_measured(A, clean) > 0, 2 / peak * counts - 1, clean)
    return Likelihood(y, A, shot_noise(y, A, peak), peak)
