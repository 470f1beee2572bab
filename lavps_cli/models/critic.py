"""A critic of restored pictures: which of two kinds is it, for this observation?"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lavps_cli.core.types import Image


class Critic(nn.Module):
    """Convolutions that halve the picture three times; one value for each place that is left.

    It sees the picture and, beside it, the linear estimate: what it judges is the pair.
    """

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        widths = [6, width, 2 * width, 4 * width]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.LeakyReLU(0.2)]
        self.net = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, x: Image, beside: Image) -> Float[Tensor, "b 1 m n"]:
        out: Tensor = self.net(torch.cat([x, beside], 1))
        return out
