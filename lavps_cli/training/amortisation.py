"""Algorithm 1: the loss of the inference model is the variational objective itself."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from lavps_cli.core.gaussian import DiagonalGaussian
from lavps_cli.core.types import Image
from lavps_cli.core.variational import Context, objective
from lavps_cli.training.contexts import Trajectories

Predict: TypeAlias = Callable[[Context], tuple[DiagonalGaussian, Image]]
"""Context -> the start, and the shift of mu that counts where A does not measure."""

WEIGHT = 0.5
"""Of the term for what the operator does not measure."""
FLOOR = 0.1
"""Where less than this share of a picture's error is unmeasured, the term fades."""


def inference_loss(predict: Predict, trajectories: Trajectories) -> tuple[Tensor, dict[str, float]]:
    """Return the loss on the present contexts and move on, one iteration of Algorithm 1.

    Each picture's L is divided by the size of the objective at its x_0, so that noisy steps do not
    drown the others; the minimiser for each context stays the same. The prior is frozen: its
    gradient goes through to (mu, rho), and on to the inference model.

    Where the operator does not measure, L hardly depends on mu, and errors far too small to show in
    it add up from step to step. There a second term asks the shift for the bridge of the clean
    picture, as a share of what the zero-shot start leaves (`unmeasured`; 1 is no better than that).
    """
    c = trajectories.draw()
    q, shift = predict(c)
    loss = objective(q, c, trajectories.denoiser, trajectories.normal_like(c.x0))
    unit = 0.5 * c.likelihood.y[0].numel() - c.likelihood.log_prob(c.x0)
    wanted = trajectories.shift_to_clean(c)
    left, before, whole = (
        x.square().flatten(1).sum(1)
        for x in (
            trajectories.unmeasured(c, wanted - shift),
            trajectories.unmeasured(c, wanted),
            wanted,
        )
    )
    share = (left / (before + FLOOR * whole)).mean()
    trajectories.advance(c, DiagonalGaussian(q.mu.detach(), q.rho.detach()), shift.detach())
    numbers = {"objective": float(loss.detach().mean()), "unmeasured": float(share.detach())}
    return (loss / unit.detach()).mean() + WEIGHT * share, numbers


@torch.no_grad()
def gain_over_bridge(predict: Predict, trajectories: Trajectories) -> dict[str, float]:
    """Return how the predicted start compares with the bridge on the present contexts.

    `ratio` is the mean of L(predicted) / L(bridge) under the same noise: 1 is no better than
    zero-shot. `accepted` is the share that the safeguard would keep.
    """
    c = trajectories.draw()
    q, shift = predict(c)
    w = trajectories.normal_like(c.x0)
    at_bridge = objective(c.bridge, c, trajectories.denoiser, w)
    at_predicted = objective(q, c, trajectories.denoiser, w)
    trajectories.advance(c, q, shift)
    return {
        "ratio": float((at_predicted / at_bridge).mean()),
        "accepted": float((at_predicted <= at_bridge).float().mean()),
    }
