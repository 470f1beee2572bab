"""Colourisation: a grey picture is the luma of the coloured one."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lavps_cli.core.luma import LUMA
from lavps_cli.core.operator import Gain
from lavps_cli.core.types import Images, Measurement, PerPicture
from lavps_cli.errors import DataError


@dataclass(frozen=True, eq=False)
class Colorization:
    """A x = 0.299 red + 0.587 green + 0.114 blue in one channel; A A^T is a multiple of I."""

    def __call__(self, x: Images) -> Measurement:
        if x.shape[-3] != 3:
            raise DataError(
                f"A picture of {x.shape[-3]} channels has no luma.", "Give red, green and blue."
            )
        return (_weights(x) * x).sum(-3, keepdim=True)

    def adjoint(self, y: Measurement) -> Images:
        return _weights(y) * y

    def ridge(self, y: Measurement, lam: PerPicture) -> Images:
        return self.adjoint(y) / (_POWER + lam)

    def spectral(self, gain: Gain, x: Images) -> Images:
        """Return V gain(s) V^T x: s = |weights| along them, 0 across."""
        seen, unseen = gain(torch.tensor([_POWER**0.5, 0.0], dtype=torch.float64)).tolist()
        return unseen * x + (seen - unseen) * self.pinv(self(x))

    def pinv(self, y: Measurement) -> Images:
        """Return A^+ y: the nearest colours to black that have this luma."""
        return self.adjoint(y) / _POWER


_POWER = sum(weight**2 for weight in LUMA)


def _weights(x: Tensor) -> Float[Tensor, "3 1 1"]:
    return torch.tensor(LUMA, dtype=x.dtype, device=x.device)[:, None, None]
