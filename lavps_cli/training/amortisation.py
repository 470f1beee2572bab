"""Algorithm 1: the loss of the inference model is the variational objective itself."""

from collections.abc import Callable

import torch
from torch import Tensor

from lavps_cli.core.gaussian import DiagonalGaussian
from lavps_cli.core.variational import Context, objective
from lavps_cli.training.contexts import Trajectories


def inference_loss(
    predict: Callable[[Context], DiagonalGaussian], trajectories: Trajectories
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss on the present contexts and move on, one iteration of Algorithm 1.

    Each picture's L is divided by the size of the objective at its x_0, so that noisy steps do not
    drown the others; the minimiser for each context stays the same. The prior is frozen: its
    gradient goes through to (mu, rho), and on to the inference model.
    """
    c = trajectories.draw()
    q = predict(c)
    loss = objective(q, c, trajectories.denoiser, trajectories.normal_like(c.x0))
    unit = 0.5 * c.likelihood.y[0].numel() - c.likelihood.log_prob(c.x0)
    trajectories.advance(c, DiagonalGaussian(q.mu.detach(), q.rho.detach()))
    return (loss / unit.detach()).mean(), {"objective": float(loss.detach().mean())}


@torch.no_grad()
def gain_over_bridge(
    predict: Callable[[Context], DiagonalGaussian], trajectories: Trajectories
) -> dict[str, float]:
    """Return how the predicted start compares with the bridge on the present contexts.

    `ratio` is the mean of L(predicted) / L(bridge) under the same noise: 1 is no better than
    zero-shot. `accepted` is the share that the safeguard would keep.
    """
    c = trajectories.draw()
    q = predict(c)
    w = trajectories.normal_like(c.x0)
    at_bridge = objective(c.bridge, c, trajectories.denoiser, w)
    at_predicted = objective(q, c, trajectories.denoiser, w)
    trajectories.advance(c, q)
    return {
        "ratio": float((at_predicted / at_bridge).mean()),
        "accepted": float((at_predicted <= at_bridge).float().mean()),
    }
