"""Draws of the context c for Algorithm 1.

Equations (18) and (19) draw x_t from a clean picture and x_0 = D(x_t, t). While sampling, x_0 has
already been pulled towards y, so that such contexts are not those the model meets. Here each
picture walks down its own diffusion trajectory under the current model, at its own step of its own
time grid; it is replaced by a fresh one when it arrives. One evaluation of the prior a context, as
in the printed algorithm.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from lavps_cli.core.denoiser import Denoiser
from lavps_cli.core.gaussian import DiagonalGaussian, bridge, bridge_between
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.types import Image
from lavps_cli.core.variational import Context, context, objective

Problem: TypeAlias = Callable[[int], tuple[Image, LinearOperator]]
"""Number of pictures -> clean pictures and one operator for them (parameters per picture)."""


@dataclass(eq=False)
class Trajectories:
    """A batch of pictures of one problem, each somewhere on its way from noise to picture."""

    denoiser: Denoiser
    problem: Problem
    sigma_y: float
    size: int
    generator: torch.Generator
    num_steps: tuple[int, int] = (25, 120)
    """K of each trajectory is drawn from this range, uniform in its logarithm."""
    life: int = 24
    """Contexts drawn before all pictures, and so the operators, are drawn anew."""

    def __post_init__(self) -> None:
        self.age = self.life

    def _randn(self, like: Image) -> Image:
        return torch.randn(like.shape, generator=self.generator)

    def _restart(self) -> None:
        x, A = self.problem(self.size)
        clean = A(x)
        measured = getattr(A, "measured", torch.ones_like)(clean)
        self.likelihood = Likelihood(
            clean + self.sigma_y * measured * self._randn(clean), A, self.sigma_y
        )
        low, high = (torch.tensor(float(n)).log() for n in self.num_steps)
        u, v = torch.rand(2, self.size, generator=self.generator, dtype=torch.float64)
        self.K = (low + (high - low) * u).exp().round()
        # Where on the way each one starts: from a noisy version of the clean picture, not from 1.
        self.k = (2 + (self.K - 3) * v).round()
        T = self.denoiser.schedule.T
        t = (self.k + 1) / self.K * T
        alpha, sigma = self.denoiser.schedule.alpha(t), self.denoiser.schedule.sigma(t)
        self.x = x
        self.xt_next = (
            alpha.float().view(-1, 1, 1, 1) * x + sigma.float().view(-1, 1, 1, 1) * self._randn(x)
        )
        self.x0 = self.denoiser(self.xt_next, t)
        self.age = 0

    @torch.no_grad()
    def draw(self) -> Context:
        """Return the contexts of the present step."""
        if self.age >= self.life:
            self._restart()
        self.age += 1
        schedule = self.denoiser.schedule
        s, t, t_next = ((self.k + i) / self.K * schedule.T for i in (-1, 0, 1))
        xt = bridge(schedule, self.x0, self.xt_next, t, t_next).at(self._randn(self.x0))
        return context(self.denoiser, self.x0, xt, s, t, self.likelihood)

    @torch.no_grad()
    def advance(self, c: Context, q: DiagonalGaussian) -> None:
        """Move every picture one step down by the prediction `q`; those that arrive begin again."""
        schedule = self.denoiser.schedule
        xs = q.at(self._randn(q.mu))
        t_next = (self.k + 1) / self.K * schedule.T
        x0 = self.denoiser(xs, c.s)
        xt = bridge_between(schedule, xs, self.xt_next, c.s, c.t, t_next).at(self._randn(xs))
        self.k = self.k - 1
        arrived = self.k < 2
        self.k = torch.where(arrived, self.K - 1, self.k)
        fresh = arrived.view(-1, 1, 1, 1)
        noise = self._randn(xt)
        self.xt_next = torch.where(fresh, noise, xt)
        if bool(arrived.any()):
            ones = torch.full((int(arrived.sum()),), schedule.T, dtype=torch.float64)
            x0[arrived] = self.denoiser(noise[arrived], ones)
        self.x0 = x0


def inference_loss(
    predict: Callable[[Context], DiagonalGaussian],
    trajectories: Trajectories,
) -> tuple[Tensor, dict[str, float]]:
    """Return Algorithm 1's loss on the present contexts, and move on.

    Each picture's L is divided by the objective's size at the previous x_0, so that noisy steps
    do not drown the others; the minimiser for each context is the same.
    """
    c = trajectories.draw()
    q = predict(c)
    w = trajectories._randn(c.x0)
    loss = objective(q, c, trajectories.denoiser, w)
    pixels = c.likelihood.y[0].numel()
    unit = (-c.likelihood.log_prob(c.x0) + 0.5 * pixels).detach()
    trajectories.advance(c, DiagonalGaussian(q.mu.detach(), q.rho.detach()))
    value = (loss / unit).mean()
    return value, {"L": float(loss.detach().mean()), "unit": float(unit.mean())}
