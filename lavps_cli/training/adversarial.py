"""The adversarial part of a distillation, with both players in one loss (Goodfellow et al. 2014).

The restored picture is judged by a frozen copy of the critic, and the critic judges a detached
copy of the picture: one backward pass gives each player its own gradient.
"""

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from lavps_cli.core.types import Image
from lavps_cli.models.critic import Critic

PENALTY = 1.0
"""Weight of the squared gradient at clean pictures (R1, Mescheder et al. 2018), per pixel."""


def adversarial_loss(critic: Critic, xhat: Image, x: Image, beside: Image) -> tuple[Tensor, Tensor]:
    """Return the loss of the sampler and that of the critic.

    Args:
        critic: The one; it is trained with the second loss.
        xhat: Restored pictures.
        x: Clean pictures of the same observations.
        beside: Their linear estimates.
    """
    frozen = {name: w.detach() for name, w in critic.named_parameters()}
    fooling = F.softplus(-functional_call(critic, frozen, (xhat, beside))).mean()
    real = x.detach().requires_grad_()
    at_real = critic(real, beside)
    judging = F.softplus(critic(xhat.detach(), beside)).mean() + F.softplus(-at_real).mean()
    if torch.is_grad_enabled():
        (slope,) = torch.autograd.grad(at_real.sum(), real, create_graph=True)
        judging = judging + PENALTY * slope.square().flatten(1).sum(1).mean()
    return fooling, judging
