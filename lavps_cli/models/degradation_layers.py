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

    Each token is the patch of k feature images; A takes each of them to measurements; a linear
    layer and GELU, the same for every entry of the measurements, mix them with y; the inverse of A
    brings the k results back, and patches become tokens again. With the pseudo-inverse where there
    is one, as the adjoint of a mean over r x r pixels would shrink by r^2; blurs have a gain near
    one, and take the adjoint.

    A width of k * 3 * p^2 features is read as it is, in the order (row, column, image, channel),
    as InvFusion does; any other passes through a linear layer on either side.

    Args:
        width: Features of a token.
        pixels: p.
        images: k.
    """

    def __init__(self, width: int, pixels: int, images: int) -> None:
        super().__init__()
        self.pixels, self.images = pixels, images
        features = images * CHANNELS * pixels**2
        self.deg_linear = nn.Linear(images + 1, images)
        fits = features == width
        self.unpatch = nn.Identity() if fits else nn.Linear(width, features, bias=False)
        self.patch = nn.Identity() if fits else nn.Linear(features, width, bias=False)

    def forward(self, x: Float[Tensor, " b m n f"], seen: Seen) -> Float[Tensor, " b m n f"]:
        pictures = self._pictures(self.unpatch(x).float())
        height, width = seen.size
        measured = seen.A(pictures[..., :height, :width])
        rows = torch.cat([seen.y[:, None].to(measured), measured], 1).movedim(1, -1)
        with torch.autocast(x.device.type, enabled=False):
            mixed = F.gelu(self.deg_linear(rows)).movedim(-1, 1)
        back = getattr(seen.A, "pinv", seen.A.adjoint)(mixed)
        missing = (pictures.shape[-1] - width, pictures.shape[-2] - height)
        back = F.pad(back, (0, missing[0], 0, missing[1]))
        out: Tensor = self.patch(self._tokens(back).to(x.dtype))
        return out

    def _pictures(self, x: Float[Tensor, " b m n f"]) -> Images:
        b, h, w, _ = x.shape
        p = self.pixels
        x = x.view(b, h, w, p, p, self.images, CHANNELS).permute(0, 5, 6, 1, 3, 2, 4)
        return x.reshape(b, self.images, CHANNELS, h * p, w * p)

    def _tokens(self, x: Images) -> Float[Tensor, " b m n f"]:
        b, k, c, height, width = x.shape
        p = self.pixels
        x = x.view(b, k, c, height // p, p, width // p, p).permute(0, 3, 5, 4, 6, 1, 2)
        return x.reshape(b, height // p, width // p, p * p * k * c)
