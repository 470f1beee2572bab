"""The prior as samplers see it, and DDIM on it."""

from typing import Protocol, runtime_checkable

import torch

from lavps_cli.core.gaussian import bridge
from lavps_cli.core.noise import Noise
from lavps_cli.core.schedule import Schedule, over, time_at_ratio
from lavps_cli.core.types import Image, Time


@runtime_checkable
class Denoiser(Protocol):
    """D_{0|t}: predicts E[x0 | xt]; differentiable in `xt`."""

    @property
    def schedule(self) -> Schedule:
        """The schedule whose times it takes."""

    def __call__(self, xt: Image, t: Time) -> Image: ...


def denoised(denoiser: Denoiser, z: Image, ratio: Time) -> Image:
    """Return E[x0 | z] of z = x0 + ratio w, under any schedule; differentiable in `z`."""
    schedule = denoiser.schedule
    t = time_at_ratio(schedule, ratio)
    return denoiser(over(schedule.alpha(t), z) * z, t)


class CountedDenoiser:
    """A denoiser that counts its evaluations, per image of a batch of `batch` images.

    Evaluations do not depend on the machine; seconds do.
    """

    def __init__(self, denoiser: Denoiser, batch: int) -> None:
        self.inner = denoiser
        self.batch = batch
        self.nfe = 0.0
        """Forward evaluations."""
        self.nbe = 0.0
        """Backward evaluations."""

    @property
    def schedule(self) -> Schedule:
        return self.inner.schedule

    def __call__(self, xt: Image, t: Time) -> Image:
        share = len(xt) / self.batch
        self.nfe += share
        x0 = self.inner(xt, t)
        if x0.requires_grad:
            x0.register_hook(lambda _: self._count_backward(share))  # type: ignore[no-untyped-call]
        return x0

    def _count_backward(self, share: float) -> None:
        self.nbe += share


@torch.no_grad()
def ddim(
    denoiser: Denoiser, xs: Image, s: Time, num_steps: int, noise: Noise | None = None
) -> Image:
    """Return x0 after `num_steps` DDIM steps from time `s` to 0, uniform in time.

    Args:
        denoiser: The prior.
        xs: Noisy pictures at time `s`.
        s: Where to start.
        num_steps: M; 1 is a plain denoising.
        noise: Draws every step from the bridge (eta = 1); None keeps the noise that the
            denoiser sees in `xs` (eta = 0).
    """
    schedule = denoiser.schedule
    x0 = denoiser(xs, s)
    for k in range(num_steps - 1, 0, -1):
        t, s = s, s * k / (k + 1)
        if noise is None:
            ratio = schedule.sigma(s) / schedule.sigma(t)
            on_x0 = schedule.alpha(s) - ratio * schedule.alpha(t)
            xs = over(on_x0, x0) * x0 + over(ratio, xs) * xs
        else:
            xs = bridge(schedule, x0, xs, s, t).sample(noise)
        x0 = denoiser(xs, s)
    return x0
