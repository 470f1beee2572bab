"""A plane of values as colours, with a legend that tells what they are."""

import math

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont
from torch import Tensor

from lavps_cli.core.types import Image
from lavps_cli.images.picture import Plane, from_levels

_START, _ROTATIONS, _HUE = 0.5, -1.0, 1.2
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def coloured(values: Plane) -> Image:
    """Return colours of values in [0, 1], (1, 3, h, w) in [-1, 1]: dark is 0, bright is 1.

    The cube helix of Green (2011, Bulletin of the Astronomical Society of India 39), equation 2:
    its brightness grows evenly, so that order is seen in grey, and by those who see no colours.
    """
    share = values.double().clamp(0, 1)
    angle = 2 * math.pi * (_START / 3 + _ROTATIONS * share)
    amplitude = _HUE * share * (1 - share) / 2
    cos, sin = angle.cos(), angle.sin()
    red = share + amplitude * (-0.14861 * cos + 1.78277 * sin)
    green = share + amplitude * (-0.29227 * cos - 0.90649 * sin)
    blue = share + amplitude * 1.97294 * cos
    return torch.stack([red, green, blue])[None].clamp(0, 1).float() * 2 - 1


def colour_map(values: Plane, top: float, caption: str) -> Float[Tensor, "1 3 height width"]:
    """Return a picture of values with a legend below, in [-1, 1].

    Args:
        values: What is shown.
        top: What the brightest colour stands for, positive; larger values have it too.
        caption: What the values are, and in which unit.
    """
    height, width = values.shape
    letter = min(max(width // 40, 11), 48)
    font = ImageFont.load_default(letter)
    wide = max(width, math.ceil(font.getlength(caption)) + 2 * letter)
    bar_top, bar_bottom = height + letter, height + 2 * letter
    canvas = PillowImage.new("RGB", (wide, height + 6 * letter), _WHITE)
    canvas.paste(_bitmap(coloured(values / top)), ((wide - width) // 2, 0))
    ramp = torch.linspace(0, 1, wide - 2 * letter, dtype=values.dtype).expand(letter, -1)
    canvas.paste(_bitmap(coloured(ramp)), (letter, bar_top))
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((letter - 1, bar_top - 1, wide - letter, bar_bottom), outline=_BLACK)
    beyond = bool((values > top).any())
    for step in range(5):
        x = letter + round((wide - 2 * letter - 1) * step / 4)
        draw.line([(x, bar_bottom), (x, bar_bottom + letter // 3)], fill=_BLACK)
        text = ("> " if beyond and step == 4 else "") + f"{top * step / 4:.3g}"
        anchor = "la" if step == 0 else "ra" if step == 4 else "ma"
        draw.text((x, bar_bottom + letter // 2), text, _BLACK, font, anchor=anchor)
    draw.text((letter, bar_bottom + 2 * letter), caption, _BLACK, font, anchor="la")
    return from_levels(np.asarray(canvas))


def _bitmap(x: Image) -> PillowImage.Image:
    levels: npt.NDArray[np.uint8] = (
        ((x[0].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
    )
    return PillowImage.fromarray(levels)
