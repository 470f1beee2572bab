"""`--mask` to a mask of the picture's size: 1 = known, 0 = to fill."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import interpolate, max_pool2d

from lavps_cli.errors import DataError, UsageError
from lavps_cli.images.picture import Picture
from lavps_cli.images.reading import load_matrix
from lavps_cli.operators.inpainting import Mask, centre_mask, pixel_mask, rectangle_mask
from lavps_cli.storage.places import located

_MOST_AREA, _LEAST = 16, 1 << 20
"""Times the picture's area that a mask may have, and pixels that it may have in any case."""
_GREY, _GREYS = 0.8, 0.3
"""How far from half brightness a pixel is grey no more, and which share of a mask may be grey."""
_WIDE = 9
"""Side of the squares of which wide holes consist."""
DRAWS = ("centre", "rectangle", "pixels")


@dataclass(frozen=True, eq=False)
class MaskChoice:
    """A mask and where it comes from."""

    values: Mask
    about: dict[str, Any]
    doubtful: bool = False
    """Whether the file has so many greys that it may be no mask."""


def read_mask(
    spec: str, picture: Picture, name: str, *, invert: bool = False, resize: bool = False
) -> MaskChoice:
    """Return the mask of a file, or of the picture's own transparency for `alpha`.

    White means to fill, from half brightness on; in a file of zeros and ones, one is white.

    Raises:
        DataError: It is no picture, of another size, or leaves nothing to do.
    """
    width, height = picture.size
    doubtful = False
    if spec == "alpha":
        if picture.alpha is None:
            raise DataError(f"{name} has no transparency.", "Give a mask:  --mask FILE")
        fill = picture.alpha[0] < 0.5
    else:
        values = load_matrix(located(spec), _MOST_AREA * width * height + _LEAST)
        if tuple(values.shape) != (height, width):
            if not resize:
                h, w = values.shape
                raise DataError(
                    f"{spec} is {w}x{h} but {name} is {width}x{height}.",
                    "Scale the mask:  --resize-mask",
                )
            values = interpolate(values[None, None], (height, width), mode="area")[0, 0]
        half = _half(values)
        fill = (values >= half)[None]
        # Soft edges and compression make some greys, a photograph little else.
        doubtful = float(((values - half).abs() < _GREY * half).float().mean()) > _GREYS
    if invert:
        fill = ~fill
    if not fill.any() or fill.all():
        raise DataError(
            f"{spec}: the mask of {name} {'fills everything' if fill.any() else 'fills nothing'}.",
            "White means fill; swap with:  --invert-mask",
        )
    about = {"kind": "alpha" if spec == "alpha" else "file"}
    return MaskChoice((~fill).float(), about, doubtful)


def is_scattered(mask: Mask) -> bool:
    """Return whether most of what is missing is near something known: dots, scratches, letters.

    Args:
        mask: 1 = known, 0 = missing.
    """
    missing, side = (mask == 0).float()[None], _WIDE
    inner = -max_pool2d(-missing, side, 1, side // 2)  # Centres of squares without a known pixel.
    wide = max_pool2d(inner, side, 1, side // 2) * missing
    return float(wide.sum()) < 0.5 * float(missing.sum())


def _half(values: torch.Tensor) -> float:
    top = float(values.max())
    if top <= 1:
        return 0.5
    return 127.5 if top <= 255 else 32767.5


def draw_mask(kind: str, width: int, height: int, seed: int) -> MaskChoice:
    """Return a mask of the paper's protocol.

    Raises:
        UsageError: There is no such kind.
    """
    generator = torch.Generator().manual_seed(seed)
    if kind == "centre":
        values = centre_mask(height, width)
    elif kind == "rectangle":
        values = rectangle_mask(height, width, generator)
    elif kind == "pixels":
        values = pixel_mask(height, width, generator)
    else:
        raise UsageError(f"--mask {kind} is no draw.", f"Choose from: {', '.join(DRAWS)}")
    return MaskChoice(values, {"kind": kind, "seed": seed})
