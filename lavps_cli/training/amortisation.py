"""Algorithm 1: the loss of the inference model is the variational objective itself."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from lavps_cli.core.gaussian import DiagonalGaussian
from lavps_cli.core.types import Image
from lavps_cli.core.variational import Context, objective
from lavps_cli.training.contexts import Trajectories
from lavps_cli.training.log import Numbers

Predict: TypeAlias = Callable[[Context], tuple[DiagonalGaussian, Image]]
"""Context -> the start, and the shift of mu that counts where A does not measure."""

WEIGHT = 0.5
"""Of the term for what the operator does not measure."""
FLOOR = 0.1
"""Where less than this share of a picture's error is unmeasured, the term fades."""
BINS = 4
"""Equal ranges of t in which the gain is told."""


def inference_loss(predict: Predict, trajectories: Trajectories) -> tuple[Tensor, Numbers]:
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
    at_predicted = objective(q, c, trajectories.denoiser, trajectories.normal_like(c.x0))
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
    share = left / (before + FLOOR * whole)
    each = at_predicted / unit.detach() + WEIGHT * share
    trajectories.advance(c, DiagonalGaussian(q.mu.detach(), q.rho.detach()), shift.detach())
    return each.mean(), {"loss": each.detach(), "unmeasured": share.detach()}


@torch.no_grad()
def gain_over_bridge(predict: Predict, trajectories: Trajectories) -> Numbers:
    """Return how the predicted start compares with the bridge on the present contexts.

    `ratio` is L(predicted) / L(bridge) under the same noise, `ratio_t0` and so on the same for
    quarters of the time: 1 is no better than zero-shot. `accepted` is 1 where the safeguard would
    keep the prediction.
    """
    c = trajectories.draw()
    q, shift = predict(c)
    w = trajectories.normal_like(c.x0)
    at_bridge = objective(c.bridge, c, trajectories.denoiser, w)
    at_predicted = objective(q, c, trajectories.denoiser, w)
    trajectories.advance(c, q, shift)
    ratio = at_predicted / at_bridge
    part = (BINS * c.t / trajectories.denoiser.schedule.T).long().clamp_max(BINS - 1)
    bins = {f"ratio_t{i}": ratio[(part == i).to(ratio.device)] for i in range(BINS)}
    return {"ratio": ratio, "accepted": (at_predicted <= at_bridge).float()} | bins
