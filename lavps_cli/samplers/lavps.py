"""Algorithm 2 of the paper. MGDM is the same call without an inference model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from lavps_cli.core.data_step import data_step
from lavps_cli.core.denoiser import Denoiser, ddim
from lavps_cli.core.gaussian import (
    DiagonalGaussian,
    bridge,
    bridge_between,
    forward_kernel,
    standard_normal,
)
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.schedule import ScheduleName, time_grid
from lavps_cli.core.step import OnStep, Step, check_steps
from lavps_cli.core.types import Image, PerImage
from lavps_cli.core.variational import (
    Context,
    Coordinates,
    InferenceModel,
    Start,
    context,
    initialise,
    refine,
)
from lavps_cli.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class LavpsOptions:
    """The settings of Algorithm 2; defaults as measured on the bundled prior."""

    num_steps: int = 100
    """K, diffusion steps, at least 3."""
    grad_steps_start: int = 1
    """G_start, gradient steps outside script-T (early, noisy times)."""
    grad_steps_end: int = 1
    """G_end, gradient steps inside script-T (later times), from an accepted start."""
    lr: float = 0.3
    """eta, step size of Adam; in deviations of the bridge when whitened."""
    lr_end: float = 0.03
    """The same from an accepted start, which is too near the optimum for steps of `lr`."""
    switch_ratio: float = 0.8
    """r_switch: script-T holds the last 1 - r_switch of the time grid."""
    switch_back: float = 1.0
    """Share of the time grid after which script-T ends; 1 as in the paper."""
    num_denoise: int = 1
    """M, DDIM steps from s to 0."""
    num_gibbs: int = 1
    """R, Gibbs repetitions."""
    grid: ScheduleName = "flow"
    """Times uniform under this schedule; the noise ratios count, not the prior's own times."""
    renoise: Literal["bridge", "forward"] = "forward"
    """`forward`: x_t ~ q(x_t | x_s) as printed; `bridge`: given the previous x_t too."""
    coordinates: Coordinates = "whitened"
    """`whitened` or `raw` coordinates of the optimisation."""
    settle: int = 0
    """After so many predicted starts kept in a row an image takes the next ones without comparing
    them, which saves an evaluation a step; 0 compares always, as in the paper."""
    data_step: bool = False
    """Whether a last step in closed form leads to the data (`core/data_step.py`); not the paper's,
    and in every preset: at low noise it gains several dB."""
    stochastic: bool = True
    """Whether DDIM draws noise (eta = 1) when M > 1; without, samples spread too far."""

    def __post_init__(self) -> None:
        for name, least in (("num_steps", 3), ("num_denoise", 1), ("num_gibbs", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least {least}.")
        for name in ("grad_steps_start", "grad_steps_end", "settle"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name)}; it cannot be negative.")
        for name in ("lr", "lr_end"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"{name} is {getattr(self, name)}; it must be positive.")
        for name in ("switch_ratio", "switch_back"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be in [0, 1].")
        for name, allowed in (
            ("grid", ("vp", "flow")),
            ("renoise", ("bridge", "forward")),
            ("coordinates", ("whitened", "raw")),
        ):
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"{name} is {getattr(self, name)!r}.", f"Choose from: {', '.join(allowed)}"
                )


def early_steps(options: LavpsOptions) -> int:
    """Return the number of steps before script-T, on which G_end and lambda_phi have no effect."""
    return min(max(options.num_steps - script_t(options).stop, 0), options.num_steps - 2)


def script_t(options: LavpsOptions) -> range:
    """Return the steps k of script-T, where G_end applies and lambda_phi is used.

    The paper's lasts to the end. It may end before: at the last, least noisy times the predicted
    start gains little, and gradient steps through the prior bring out more detail.
    """
    first, last = (
        round((1 - ratio) * options.num_steps)
        for ratio in (options.switch_back, options.switch_ratio)
    )
    return range(first + 1, last + 1)


def evaluations(options: LavpsOptions, warm: bool) -> tuple[int, int]:
    """Return the forward and backward evaluations of one picture if every start is accepted.

    Args:
        options: The settings.
        warm: Whether there is an inference model, whose evaluations count too.
    """
    nfe, nbe, offers, inside = 1, 0, 0, script_t(options)
    for k in range(options.num_steps - 1, 1, -1):
        late = k in inside
        grad = options.grad_steps_end if late else options.grad_steps_start
        offered = warm and late
        reused = offered and grad == 0 and options.num_denoise == 1
        nfe += options.num_gibbs * (grad + (0 if reused else options.num_denoise))
        nbe += options.num_gibbs * grad
        offers += options.num_gibbs if offered else 0
    compared = min(offers, options.settle) if options.settle else offers
    nfe += 2 * offers + compared  # The inference model, its candidate, and the other one.
    return nfe, nbe


def told(start: Start, options: LavpsOptions) -> list[bool] | None:
    """Return which images took the predicted start, None where none was offered or nothing differs.

    The only thing in a step that the host waits for, and only where the steps that follow hang on
    it.
    """
    if start.accepted is None:
        return None
    differs = options.grad_steps_end < options.grad_steps_start or options.settle > 0
    accepted: list[bool] | None = start.accepted.tolist() if differs else None
    return accepted


def num_grad_steps(
    options: LavpsOptions, late: bool, accepted: Sequence[bool] | None
) -> int | list[int]:
    """Return G_k; an image that fell back to the zero-shot start is given MGDM's steps too.

    Departs from line 17: without it, G_end = 0 would leave such an image without any guidance.
    """
    if not late:
        return options.grad_steps_start
    if accepted is None:
        return options.grad_steps_end
    fallback = max(options.grad_steps_start, options.grad_steps_end)
    return [options.grad_steps_end if each else fallback for each in accepted]


def all_move(num_grad: int | Sequence[int]) -> bool:
    """Return whether every image takes gradient steps, after which nothing is left of its start."""
    return (num_grad if isinstance(num_grad, int) else min(num_grad)) > 0


def rate(options: LavpsOptions, accepted: Bool[Tensor, " b"] | None) -> float | PerImage:
    """Return eta, by image; the paper's is the same for both starts.

    Adam's steps have the size of eta whatever the gradient: with the rate that suits the zero-shot
    start, the first one leads away from a good start.
    """
    if accepted is None:
        return options.lr
    return torch.where(accepted, options.lr_end, options.lr)


def descend(
    start: Start,
    q: DiagonalGaussian,
    num_grad: int | Sequence[int],
    c: Context,
    denoiser: Denoiser,
    options: LavpsOptions,
    noise: Noise,
) -> tuple[Image, Image]:
    """Return x_s ~ q and the x_0 that DDIM makes of it, lines 20 and 21.

    Where no gradient step changed the start, the safeguard has drawn x_s and denoised it already:
    with M = 1 nothing is left to do.
    """
    etas = noise if options.stochastic else None
    if start.xs is None or start.x0 is None or options.num_denoise > 1:
        xs = q.sample(noise)
        return xs, ddim(denoiser, xs, c.s, options.num_denoise, etas)
    steps = num_grad if isinstance(num_grad, Sequence) else [num_grad] * len(q.mu)
    moved = [count > 0 for count in steps]
    if not any(moved):
        return start.xs, start.x0
    rows = torch.tensor(moved, device=q.mu.device)[:, None, None, None]
    xs = torch.where(rows, q.at(noise.some_like(q.mu, moved)), start.xs)
    return xs, torch.where(rows, denoiser(xs, c.s), start.x0)


@torch.no_grad()
def lavps(
    denoiser: Denoiser,
    likelihood: Likelihood,
    options: LavpsOptions,
    *,
    shape: tuple[int, ...],
    noise: Noise,
    inference: InferenceModel | None = None,
    on_step: OnStep | None = None,
    begun: Step | None = None,
) -> Image:
    """Return one posterior sample per image, in the manner of Algorithm 2.

    Args:
        denoiser: The prior.
        likelihood: The observations, the operator and sigma_y; y gives the precision.
        options: The settings.
        shape: (b, c, h, w) of the pictures to draw.
        noise: One generator per image.
        inference: lambda_phi, used inside script-T; None gives MGDM.
        on_step: Called after every diffusion step.
        begun: Go on after this step of a run with the same settings so far; `noise` has to be a
            fork of that run's at that step.

    Raises:
        LavpsError: A value is not a number.
    """
    schedule, num_steps = denoiser.schedule, options.num_steps
    times, inside = time_grid(schedule, num_steps, options.grid), script_t(options)
    if begun is None:
        xt = standard_normal(shape, noise, likelihood.y.dtype)  # line 1
        x0 = denoiser(xt, times[-1])  # line 2
    else:
        xt, x0 = begun.xt, begun.x0
    done = 0 if begun is None else begun.done
    finite: list[Tensor] = []
    runs, settle = [0] * shape[0], options.settle
    for k in range(num_steps - 1 - done, 1, -1):  # line 3
        s, t, t_next = times[k - 1], times[k], times[k + 1]  # line 4, all weight on t_{k-1}
        late = k in inside
        xt_next = xt if options.renoise == "bridge" else None
        xt = bridge(schedule, x0, xt, s=t, t=t_next).sample(noise)  # line 5
        for _ in range(options.num_gibbs):  # line 6
            c = context(denoiser, x0, xt, s, t, likelihood)  # line 7
            compared = None if settle == 0 else [run < settle for run in runs]
            start = initialise(  # lines 8-16
                c, denoiser, inference if late else None, noise, compared
            )
            accepted, taken = told(start, options), start.accepted
            if accepted is not None:
                runs = [run + 1 if each else 0 for run, each in zip(runs, accepted, strict=True)]
            num_grad = num_grad_steps(options, late, accepted)
            c = c.without_pictures()
            del x0, xt  # Of a large picture, nothing is kept that is not needed.
            if all_move(num_grad):
                start = replace(start, xs=None, x0=None)
            q = refine(  # lines 17-19
                start.q, c, denoiser, noise,
                num_steps=num_grad, lr=rate(options, taken), coordinates=options.coordinates,
            )  # fmt: skip
            xs, x0 = descend(start, q, num_grad, c, denoiser, options, noise)  # lines 20-21
            del c, start, q
            if xt_next is not None:  # line 22
                xt = bridge_between(schedule, xs, xt_next, s, t, t_next).sample(noise)
            else:
                xt = forward_kernel(schedule, xs, s, t).sample(noise)
            del xs
        finite.append(x0.isfinite().all())
        if xt.device.type == "cpu" or k == 2:  # Elsewhere it would keep the device waiting.
            check_steps(finite, done + 1)
        if on_step is not None:
            on_step(Step(num_steps - k, num_steps - 2, x0, xt, taken))
    if options.data_step and isinstance(likelihood.A, LinearOperator):
        x0 = data_step(x0, likelihood, noise)
    return x0  # line 25
