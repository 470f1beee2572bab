"""lambda_phi of equation (20): a residual on the bridge, by a network with the Palette design.

The observation reaches the network as the closed-form step that the likelihood asks for. With the
denoiser's Jacobian taken as kappa / alpha_s times the identity, the objective is quadratic and its
minimiser moves the bridge's mean by a ridge inverse of y - A(x0). That step, in deviations of the
bridge, is an input of the network, and a learnt gain times it is part of the output: the model
knows an operator only through its ridge inverse, whichever operator that is.

The rest of the output is split by what the operator measures. In measured directions the network
moves the mean in deviations of the bridge. In the others the objective says next to nothing, and
small errors of one sign would add up from step to step; there the network corrects x_0 instead, and
is trained to do so by regression (`training/amortisation.py`).
"""

from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lavps_cli.core.gaussian import DiagonalGaussian, bridge_weights
from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.schedule import Schedule, noise_ratio, of_rows, over
from lavps_cli.core.types import Image, Measurement, Time
from lavps_cli.core.variational import Context
from lavps_cli.errors import UsageError
from lavps_cli.models.degradation_layers import Seen
from lavps_cli.models.hdit import HDiT, HDiTConfig
from lavps_cli.models.hdit_layers import FourierFeatures
from lavps_cli.models.preconditioning import RATIO_MAX, SIGMA_DATA, c_noise, input_scale
from lavps_cli.models.tiled import blend_windows

KAPPA = 0.7
"""The denoiser's Jacobian times alpha_s, as the closed-form step takes it."""
COND_WIDTH = 64
CHANNELS_IN, CHANNELS_OUT = 9, 9


def _reach(c: Context, schedule: Schedule) -> Image:
    """Return J s: how far the bridge's deviation s moves x_0, with J = kappa / alpha_s."""
    return KAPPA * c.bridge.rho[:, :1, :1, :1].sqrt() / over(schedule.alpha(c.s), c.x0)


def _ridge(c: Context, schedule: Schedule, z: Measurement) -> Image:
    """Return A^T (A A^T + sigma_y^2 / v I)^-1 z, v as in `closed_form_step`."""
    lam = c.likelihood.sigma_y**2 * (_reach(c, schedule) ** -2 + SIGMA_DATA**-2)
    return cast(LinearOperator, c.likelihood.A).ridge(z, lam)


def measured(c: Context, schedule: Schedule, x: Image) -> Image:
    """Return the part of `x` that the observation fixes better than the bridge does."""
    return _ridge(c, schedule, c.likelihood.A(x))


def closed_form_step(c: Context, schedule: Schedule) -> Image:
    """Return the step of mu that minimises the linearised objective, in deviations of the bridge.

    mu = m + (1 / J) A^T (A A^T + sigma_y^2 / v I)^-1 (y - A x0) with J = kappa / alpha_s, and v the
    variance that the bridge leaves to x0: (J s)^2 for a bridge of deviation s, but no more than
    that of pictures.
    """
    residual = c.likelihood.y - c.likelihood.A(c.x0)
    return _ridge(c, schedule, residual) / _reach(c, schedule)


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

    @property
    def backbone(self) -> HDiT:
        """The part that is worth compiling."""
        return self.network.backbone

    def tiled(self, tile: int, overlap: int) -> "AmortisedInference":
        """Return the same for pictures in windows of that side; 0 is the whole picture."""
        return replace(self, tile=tile, overlap=overlap)

    def __call__(self, c: Context) -> DiagonalGaussian:
        q, _ = self.predict(c)
        return q

    def predict(self, c: Context) -> tuple[DiagonalGaussian, Image]:
        """Return the start, and the shift of mu that counts where A does not measure."""
        schedule = self.schedule
        step = closed_form_step(c, schedule)
        scale = over(input_scale(schedule.alpha(c.t), schedule.sigma(c.t)), c.xt)
        picture = torch.cat([scale * c.xt, c.x0, step.asinh()], 1)
        noise_t, noise_s = (self._noise(t, c) for t in (c.t, c.s))
        cond, gain = self.network.features(noise_s, c.likelihood.sigma_y)
        with torch.autocast(c.x0.device.type, self.autocast, enabled=self.autocast is not None):
            raw = self._backbone(picture, noise_t, cond, c).float()
        del picture  # Of a large one, everything that is kept counts.
        deviation = c.bridge.deviation
        mu = c.bridge.mu + deviation * gain.view(-1, 1, 1, 1) * step
        del step
        mean, log_rho, shift = raw.chunk(3, 1)
        rho = c.bridge.rho * log_rho.exp()
        on_x0, _ = bridge_weights(schedule, c.s, c.t)
        shift = over(on_x0, c.x0) * self._spread(c) * shift
        change = deviation * mean - shift
        del raw, mean, log_rho
        mu = mu + shift + measured(c, schedule, change)
        return DiagonalGaussian(mu, rho), shift

    def _seen(self, c: Context) -> Seen:
        """Return the observation for operator-aware layers, which need the whole picture.

        Raises:
            UsageError: The picture is to be cut into windows, and the network is not local.
        """
        if self.tile and not self.network.backbone.config.is_local:
            raise UsageError(
                "this inference model has operator-aware layers, and takes no windows.",
                "Go on without it:  --inference none",
            )
        h, w = c.x0.shape[-2:]
        return Seen(c.likelihood.y, cast(LinearOperator, c.likelihood.A), (h, w))

    def _spread(self, c: Context) -> Tensor:
        """Return how far pictures deviate from x_0 at time t, about."""
        ratio = over(noise_ratio(self.schedule, c.t), c.x0).clamp_max(RATIO_MAX)
        return SIGMA_DATA * ratio * torch.rsqrt(ratio**2 + SIGMA_DATA**2)

    def _noise(self, t: Time, c: Context) -> Float[Tensor, " b"]:
        return of_rows(c_noise(noise_ratio(self.schedule, t)), c.x0, torch.float32)

    def _backbone(self, picture: Image, noise_t: Tensor, cond: Tensor, c: Context) -> Tensor:
        backbone = self.network.backbone
        seen = self._seen(c) if backbone.config.joint else None

        def network(window: Image) -> Tensor:
            rows = len(window) // len(noise_t)
            conds = cond.repeat(rows, 1)
            return cast(Tensor, backbone(window, noise_t.repeat(rows), conds, seen=seen))

        return blend_windows(
            network,
            picture,
            tile=0 if seen is not None else self.tile,
            overlap=self.overlap,
            multiple=backbone.config.multiple,
        )
