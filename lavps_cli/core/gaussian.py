"""Diagonal Gaussians over pictures: the forward kernel, the bridge, and their divergence."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lavps_cli.core.noise import Noise
from lavps_cli.core.schedule import Schedule, of_times, over, spread, transition
from lavps_cli.core.types import Image, PerImage, Time


@dataclass(frozen=True, eq=False)
class DiagonalGaussian:
    """N(mu, diag rho), one per image."""

    mu: Image
    rho: Image
    """Variance, as in the paper."""

    @property
    def deviation(self) -> Tensor:
        """sqrt(rho), of one element along axes along which rho is expanded."""
        rho: Tensor = self.rho
        for axis, step in enumerate(rho.stride()):
            rho = rho.narrow(axis, 0, 1) if step == 0 else rho
        return rho.sqrt()

    def at(self, w: Image) -> Image:
        """Return mu + sqrt(rho) w, the reparameterised sample."""
        return self.mu + self.deviation * w

    def sample(self, noise: Noise) -> Image:
        return self.at(noise.normal_like(self.mu))

    def kl(self, other: "DiagonalGaussian") -> PerImage:
        """Return KL(self || other), summed over the pixels of each image, in nats."""
        ratio = self.rho / other.rho
        of_rho = (ratio - 1 - ratio.log()).flatten(1).sum(1)
        del ratio  # Pictures are large.
        of_mu = ((self.mu - other.mu) ** 2 / other.rho).flatten(1).sum(1)
        return 0.5 * (of_rho + of_mu)


def forward_kernel(schedule: Schedule, xs: Image, s: Time, t: Time) -> DiagonalGaussian:
    """Return q_{t|s}(. | xs), equation (1)."""
    alpha_ts, sigma_ts = transition(schedule, s, t)
    return DiagonalGaussian(over(alpha_ts, xs) * xs, spread(sigma_ts**2, xs))


@of_times
def bridge_weights(schedule: Schedule, s: Time, t: Time) -> tuple[Time, Time]:
    """Return the coefficients of x0 and xt in the mean of q_{s|0,t}."""
    alpha_ts, sigma_ts = transition(schedule, s, t)
    var_t = schedule.sigma(t) ** 2
    return schedule.alpha(s) * sigma_ts**2 / var_t, alpha_ts * schedule.sigma(s) ** 2 / var_t


@of_times
def bridge_variance(schedule: Schedule, s: Time, t: Time) -> Time:
    """Return the variance of q_{s|0,t}."""
    _, sigma_ts = transition(schedule, s, t)
    return (sigma_ts * schedule.sigma(s) / schedule.sigma(t)) ** 2


def bridge(schedule: Schedule, x0: Image, xt: Image, s: Time, t: Time) -> DiagonalGaussian:
    """Return q_{s|0,t}(. | x0, xt), equations (21) and (22) with sigma_t^2 as denominator.

    The coefficient of `xt` is written without dividing by alpha_{t|s}, so that t = T with
    alpha_T = 0 needs no special case.
    """
    on_x0, on_xt = bridge_weights(schedule, s, t)
    mu = over(on_x0, x0) * x0 + over(on_xt, xt) * xt
    return DiagonalGaussian(mu, spread(bridge_variance(schedule, s, t), mu))


def bridge_between(
    schedule: Schedule, xs: Image, xt_next: Image, s: Time, t: Time, t_next: Time
) -> DiagonalGaussian:
    """Return q_{t|s,t_next}(. | xs, xt_next) for s < t < t_next, the three-time bridge.

    The product of q_{t|s}(. | xs) and q_{t_next|t}(xt_next | .); with s = 0 it is `bridge`.
    """
    alpha_ts, sigma_ts = transition(schedule, s, t)
    alpha_nt, sigma_nt = transition(schedule, t, t_next)
    var_ts, var_nt = sigma_ts**2, sigma_nt**2
    var_ns = var_nt + alpha_nt**2 * var_ts
    mu = over(alpha_ts * var_nt / var_ns, xs) * xs + over(alpha_nt * var_ts / var_ns, xs) * xt_next
    return DiagonalGaussian(mu, spread(var_ts * var_nt / var_ns, mu))


def standard_normal(shape: tuple[int, ...], noise: Noise, dtype: torch.dtype) -> Image:
    """Return x_T ~ N(0, I); `shape` is that of the batch."""
    assert len(noise) == shape[0]
    return noise.normal(shape[1:], dtype)
