"""Learned perceptual image patch similarity (Zhang et al. 2018), version 0.1.

The linear layers are those of the `lpips` package, read from its files; neither the package nor
torchvision is imported. The trunk is an ImageNet classifier's feature extractor, in torchvision's
parameter names.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lavps_cli.core.types import Image, PerImage
from lavps_cli.errors import DataError, WeightsError

Net: TypeAlias = Literal["alex", "vgg", "squeeze"]
VERSION = "0.1"
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


@dataclass(frozen=True)
class Trunk:
    """Where a trunk is tapped, and which file holds it."""

    taps: tuple[int, ...]
    """Modules whose output is compared."""
    file: str
    """Its name in the torch hub cache; ends in the first digits of its SHA-256."""


TRUNKS: dict[Net, Trunk] = {
    "alex": Trunk((1, 4, 7, 9, 11), "alexnet-owt-7be5be79.pth"),
    "vgg": Trunk((3, 8, 15, 22, 29), "vgg16-397923af.pth"),
    "squeeze": Trunk((1, 4, 7, 9, 10, 11, 12), "squeezenet1_1-b8a52dc0.pth"),
}


class Fire(nn.Module):
    """A squeeze to few channels, then 1x1 and 3x3 convolutions side by side."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


def _alex() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    )  # fmt: skip


def _vgg() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        if layers:
            layers.append(nn.MaxPool2d(2, 2))
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


def _squeeze() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(64, 16, 64), Fire(128, 16, 64), nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(128, 32, 128), Fire(256, 32, 128), nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
    )  # fmt: skip


_FEATURES = {"alex": _alex, "vgg": _vgg, "squeeze": _squeeze}


class Lpips(nn.Module):
    """The distance; lower is nearer.

    Args:
        net: Which trunk.
        trunk: Parameters of the trunk, named as torchvision does (`features.0.weight`); those of
            the classifier are passed over.
        linear: Parameters of the linear layers, named as the `lpips` package does
            (`lin0.model.1.weight`).

    Raises:
        WeightsError: Parameters are missing or of another shape.
    """

    def __init__(self, net: Net, trunk: dict[str, Tensor], linear: dict[str, Tensor]) -> None:
        super().__init__()
        self.taps = TRUNKS[net].taps
        self.features = _FEATURES[net]()
        own = OrderedDict(
            (name.removeprefix("features."), value.float())
            for name, value in trunk.items()
            if name.startswith("features.")
        )
        try:
            self.features.load_state_dict(own)
        except RuntimeError as error:
            raise WeightsError(
                f"the LPIPS trunk is not that of {net}: {str(error).splitlines()[-1].strip()}",
                f"Give torchvision's own file, {TRUNKS[net].file}.",
            ) from error
        self.linear = [linear[f"lin{i}.model.1.weight"].float() for i in range(len(self.taps))]
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, xhat: Image, x: Image) -> PerImage:
        """Return the distance of pictures in [-1, 1], three channels, at least 32x32.

        Raises:
            DataError: A side is shorter.
        """
        if min(x.shape[-2:]) < 32:
            raise DataError(
                f"LPIPS needs at least 32x32 pixels, not {x.shape[-1]}x{x.shape[-2]}.",
                "Take a larger picture.",
            )
        shift, scale = (x.new_tensor(v).view(1, 3, 1, 1) for v in (_SHIFT, _SCALE))
        a, b = ((p.expand(-1, 3, -1, -1) - shift) / scale for p in (xhat.to(x), x))
        total = x.new_zeros(len(x))
        weights = iter(self.linear)
        for i, layer in enumerate(self.features):
            a, b = layer(a), layer(b)
            if i in self.taps:
                squared = (_normalised(a) - _normalised(b)).square()
                total = total + F.conv2d(squared, next(weights).to(x)).mean((1, 2, 3))
        return total


def _normalised(features: Tensor) -> Tensor:
    """Return features of length one at every position."""
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)
