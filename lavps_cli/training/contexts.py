"""Draws of the context c for Algorithm 1.

Equations (18) and (19) draw x_t from a clean picture and x_0 = D(x_t, t). While sampling, x_0 has
already been pulled towards y, so that such contexts are not those the model meets. Here each
picture walks down its own diffusion trajectory under the current model, at its own step of its own
time grid. It costs one evaluation of the prior a context, as in the printed algorithm. What the
operator does not measure follows the clean picture, which so remains the target of a regression.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Generator, Tensor

from lavps_cli.core.denoiser import Denoiser
from lavps_cli.core.gaussian import DiagonalGaussian, bridge, forward_kernel
from lavps_cli.core.likelihood import Likelihood, corrupt
from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.schedule import over
from lavps_cli.core.types import Image, Time
from lavps_cli.core.variational import Context, context
from lavps_cli.models.inference import measured
from lavps_cli.training.rows import Rows

Problem: TypeAlias = Callable[[int], tuple[Image, LinearOperator]]
"""Number of the draw -> clean pictures and an operator for them, its parameters per picture."""


class Trajectories:
    """A batch of pictures of one problem, each somewhere on its way from noise to picture.

    Args:
        denoiser: The frozen prior.
        problem: Draws pictures and operators, for the rows of this object.
        sigma_y: Noise of the observations, on the [-1, 1] scale.
        rows: Which rows of the whole batch these are; all processes draw noise for the whole batch
            and keep theirs.
        generator: On the device of the pictures; the only source of randomness beside `problem`.
        num_steps: K of each trajectory is drawn from this range, uniform in its logarithm.
        life: Contexts drawn before all pictures, and so the operators, are drawn anew.
        highest: Trajectories begin at t <= `highest` T, the range of times to be learnt.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        problem: Problem,
        *,
        sigma_y: float,
        rows: Rows,
        generator: Generator,
        num_steps: tuple[int, int] = (15, 120),
        life: int = 24,
        highest: float = 1.0,
    ) -> None:
        self.denoiser, self.problem = denoiser, problem
        self.sigma_y, self.rows, self.generator = sigma_y, rows, generator
        self.num_steps, self.life, self.highest = num_steps, life, highest
        self._age, self._draws = life, 0
        self._K = self._k = torch.empty(0, dtype=torch.float64)
        """Number of steps of each trajectory, and where it is."""

    def normal_like(self, x: Tensor) -> Tensor:
        return self.rows.normal(tuple(x.shape[1:]), self.generator).to(x)

    def state(self) -> dict[str, Tensor]:
        """Return what resuming needs: tensors with a row for each picture, and the rest."""
        state = {"age": torch.tensor([self._age, self._draws])}
        if self._draws:
            state |= {"y": self._likelihood.y, "x0": self._x0, "xt_next": self._xt_next}
            state |= {"K": self._K, "k": self._k}
        return state | {"generator": self.generator.get_state()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`, whose tensors have the rows of the whole batch."""
        self._age, self._draws = (int(n) for n in state["age"])
        kept = state["generator"]
        if len(kept) == len(self.generator.get_state()):
            self.generator.set_state(kept)
        else:  # Of another kind of device.
            self.generator.manual_seed(self._age + self.life * self._draws)
        if self._draws:
            self._x, A = self.problem(self._draws - 1)
            rows = {name: value[self.rows.slice] for name, value in state.items()}
            self._likelihood = Likelihood(rows["y"].to(self._x), A, self.sigma_y)
            self._x0, self._xt_next = rows["x0"].to(self._x), rows["xt_next"].to(self._x)
            self._K, self._k = rows["K"], rows["k"]

    @torch.no_grad()
    def draw(self) -> Context:
        """Return the contexts of the present step, each picture at its own time."""
        if self._age >= self.life:
            self._restart()
        self._age += 1
        schedule = self.denoiser.schedule
        s, t, t_next = ((self._k + i) / self._K * schedule.T for i in (-1, 0, 1))
        xt = bridge(schedule, self._x0, self._xt_next, t, t_next).at(self.normal_like(self._x0))
        return context(self.denoiser, self._x0, xt, s, t, self._likelihood)

    def shift_to_clean(self, c: Context) -> Image:
        """Return what takes mu from the bridge of x_0 to that of the clean picture."""
        return bridge(self.denoiser.schedule, self._x, c.xt, c.s, c.t).mu - c.bridge.mu

    def unmeasured(self, c: Context, x: Image) -> Image:
        """Return the part of `x` that the operator does not measure."""
        return x - measured(c, self.denoiser.schedule, x)

    @torch.no_grad()
    def advance(self, c: Context, q: DiagonalGaussian, shift: Image) -> None:
        """Move every picture one step down by the prediction `q`; those that arrive begin again.

        Where A does not measure, the predicted shift gives way to that to the clean picture.
        """
        schedule = self.denoiser.schedule
        xs = q.at(self.normal_like(q.mu)) + self.unmeasured(c, self.shift_to_clean(c) - shift)
        xt = forward_kernel(schedule, xs, c.s, c.t).at(self.normal_like(xs))
        arrived = self._k <= 2
        self._k = torch.where(arrived, self._first(self._K), self._k - 1)
        t_next, begun = self._begun(self.normal_like(xs))
        rows = arrived.to(xs.device)[:, None, None, None]
        self._xt_next = torch.where(rows, begun, xt)
        self._x0 = self.denoiser(torch.where(rows, begun, xs), torch.where(arrived, t_next, c.s))

    def _restart(self) -> None:
        """Draw everything anew, each trajectory begun in its middle with a noisy clean picture."""
        self._x, A = self.problem(self._draws)
        self._draws += 1
        x, clean = self._x, A(self._x)
        self._likelihood = corrupt(A, clean, self.sigma_y, self.normal_like(clean))
        low, high = (torch.tensor(float(n), dtype=torch.float64).log() for n in self.num_steps)
        u, v = (self.rows.uniform(self.generator, dtype=torch.float64).cpu() for _ in range(2))
        self._K = (low + (high - low) * u).exp().round()
        self._k = (2 + (self._first(self._K) - 2) * v).round()
        t_next, self._xt_next = self._begun(self.normal_like(x))
        self._x0 = self.denoiser(self._xt_next, t_next)
        self._age = 0

    def _first(self, K: Tensor) -> Tensor:
        """Return the first step of trajectories of K steps."""
        return (self.highest * K).floor().clamp(min=2).minimum(K - 1)

    def _begun(self, noise: Image) -> tuple[Time, Image]:
        """Return the time of the step before the present one, and x_t there of clean pictures."""
        schedule, x = self.denoiser.schedule, self._x
        t_next = (self._k + 1) / self._K * schedule.T
        return t_next, over(schedule.alpha(t_next), x) * x + over(schedule.sigma(t_next), x) * noise
