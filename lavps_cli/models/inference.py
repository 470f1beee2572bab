"""lambda_phi of equation (20): a residual on the bridge, by a network with the Palette design.

The observation reaches the network as the closed-form step that the likelihood asks for. With the
denoiser's Jacobian taken as kappa / alpha_s times the identity, the objective is quadratic and its
minimiser moves the bridge's mean by a ridge inverse of y - A(x0). That step, in deviations of the
bridge, is an input of the network, and a learnt gain times it is part of the output: the model
knows an operator only through its ridge inverse, whichever operator that is.
"""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lavps_cli.core.gaussian import DiagonalGaussian
from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.schedule import Schedule, noise_ratio, over
from lavps_cli.core.types import Image, Time
from lavps_cli.core.variational import Context
from lavps_cli.models.hdit import FourierFeatures, HDiT, HDiTConfig
from lavps_cli.models.preconditioning import SIGMA_DATA, c_noise, input_scale
from lavps_cli.models.tiled import blend_windows

KAPPA = 0.7
"""The denoiser's Jacobian times alpha_s, as the closed-form step takes it."""
COND_WIDTH = 64
CHANNELS_IN, CHANNELS_OUT = 9, 6


def closed_form_step(c: Context, schedule: Schedule) -> Image:
    """Return the step of mu that minimises the linearised objective, in deviations of the bridge.

    mu = m + (1 / J) A^T (A A^T + sigma_y^2 / v I)^-1 (y - A x0) with J = kappa / alpha_s, and v the
    variance that the bridge leaves to x0: (J s)^2 for a bridge of deviation s, but no more than
    that of pictures.
    """
    A = cast(LinearOperator, c.likelihood.A)
    residual = c.likelihood.y - A(c.x0)
    reach = KAPPA * c.bridge.rho[:, :1, :1, :1].sqrt() / over(schedule.alpha(c.s), c.x0)
    lam = c.likelihood.sigma_y**2 * (reach**-2 + SIGMA_DATA**-2)
    return A.ridge(residual, lam) / reach


class InferenceNetwork(nn.Module):
    """The trainable part: an HDiT on (x_t, x_0, closed-form step), and the gain of that step.

    Zero-initialised outputs: untrained, it predicts the bridge exactly.
    """

    def __init__(self, config: HDiTConfig) -> None:
        super().__init__()
        assert config.in_channels == CHANNELS_IN
        assert config.out_channels == CHANNELS_OUT
        assert config.mapping_cond_dim == COND_WIDTH
        self.backbone = HDiT(config)
        self.cond_emb = FourierFeatures(2, COND_WIDTH)
        self.gain = nn.Linear(COND_WIDTH + 1, 1, bias=False)
        nn.init.zeros_(self.gain.weight)

    def features(
        self, noise_s: Float[Tensor, " b"], sigma_y: float
    ) -> tuple[Float[Tensor, " b f"], Float[Tensor, " b 1"]]:
        """Return the condition of the backbone and the gain."""
        level = torch.full_like(noise_s, sigma_y).log() / 4
        cond = self.cond_emb(torch.stack([noise_s, level], -1))
        return cond, self.gain(torch.cat([cond, torch.ones_like(cond[:, :1])], -1).float())


@dataclass(frozen=True, eq=False)
class AmortisedInference:
    """The network as an inference model for pictures of any size."""

    network: InferenceNetwork
    schedule: Schedule
    autocast: torch.dtype | None = None
    tile: int = 0
    """Side of the windows the backbone sees; 0 shows it the whole picture."""
    overlap: int = 0

    def __call__(self, c: Context) -> DiagonalGaussian:
        schedule = self.schedule
        step = closed_form_step(c, schedule)
        scale = over(input_scale(schedule.alpha(c.t), schedule.sigma(c.t)), c.xt)
        picture = torch.cat([scale * c.xt, c.x0, step.asinh()], 1)
        noise_t, noise_s = (self._noise(t, c) for t in (c.t, c.s))
        cond, gain = self.network.features(noise_s, c.likelihood.sigma_y)
        with torch.autocast(c.x0.device.type, self.autocast, enabled=self.autocast is not None):
            raw = self._backbone(picture, noise_t, cond)
        mean, log_rho = raw.float().chunk(2, 1)
        deviation = c.bridge.rho.sqrt()
        mu = c.bridge.mu + deviation * (mean + gain.view(-1, 1, 1, 1) * step)
        return DiagonalGaussian(mu, c.bridge.rho * log_rho.exp())

    def _noise(self, t: Time, c: Context) -> Float[Tensor, " b"]:
        return c_noise(noise_ratio(self.schedule, t)).float().to(c.x0.device).expand(len(c.x0))

    def _backbone(self, picture: Image, noise_t: Tensor, cond: Tensor) -> Tensor:
        backbone = self.network.backbone

        def network(window: Image) -> Tensor:
            rows = len(window) // len(noise_t)
            return cast(Tensor, backbone(window, noise_t.repeat(rows), cond.repeat(rows, 1)))

        return blend_windows(
            network,
            picture,
            tile=self.tile,
            overlap=self.overlap,
            multiple=backbone.config.multiple,
        )
