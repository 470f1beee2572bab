"""Colour profiles: into sRGB, which networks were trained on, and back."""

import io
from typing import Any

import numpy as np
import torch
from PIL import Image as PillowImage
from PIL import ImageCms
from torch.nn.functional import interpolate

from lavps_cli.core.types import Image
from lavps_cli.images.picture import Picture, Values, from_levels, to_levels

_SAME = 2
"""A profile that moves no colour by more than so many of 256 levels is taken to be sRGB."""
_ROUNDING = 4 / 127.5
"""What eight bits, twice converted, may be off."""
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION


class ProfileError(ValueError):
    """A profile is damaged, or describes other values than the picture has."""


def is_srgb(icc: bytes, mode: str) -> bool:
    """Return whether a profile says what is assumed without one.

    Args:
        icc: The profile.
        mode: `L`, `RGB` or `CMYK`.

    Raises:
        ProfileError: It does not describe such values.
    """
    if mode == "CMYK":
        return False
    steps = np.linspace(0, 255, 256 if mode == "L" else 17).round().astype(np.uint8)
    if mode == "L":
        values = steps[None, :, None]
    else:
        values = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(1, -1, 3)
    moved = to_srgb(values, icc, mode).astype(int) - values
    return bool(abs(moved).max() <= _SAME)


def to_srgb(values: Values, icc: bytes, mode: str) -> Values:
    """Return values, (h, w, c), in sRGB; grey stays grey, ink becomes colour.

    Colours that sRGB does not have become the nearest that it has.

    Args:
        values: 8 or 16 bits.
        icc: The profile of the values.
        mode: `L`, `RGB` or `CMYK`.

    Raises:
        ProfileError: The profile does not describe such values.
    """
    result = _moved(values, _opened(icc), _srgb(), mode, "RGB")
    return result.mean(2, keepdims=True).round().astype(values.dtype) if mode == "L" else result


def from_srgb(values: Values, icc: bytes) -> Values:
    """Return values of sRGB, (h, w, 1 or 3), in the colour space of a profile.

    Raises:
        ProfileError: The profile does not describe such values.
    """
    mode = "L" if values.shape[2] == 1 else "RGB"
    return _moved(
        np.repeat(values, 3, 2) if mode == "L" else values, _srgb(), _opened(icc), "RGB", mode
    )


def in_own_colours(x: Image, picture: Picture, depth: int) -> Image:
    """Return a picture of sRGB in the colour space of the file that another one came from.

    Args:
        x: (n, c, h, w) in [-1, 1].
        picture: Where it came from; `stored` is None where its colours are those of sRGB.
        depth: Bits per channel to calculate with.
    """
    if picture.stored is None:
        return x
    icc = picture.metadata.icc
    rows = torch.split(x, 1)
    return torch.cat([from_levels(from_srgb(to_levels(row, depth), icc)) for row in rows])


def beyond_srgb(picture: Picture, size: tuple[int, int]) -> Image:
    """Return what the way into sRGB and back takes from colours that sRGB does not have.

    Args:
        picture: One whose colours were not those of sRGB.
        size: Height and width of the result.
    """
    assert picture.stored is not None
    lost = picture.stored - in_own_colours(picture.pixels, picture, picture.depth)
    lost = torch.where(lost.abs() > _ROUNDING, lost, 0.0)
    return interpolate(lost, size, mode="bilinear", align_corners=False)


def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _opened(icc: bytes) -> ImageCms.ImageCmsProfile:
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(icc))
    except (OSError, TypeError, ValueError) as error:
        raise ProfileError("it is damaged") from error


def _moved(
    values: Values,
    source: ImageCms.ImageCmsProfile,
    target: ImageCms.ImageCmsProfile,
    from_mode: str,
    to_mode: str,
) -> Values:
    try:
        if values.dtype == np.uint16:
            return _moved_deep(values, source, target, from_mode, to_mode)
        transform = ImageCms.buildTransform(source, target, from_mode, to_mode, _INTENT, _FLAGS)
        image = PillowImage.fromarray(values[:, :, 0] if from_mode == "L" else values, from_mode)
        moved = ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, ValueError, OSError, RuntimeError) as error:
        raise ProfileError("it describes other values than the picture has") from error
    assert moved is not None
    return np.array(moved).reshape(*values.shape[:2], -1)


def _moved_deep(
    values: Values,
    source: ImageCms.ImageCmsProfile,
    target: ImageCms.ImageCmsProfile,
    from_mode: str,
    to_mode: str,
) -> Values:
    """Return the same of 16 bits, which Pillow has no modes for."""
    import imagecodecs

    spaces: dict[str, Any] = {"L": "gray", "RGB": "rgb", "CMYK": "cmyk"}
    moved = imagecodecs.cms_transform(
        values[:, :, 0] if from_mode == "L" else values,
        source.tobytes(),
        target.tobytes(),
        colorspace=spaces[from_mode],
        outcolorspace=spaces[to_mode],
        outdtype="uint16",
        intent=int(_INTENT),
        flags=int(_FLAGS),
    )
    return np.asarray(moved, np.uint16).reshape(*values.shape[:2], -1)
