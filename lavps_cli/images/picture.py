"""A decoded picture, and the formats it can have."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from PIL import features
from torch import Tensor

from lavps_cli.core.types import Image

RECORD_KEY = "lavps:degradation"
MAX_PIXELS = 200_000_000

Plane = Float[Tensor, " h w"]


@dataclass(frozen=True)
class FileFormat:
    """How one kind of file is written."""

    pillow: str
    suffixes: tuple[str, ...]
    alpha: bool


FORMATS: dict[str, FileFormat] = {
    "png": FileFormat("PNG", (".png",), True),
    "jpg": FileFormat("JPEG", (".jpg", ".jpeg"), False),
    "webp": FileFormat("WEBP", (".webp",), True),
    "tiff": FileFormat("TIFF", (".tif", ".tiff"), True),
    "avif": FileFormat("AVIF", (".avif",), True),
}


@dataclass(frozen=True)
class Metadata:
    """What a file says about its pixels, kept as bytes."""

    exif: bytes = b""
    icc: bytes = b""
    dpi: tuple[float, float] | None = None
    partial: bool = False
    """Whether the file says more than could be read."""

    def __bool__(self) -> bool:
        return bool(self.exif or self.icc or self.dpi or self.partial)


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded file."""

    pixels: Image
    """(1, c, h, w) in [-1, 1]; c is 1 for grey, else 3."""
    alpha: Float[Tensor, "1 1 h w"] | None = None
    """In [0, 1]."""
    format: str = "png"
    """The name in `FORMATS`, or `png` where the file's own format is not written."""
    metadata: Metadata = field(default_factory=Metadata)
    record: str | None = None
    """What `lavps degrade` left in the file: text from outside, not yet checked."""

    @property
    def grey(self) -> bool:
        return self.pixels.shape[1] == 1

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.pixels.shape[-1], self.pixels.shape[-2]


def to_bytes(x: Float[Tensor, "1 c h w"]) -> npt.NDArray[np.uint8]:
    """Return the 8-bit values of a picture in [-1, 1], (h, w, c)."""
    levels = ((x[0].detach().cpu().float() + 1) * 127.5).round().clamp(0, 255)
    return levels.permute(1, 2, 0).to(torch.uint8).contiguous().numpy()


def quantised(x: Image) -> Image:
    """Return a picture as 8-bit files can hold it."""
    return ((x + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1


def is_writable(format_name: str) -> bool:
    """Return whether this Pillow can write a format."""
    return format_name not in ("webp", "avif") or bool(features.check(format_name))
