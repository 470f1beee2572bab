"""The variational problem of one diffusion step: objective (16), start, safeguard, refinement."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor

from lavps_cli.core.denoiser import Denoiser
from lavps_cli.core.gaussian import DiagonalGaussian, bridge
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.types import Image, PerImage, Time

Coordinates: TypeAlias = Literal["whitened", "raw"]


@dataclass(frozen=True, eq=False)
class Context:
    """c = (x0, xt, s, t, y, A), with the zero-shot start q_{s|0,t}(. | x0, xt)."""

    x0: Image
    xt: Image
    s: Time
    t: Time
    likelihood: Likelihood
    bridge: DiagonalGaussian

    def without_pictures(self) -> "Context":
        """Return c for what needs nothing but the bridge, whose mean stands for x0 and xt.

        Of a large picture, everything that is kept counts.
        """
        return replace(self, x0=self.bridge.mu, xt=self.bridge.mu)


def context(
    denoiser: Denoiser, x0: Image, xt: Image, s: Time, t: Time, likelihood: Likelihood
) -> Context:
    """Return c with its zero-shot start."""
    return Context(x0, xt, s, t, likelihood, bridge(denoiser.schedule, x0, xt, s, t))


@runtime_checkable
class InferenceModel(Protocol):
    """lambda_phi: predicts the minimiser of the objective."""

    def __call__(self, c: Context) -> DiagonalGaussian: ...


@dataclass(frozen=True, eq=False)
class Start:
    """Where the optimisation of one diffusion step begins."""

    q: DiagonalGaussian
    accepted: Bool[Tensor, " b"] | None = None
    """Which images took the predicted start; None where none was offered."""
    xs: Image | None = None
    """The draw from `q` at which the safeguard looked; None where it did not."""
    x0: Image | None = None
    """D(xs, s), which it needed for that."""


def objective(q: DiagonalGaussian, c: Context, denoiser: Denoiser, w: Image) -> PerImage:
    """Return L(mu, rho; c) of equation (16), one value per image.

    The likelihood is estimated at the one draw mu + sqrt(rho) w; the divergence is exact.
    """
    x0 = denoiser(q.at(w), c.s)
    return q.kl(c.bridge) - c.likelihood.log_prob(x0)


@torch.no_grad()
def initialise(
    c: Context,
    denoiser: Denoiser,
    inference: InferenceModel | None,
    noise: Noise,
    compared: Sequence[bool] | None = None,
) -> Start:
    """Return the start, lines 8 to 16 of Algorithm 2.

    The predicted start is kept image by image, wherever its objective is not larger than that of
    the bridge under the same noise. An image that is not `compared` keeps it unseen, which saves
    an evaluation.
    """
    zero_shot = c.bridge
    if inference is None:
        return Start(zero_shot)
    predicted = inference(c)
    b, device = len(c.x0), c.x0.device
    rows = [i for i, each in enumerate(compared or [True] * b) if each]
    w = noise.normal_like(c.x0)
    xs = torch.cat([predicted.at(w), zero_shot.at(w)])
    del w  # Of a large picture, everything that is kept counts.
    xs_ws, xs_zs = xs.chunk(2)
    if len(rows) == b:
        x0_ws, x0_zs = denoiser(xs, c.s if c.s.ndim == 0 else c.s.repeat(2)).chunk(2)
    else:
        times = c.s if c.s.ndim == 0 else torch.cat([c.s, c.s[rows]])
        found = denoiser(torch.cat([xs_ws, xs_zs[rows]]), times)
        x0_ws, of_rows = found[:b], found[b:]
        x0_zs = x0_ws.index_copy(0, torch.tensor(rows, dtype=torch.long, device=device), of_rows)
    loss_zs = -c.likelihood.log_prob(x0_zs)
    loss_ws = predicted.kl(zero_shot) - c.likelihood.log_prob(x0_ws)
    accepted = loss_ws <= loss_zs
    if len(rows) < b:
        accepted = accepted | ~torch.tensor(compared, device=device)
    if b == 1 and device.type == "cpu":  # Of large pictures only what is chosen is copied.
        q, row = (predicted, 0) if bool(accepted) else (zero_shot, 1)
        x0 = (x0_ws, x0_zs)[row]
        return Start(q, accepted, xs_ws.clone() if row == 0 else xs_zs.clone(), x0.clone())
    choose = accepted[:, None, None, None]

    def chosen(of_zero_shot: Image, of_predicted: Image) -> Image:
        return torch.where(choose, of_predicted, of_zero_shot)

    q = DiagonalGaussian(chosen(zero_shot.mu, predicted.mu), chosen(zero_shot.rho, predicted.rho))
    return Start(q, accepted, chosen(xs_zs, xs_ws), chosen(x0_zs, x0_ws))


@torch.no_grad()
def refine(
    q: DiagonalGaussian,
    c: Context,
    denoiser: Denoiser,
    noise: Noise,
    *,
    num_steps: int | Sequence[int],
    lr: float | PerImage,
    coordinates: Coordinates,
) -> DiagonalGaussian:
    """Return q after `num_steps` Adam steps on the objective, lines 17 to 19 of Algorithm 2.

    Optimises mu and log sqrt(rho); `whitened` measures mu in deviations of the bridge, which makes
    `lr` independent of the noise level. Adam starts afresh at every diffusion step. An image that
    is given fewer steps than another draws no noise for those it does not take. Adam moves by `lr`
    whatever the size of the gradient: its rate is 1, and the unit of an image is scaled by its own.
    """
    b = len(q.mu)
    steps = num_steps if isinstance(num_steps, Sequence) else [num_steps] * b
    if max(steps) == 0:
        return q
    rates = lr.to(q.mu) if isinstance(lr, Tensor) else q.mu.new_full((b,), lr)
    pace = rates[:, None, None, None]
    unit = pace * c.bridge.deviation if coordinates == "whitened" else pace
    u, v = (q.mu - c.bridge.mu) / unit, 0.5 * q.rho.log() / pace
    adam = torch.optim.Adam([u, v], lr=1.0, eps=1e-10, fused=u.is_cuda)
    for i in range(max(steps)):
        active = [count > i for count in steps]
        before = None if all(active) else (u.clone(), v.clone())
        shift = (pace * v).exp_().mul_(noise.some_like(q.mu, active))
        slope = misfit_slope(c, denoiser, (unit * u).add_(c.bridge.mu).add_(shift))
        # The divergence's part in closed form, so that autograd keeps nothing of it.
        rho = (2 * pace * v).exp_().div_(c.bridge.rho)
        v.grad = shift.mul_(slope).add_(rho).sub_(1).mul_(pace)
        del shift, rho
        u.grad = slope.add_((unit * u).div_(c.bridge.rho)).mul_(unit)
        del slope
        adam.step()
        u.grad = v.grad = None
        if before is not None:
            rows = torch.tensor(active, device=q.mu.device)[:, None, None, None]
            for new, old in zip((u, v), before, strict=True):
                new.copy_(torch.where(rows, new, old))
    refined = DiagonalGaussian(c.bridge.mu + unit * u, (2 * pace * v).exp())
    if min(steps) > 0:
        return refined
    rows = torch.tensor([count > 0 for count in steps], device=q.mu.device)[:, None, None, None]
    return DiagonalGaussian(
        torch.where(rows, refined.mu, q.mu), torch.where(rows, refined.rho, q.rho)
    )


def misfit_slope(c: Context, denoiser: Denoiser, xs: Image) -> Image:
    """Return the gradient of -log l(y | D(xs, s)) by xs, image by image."""
    with torch.enable_grad():
        xs = xs.requires_grad_()
        loss = -c.likelihood.log_prob(denoiser(xs, c.s)).sum()
        (slope,) = torch.autograd.grad(loss, xs)
    return slope
