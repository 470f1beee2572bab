"""Supervised conditional denoisers: D(x_t, t | y, A), learnt on pairs of pictures and observations.

The network sees x_t and, beside it, what the observation says in closed form. With operator-aware
layers it is that of InvFusion (Elata et al. 2025); without, Palette's (Saharia et al. 2022).
"""

from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from lavps_cli.core.denoiser import Denoiser
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.schedule import Schedule
from lavps_cli.core.types import Image
from lavps_cli.models.degradation_layers import Seen
from lavps_cli.models.hdit import HDiT
from lavps_cli.models.hdit_layers import SelfAttention
from lavps_cli.models.preconditioning import SIGMA_DATA, PreconditionedDenoiser
from lavps_cli.models.tiled import blend_windows

CHANNELS_IN, CHANNELS_OUT = 6, 3


def estimate(likelihood: Likelihood) -> Image:
    """Return the linear estimate of x_0 out of y: the ridge inverse for pixels of known variance.

    InvFusion takes A^+ y, which for a blur is all noise.
    """
    A = cast(LinearOperator, likelihood.A)
    return A.ridge(likelihood.y, likelihood.sigma_y**2 / SIGMA_DATA**2)


def seen_by(network: HDiT, likelihood: Likelihood, x: Image) -> Seen | None:
    """Return the observation for operator-aware layers, None for a network without them."""
    if not network.config.joint:
        return None
    h, w = x.shape[-2:]
    y = likelihood.y.expand(len(x), *likelihood.y.shape[1:])
    return Seen(y, cast(LinearOperator, likelihood.A), (h, w))


class Given(nn.Module):
    """The network with an observation: a function of x_t and c_noise, as an unconditional one.

    Windows of side `tile` see what lies in them; 0, and always with operator-aware layers, stands
    for the whole picture.
    """

    def __init__(
        self, network: HDiT, likelihood: Likelihood, tile: int = 0, overlap: int = 0
    ) -> None:
        super().__init__()
        self.network, self.likelihood = network, likelihood
        self.beside = estimate(likelihood)
        self.tile, self.overlap = tile, overlap

    def forward(self, x: Image, c_noise: Tensor) -> Image:
        seen = seen_by(self.network, self.likelihood, x)
        beside = self.beside.expand(len(x), *self.beside.shape[1:])

        def raw(window: Tensor) -> Tensor:
            rows = len(window) // len(x)
            return cast(Tensor, self.network(window, c_noise.repeat(rows), seen=seen))

        return blend_windows(
            raw,
            torch.cat([x, beside.to(x)], 1),
            tile=0 if seen is not None else self.tile,
            overlap=self.overlap,
            multiple=self.network.config.multiple,
        )


def seeing(prior: HDiT, joint: int) -> HDiT:
    """Return a conditional network that begins as a prior: it does not look beside x_t yet.

    Operator-aware layers, `joint` feature images of them, are new: their keys begin as those of the
    pictures and their values as zero, which halves what attention returns, and twice the projection
    makes up for.
    """
    network = HDiT(replace(prior.config, in_channels=CHANNELS_IN, joint=joint, num_classes=0))
    state = {name: w for name, w in prior.state_dict().items() if not name.startswith("class_")}
    old = state["patch_in.proj.weight"]
    new = torch.zeros_like(network.patch_in.proj.weight)
    if old.ndim == 4:
        new[:, :CHANNELS_OUT] = old
    else:  # The channels of each pixel of a patch lie together.
        new.view(len(new), -1, CHANNELS_IN)[..., :CHANNELS_OUT] = old.view(
            len(old), -1, CHANNELS_OUT
        )
    network.load_state_dict(state | {"patch_in.proj.weight": new}, strict=not joint)
    for layer in network.modules():
        if isinstance(layer, SelfAttention) and hasattr(layer, "feature_degradation"):
            _begin_without(layer)
    return network


@torch.no_grad()
def _begin_without(layer: SelfAttention) -> None:
    """Have attention to the observation's tokens change nothing yet."""
    width = layer.level.width
    layer.jk_proj.weight.zero_()
    layer.jk_proj.weight[:, :width] = layer.qkv_proj.weight[width : 2 * width]
    layer.jv_proj.weight.zero_()
    layer.out_proj.weight *= 2


@dataclass(frozen=True, eq=False)
class ConditionalDenoiser:
    """A network that becomes a denoiser once it is given an observation."""

    kind: ClassVar[str] = "conditional"
    network: HDiT
    schedule: Schedule
    autocast: torch.dtype | None = None
    tile: int = 0
    overlap: int = 0

    def tiled(self, tile: int, overlap: int) -> "ConditionalDenoiser":
        """Return the same for pictures in windows of that side; 0 is the whole picture."""
        return replace(self, tile=tile, overlap=overlap)

    def given(self, likelihood: Likelihood) -> Denoiser:
        """Return E[x_0 | x_t, y] as a function of x_t and t."""
        network = Given(self.network, likelihood, self.tile, self.overlap)
        return PreconditionedDenoiser(network, self.schedule, autocast=self.autocast)
