"""A decoded picture, and the formats it can have."""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

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
Values: TypeAlias = npt.NDArray[Any]
"""Of a file, (h, w, c): uint8, uint16, or float32 in [0, 1]."""


@dataclass(frozen=True)
class FileFormat:
    """How one kind of file is written."""

    pillow: str
    suffixes: tuple[str, ...]
    alpha: bool
    depths: tuple[int, ...] = (8,)
    """Bits per channel that it holds here; 32 are floats."""


FORMATS: dict[str, FileFormat] = {
    "png": FileFormat("PNG", (".png",), True, (8, 16)),
    "jpg": FileFormat("JPEG", (".jpg", ".jpeg"), False),
    "webp": FileFormat("WEBP", (".webp",), True),
    "tiff": FileFormat("TIFF", (".tif", ".tiff"), True, (8, 16, 32)),
    "avif": FileFormat("AVIF", (".avif",), True),
    "npy": FileFormat("", (".npy",), False, (32,)),
}


@dataclass(frozen=True)
class Metadata:
    """What a file says about its pixels, kept as it is."""

    exif: bytes = b""
    icc: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
    text: tuple[tuple[str, str], ...] = ()
    """Keys and values; those of PNG, and `Comment` of JPEG and GIF."""
    partial: bool = False
    """Whether the file says more than could be read."""

    def __bool__(self) -> bool:
        return self != Metadata()


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded file."""

    pixels: Image
    """(1, c, h, w) in [-1, 1], of sRGB; c is 1 for grey, else 3. Floats may lie beyond."""
    alpha: Float[Tensor, "1 1 h w"] | None = None
    """In [0, 1]."""
    format: str = "png"
    """The name in `FORMATS`, or `png` where the file's own format is not written."""
    depth: int = 8
    """Bits per channel, 8 or 16; 32 are floats."""
    metadata: Metadata = field(default_factory=Metadata)
    record: str | None = None
    """What `lavps degrade` left in the file: text from outside, not yet checked."""
    stored: Image | None = None
    """The values in the file's own colour space, where that is not sRGB."""
    jpeg: bytes | None = None
    """The file itself, where it is a JPEG: its compression can be told from it alone."""
    orientation: int = 1
    """How the file was turned to stand upright, as EXIF numbers it."""
    notes: tuple[str, ...] = ()
    """What of the file cannot be kept."""

    @property
    def grey(self) -> bool:
        return self.pixels.shape[1] == 1

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.pixels.shape[-1], self.pixels.shape[-2]


def to_levels(x: Float[Tensor, "1 c h w"], depth: int) -> Values:
    """Return the values of a picture in [-1, 1] as files hold them, (h, w, c).

    Args:
        x: The picture.
        depth: 8 or 16 for whole numbers; 32 for floats in [0, 1], which are not clipped.
    """
    values = (x[0].detach().cpu().float().permute(1, 2, 0).numpy() + 1) / 2
    if depth == 32:
        return np.ascontiguousarray(values)
    top = 2**depth - 1
    levels = np.rint(values * top).clip(0, top)
    return np.ascontiguousarray(levels.astype(np.uint8 if depth == 8 else np.uint16))


def from_levels(values: Values) -> Image:
    """Return a picture in [-1, 1] of values as files hold them, (h, w, c)."""
    top = 1 if values.dtype == np.float32 else np.iinfo(values.dtype).max
    x = torch.from_numpy(values.astype(np.float32, copy=False)).permute(2, 0, 1)[None]
    return x / (top / 2) - 1


def to_bytes(x: Float[Tensor, "1 c h w"]) -> npt.NDArray[np.uint8]:
    """Return the 8-bit values of a picture in [-1, 1], (h, w, c)."""
    return to_levels(x, 8).astype(np.uint8, copy=False)


def quantised(x: Image, depth: int = 8) -> Image:
    """Return a picture as files of that depth can hold it."""
    if depth == 32:
        return x
    half = (2**depth - 1) / 2
    return ((x + 1) * half).round().clamp(0, 2 * half) / half - 1


def held_depth(format_name: str, depth: int) -> int:
    """Return what a format keeps of so many bits per channel; the fewest if it must have more."""
    depths = FORMATS[format_name].depths
    return max((each for each in depths if each <= depth), default=min(depths))


def is_writable(format_name: str) -> bool:
    """Return whether this Pillow can write a format."""
    return format_name not in ("webp", "avif") or bool(features.check(format_name))
