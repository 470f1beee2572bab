"""Operator-aware layers: feature degradation (InvFusion, Elata et al. 2025), from its description.

Activations are read as pictures, which the operator of the observation degrades; beside them stands
the observation itself. What a network learns from the two holds for any operator.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.types import Images, Measurement

CHANNELS = 3


@dataclass(frozen=True, eq=False)
class Seen:
    """An observation, with the operator that made it from pictures of height h and width w."""

    y: Measurement
    A: LinearOperator
    size: tuple[int, int]
    """(h, w)"""


class FeatureDegradation(nn.Module):
    """Tokens of p x p pixels -> tokens that tell how they, seen through A, compare with y.

    Each token becomes its patch of k feature images; A takes each of them to measurements; a linear
    layer and GELU, the same for every entry of the measurements, mix them with y; the inverse of A
    brings the k results back, and patches become tokens again. With the pseudo-inverse where there
    is one, as the adjoint of a mean over r x r pixels would shrink by r^2; blurs have a gain near
    one, and take the adjoint.

    Args:
        width: Features of a token.
        pixels: p.
        images: k.
    """

    def __init__(self, width: int, pixels: int, images: int) -> None:
        super().__init__()
        self.pixels, self.images = pixels, images
        features = images * CHANNELS * pixels**2
        self.unpatch = nn.Linear(width, features, bias=False)
        self.mix = nn.Linear(images + 1, images, bias=False)
        self.patch = nn.Linear(features, width, bias=False)

    def forward(self, x: Float[Tensor, " b m n f"], seen: Seen) -> Float[Tensor, " b m n f"]:
        pictures = self._pictures(self.unpatch(x).float())
        height, width = seen.size
        measured = seen.A(pictures[..., :height, :width])
        rows = torch.cat([measured, seen.y[:, None].to(measured)], 1).movedim(1, -1)
        with torch.autocast(x.device.type, enabled=False):
            mixed = F.gelu(F.linear(rows, self.mix.weight)).movedim(-1, 1)
        back = getattr(seen.A, "pinv", seen.A.adjoint)(mixed)
        missing = (pictures.shape[-1] - width, pictures.shape[-2] - height)
        back = F.pad(back, (0, missing[0], 0, missing[1]))
        out: Tensor = self.patch(self._tokens(back).to(x.dtype))
        return out

    def _pictures(self, x: Float[Tensor, " b m n f"]) -> Images:
        b, h, w, _ = x.shape
        p = self.pixels
        x = x.view(b, h, w, self.images, CHANNELS, p, p).permute(0, 3, 4, 1, 5, 2, 6)
        return x.reshape(b, self.images, CHANNELS, h * p, w * p)

    def _tokens(self, x: Images) -> Float[Tensor, " b m n f"]:
        b, k, c, height, width = x.shape
        p = self.pixels
        x = x.view(b, k, c, height // p, p, width // p, p).permute(0, 3, 5, 1, 2, 4, 6)
        return x.reshape(b, height // p, width // p, k * c * p * p)
