"""`--task jpeg`: what a JPEG file says of the picture that was compressed."""

import math
from dataclasses import dataclass
from typing import cast

import torch

from lavps_cli.core.luma import YCBCR
from lavps_cli.core.types import Image, Measurement
from lavps_cli.errors import UsageError
from lavps_cli.images.jpeg import (
    SIDE,
    Compression,
    Levels,
    compression,
    compression_of,
    tables_of,
)
from lavps_cli.images.picture import Picture
from lavps_cli.operators.jpeg import JpegCoefficients, turned, turned_back

_LOW = 4
"""Vertical and horizontal frequency together, below which a coefficient tells how coarse it is."""


@dataclass(frozen=True, eq=False)
class Compressed:
    """The problem that a compressed picture poses."""

    A: JpegCoefficients
    y: Measurement
    sigma_y: float
    """Of rounding, on the scale of `y`: about that of pixels in [-1, 1]."""
    shape: tuple[int, int]
    """Height and width of the scene: whole blocks."""
    corner: tuple[int, int]
    """Row and column of the scene where the picture begins."""


def compressed(picture: Picture, name: str, quality: int | None) -> Compressed:
    """Return the problem of a picture that was a JPEG.

    Args:
        picture: With its file, if that is a JPEG.
        name: What messages call it.
        quality: Of the encoder, for a picture that has left its JPEG file.

    Raises:
        UsageError: It is no JPEG, and no quality is given.
        DataError: The file is not one that is undone here.
    """
    if picture.jpeg is not None:
        return _problem(compression_of(picture.jpeg, name), picture.orientation, picture.size)
    if quality is None:
        raise UsageError(
            f"{name} is not a JPEG file, and what compressed it is not known.",
            "Say the quality:  --jpeg-quality 75",
        )
    steps, sampling = tables_of(quality)
    if picture.grey:
        steps, sampling = steps[:1], (1, 1)
    planes = _planes(turned_back(picture.pixels, picture.orientation))
    return _problem(compression(planes, steps, sampling), picture.orientation, picture.size)


def _planes(x: Image) -> Levels:
    """Return luma and colours in levels, (h, w, k)."""
    levels = (x[0].double() + 1) * 127.5
    if len(levels) == 3:
        levels = torch.einsum("kc,chw->khw", torch.tensor(YCBCR, dtype=torch.float64), levels)
        levels = levels + torch.tensor([0.0, 128.0, 128.0])[:, None, None]
    return levels.permute(1, 2, 0).numpy()


def _problem(found: Compression, orientation: int, size: tuple[int, int]) -> Compressed:
    steps = torch.from_numpy(found.steps) / 127.5
    at = torch.arange(SIDE)
    unit = float(steps[0][at[:, None] + at < _LOW].mean())
    sigma_y, parts = unit / math.sqrt(12), []
    for k, counts in enumerate(found.counts):
        rows, columns = found.sampling if k == 0 else (1, 1)
        y = torch.from_numpy(counts).flatten(2).clone()
        if k == 0:
            # Levels begin at 128, pictures at 127.5: half a level of every pixel of a block.
            y[:, :, 0] += 0.5 * SIDE / found.steps[0, 0, 0]
        down, right = y.shape[0] // rows, y.shape[1] // columns
        y = y.reshape(down, rows, right, columns, SIDE * SIDE)
        parts.append(y.permute(1, 3, 4, 0, 2).flatten(0, 2))
    if len(parts) == 1:
        parts, sigma_y = parts * 3, sigma_y * math.sqrt(3)  # Three equal channels, one measurement.
    y = unit * torch.cat(parts)[None].float()
    A = JpegCoefficients(steps / unit, found.sampling, orientation)
    p, q = A.patch
    stored = torch.zeros(1, y.shape[-2] * p, y.shape[-1] * q)
    width, height = size
    h, w = (width, height) if orientation in (5, 6, 7, 8) else (height, width)
    stored[:, :h, :w] = 1
    lying = turned(stored, orientation)[0]
    corner = cast(tuple[int, int], tuple(lying.nonzero().amin(0).tolist()))
    return Compressed(A, y, sigma_y, (lying.shape[0], lying.shape[1]), corner)
