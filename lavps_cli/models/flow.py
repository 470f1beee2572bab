"""A conditional normalising flow x = G(z, y): exact samples and exact densities in one pass.

The network of amortised posterior sampling (APS, Mammadov, Chung and Ye 2024). A backbone reads
the observation once; what it says moves and scales the picture, and steers affine couplings
(RealNVP, Dinh et al. 2017) at several resolutions, coarsest first, each after Householder
reflections that mix the channels.
"""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lavps_cli.core.types import Image, PerImage
from lavps_cli.models.hdit import HDiT, HDiTConfig

FEATURES = 8
"""Of each pixel, for the couplings."""
CHANNELS_IN, CHANNELS_OUT = 6, 6 + FEATURES
SCALE, LOG_BOUND = 0.1, 2.0
"""Deviation of an untrained flow; greatest logarithm of a coupling's factor."""
REFLECTIONS = 4


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """Everything that fixes the shape of the flow."""

    backbone: HDiTConfig
    levels: int = 3
    """The coarsest couplings see blocks of 2^levels pixels as one."""
    depth: int = 4
    """Couplings of each level."""
    width: int = 64
    """Channels inside a coupling."""

    @property
    def multiple(self) -> int:
        """Heights and widths must be multiples of this."""
        return max(self.backbone.multiple, 2**self.levels)


@dataclass(frozen=True, eq=False)
class Condition:
    """What the backbone says of observations."""

    mean: Image
    log_scale: Image
    features: Float[Tensor, "b f h w"]

    def repeated(self, count: int) -> "Condition":
        """Return it with each row `count` times, one after the other."""
        parts = (self.mean, self.log_scale, self.features)
        return Condition(*(x.repeat_interleave(count, 0) for x in parts))


class Coupling(nn.Module):
    """Half of the channels move and scale the other half; reflections mix them before."""

    def __init__(self, channels: int, cond: int, width: int) -> None:
        super().__init__()
        half = channels // 2
        self.reflections = nn.Parameter(torch.randn(REFLECTIONS, channels))
        self.net = nn.Sequential(
            nn.Conv2d(half + cond, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * half, 3, padding=1),
        )
        last = self.net[-1]
        assert isinstance(last, nn.Conv2d)
        nn.init.zeros_(last.weight)
        assert last.bias is not None
        nn.init.zeros_(last.bias)

    def forward(self, h: Tensor, cond: Tensor) -> tuple[Tensor, PerImage]:
        for v in self.reflections:
            h = _reflected(h, v)
        a, b = h.chunk(2, 1)
        log_factor, shift = self._affine(a, cond)
        return torch.cat([a, b * log_factor.exp() + shift], 1), log_factor.sum((1, 2, 3))

    def inverse(self, h: Tensor, cond: Tensor) -> tuple[Tensor, PerImage]:
        """Return what `forward` takes to `h`, and the logarithm of its own determinant."""
        a, b = h.chunk(2, 1)
        log_factor, shift = self._affine(a, cond)
        h = torch.cat([a, (b - shift) * (-log_factor).exp()], 1)
        for v in self.reflections.flip(0):
            h = _reflected(h, v)
        return h, -log_factor.sum((1, 2, 3))

    def _affine(self, a: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
        log_factor, shift = self.net(torch.cat([a, cond], 1)).chunk(2, 1)
        return LOG_BOUND * torch.tanh(log_factor / LOG_BOUND), shift


def _reflected(h: Tensor, v: Tensor) -> Tensor:
    """Return the channels of `h` reflected at the plane that `v` is normal to."""
    v = v / v.norm()
    along = torch.einsum("bchw,c->bhw", h, v)
    return h - 2 * along[:, None] * v[:, None, None]


class FlowNetwork(nn.Module):
    """G and its inverse; heights and widths must be multiples of `config.multiple`."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        assert config.backbone.in_channels == CHANNELS_IN
        assert config.backbone.out_channels == CHANNELS_OUT
        self.config = config
        self.backbone = HDiT(config.backbone)
        self.couplings = nn.ModuleList(
            nn.ModuleList(
                Coupling(3 * 4**level, FEATURES * 4**level, config.width)
                for _ in range(config.depth)
            )
            for level in range(config.levels, 0, -1)
        )

    def condition(
        self, estimate: Image, coverage: Image, c_noise: Float[Tensor, " b"]
    ) -> Condition:
        """Return what observations say, one row each.

        Args:
            estimate: The linear estimate of x_0 out of y.
            coverage: How well each pixel is measured, 0 to 1.
            c_noise: log(sigma_y) / 4.
        """
        raw = self.backbone(torch.cat([estimate, coverage], 1), c_noise).float()
        mean, log_scale, features = raw.split([3, 3, FEATURES], 1)
        scale = torch.tensor(SCALE).log().item()
        return Condition(estimate + mean, scale + log_scale, features)

    def forward(self, z: Image, condition: Condition) -> tuple[Image, PerImage]:
        """Return x = G(z, y), and log |det dG/dz| per image."""
        h, log_det = z, z.new_zeros(len(z))
        for factor, couplings in self._levels():
            h, cond = F.pixel_unshuffle(h, factor), F.pixel_unshuffle(condition.features, factor)
            for coupling in couplings:
                h, more = coupling(h, cond)
                log_det = log_det + more
            h = F.pixel_shuffle(h, factor)
        x = condition.mean + condition.log_scale.exp() * h
        return x, log_det + condition.log_scale.sum((1, 2, 3))

    def inverse(self, x: Image, condition: Condition) -> tuple[Image, PerImage]:
        """Return z with G(z, y) = x, and log |det dz/dx| per image."""
        h = (x - condition.mean) * (-condition.log_scale).exp()
        log_det = -condition.log_scale.sum((1, 2, 3))
        for factor, couplings in reversed(self._levels()):
            h, cond = F.pixel_unshuffle(h, factor), F.pixel_unshuffle(condition.features, factor)
            for coupling in reversed(couplings):
                h, more = coupling.inverse(h, cond)
                log_det = log_det + more
            h = F.pixel_shuffle(h, factor)
        return h, log_det

    def log_density(self, x: Image, condition: Condition) -> PerImage:
        """Return log q(x | y) per image, without the constant of the normal density."""
        z, log_det = self.inverse(x, condition)
        return log_det - 0.5 * z.square().sum((1, 2, 3))

    def _levels(self) -> list[tuple[int, list[Coupling]]]:
        """Return the couplings with the side of their blocks of pixels, coarsest first."""
        factors = [2**level for level in range(self.config.levels, 0, -1)]
        return [
            (factor, list(cast(nn.ModuleList, couplings)))  # type: ignore[arg-type]
            for factor, couplings in zip(factors, self.couplings, strict=True)
        ]
