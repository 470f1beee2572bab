"""lambda_phi as the authors of LAVPS built and trained it: equation (20) by an HDiT alone.

The network sees x_t / alpha_t, x_0 and A^+ y side by side; what it returns is added to the mean of
the bridge, and to its log deviation. The noise ratios of t and s reach it as they are, through the
same Fourier features; that of s takes the place of a further condition.
"""

from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from lavps_cli.core.gaussian import DiagonalGaussian
from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.schedule import Schedule, noise_ratio, of_rows, over
from lavps_cli.core.types import Image, Images, Measurement, PerPicture, Time
from lavps_cli.core.variational import Context
from lavps_cli.errors import UsageError
from lavps_cli.models.degradation_layers import Seen
from lavps_cli.models.hdit import HDiT
from lavps_cli.models.tiled import blend_windows

CHANNELS_IN, CHANNELS_OUT = 9, 6


@dataclass(frozen=True, eq=False)
class _AsTrained:
    """An operator with the pseudo-inverse of that training: a blurred picture is its own."""

    A: LinearOperator
    size: tuple[int, int]

    def __call__(self, x: Images) -> Measurement:
        return self.A(x)

    def adjoint(self, y: Measurement) -> Images:
        return self.A.adjoint(y)

    def ridge(self, y: Measurement, lam: PerPicture) -> Images:
        return self.A.ridge(y, lam)

    def pinv(self, y: Measurement) -> Images:
        if hasattr(self.A, "pinv"):
            return self.A.pinv(y)
        return y if y.shape[-2:] == self.size else self.A.adjoint(y)


@dataclass(frozen=True, eq=False)
class BridgeResidual:
    """The network as an inference model."""

    network: HDiT
    schedule: Schedule
    """That of its training, DDPM's: the residual of the mean is in units of its x_s."""
    autocast: torch.dtype | None = None
    label: int | None = None
    """Class that the network is told, None for a network without classes."""
    tile: int = 0
    """Side of the windows the network sees; 0 shows it the whole picture."""
    overlap: int = 0

    @property
    def backbone(self) -> HDiT:
        """The part that is worth compiling."""
        return self.network

    def tiled(self, tile: int, overlap: int) -> "BridgeResidual":
        """Return the same for pictures in windows of that side; 0 is the whole picture."""
        return replace(self, tile=tile, overlap=overlap)

    def __call__(self, c: Context) -> DiagonalGaussian:
        h, w = c.x0.shape[-2:]
        A = _AsTrained(cast(LinearOperator, c.likelihood.A), (h, w))
        back = A.pinv(c.likelihood.y).to(c.x0).expand_as(c.x0)
        scaled = c.xt / over(self.schedule.alpha(c.t), c.xt)
        with torch.autocast(c.x0.device.type, self.autocast, enabled=self.autocast is not None):
            raw = self._windows(torch.cat([scaled, c.x0, back], 1), A, c)
        mean, log_deviation = raw.float().chunk(2, 1)
        return DiagonalGaussian(c.bridge.mu + mean, c.bridge.rho * (2 * log_deviation).exp())

    def _windows(self, picture: Image, A: _AsTrained, c: Context) -> Tensor:
        network = self.network
        seen = self._seen(A, c)
        ratio_t, ratio_s = self._ratio(c.t, c), self._ratio(c.s, c)
        cond = network.time_emb(ratio_s[:, None])

        def raw(window: Image) -> Tensor:
            rows = len(window) // len(ratio_t)
            told = None if self.label is None else window.new_full((len(window),), self.label)
            return cast(
                Tensor,
                network(
                    window,
                    ratio_t.repeat(rows),
                    cond.repeat(rows, 1),
                    None if told is None else told.long(),
                    seen,
                ),
            )

        return blend_windows(
            raw,
            picture,
            tile=0 if seen is not None else self.tile,
            overlap=self.overlap,
            multiple=network.config.multiple,
        )

    def _ratio(self, t: Time, c: Context) -> Float[Tensor, " b"]:
        return of_rows(noise_ratio(self.schedule, t), c.x0, torch.float32)

    def _seen(self, A: _AsTrained, c: Context) -> Seen | None:
        """Return the observation for operator-aware layers, None for a network without.

        Raises:
            UsageError: The picture is larger than those of the training.
        """
        if not any(self.network.config.joint_of(level) for level in self.network.config.levels):
            return None
        if self.tile and max(A.size) > self.tile:
            raise UsageError(
                f"this inference model has operator-aware layers, and takes pictures up to "
                f"{self.tile}x{self.tile}.",
                "Go on without it:  --inference none",
            )
        return Seen(c.likelihood.y, A, A.size)
