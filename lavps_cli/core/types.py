"""Shapes: b batch, c channel, h height, w width. Pictures have values in [-1, 1]."""

from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor

Image: TypeAlias = Float[Tensor, " b c h w"]
Images: TypeAlias = Float[Tensor, "*lead c h w"]
Measurement: TypeAlias = Float[Tensor, "*lead _c _h _w"]
PerImage: TypeAlias = Float[Tensor, " b"]
Time: TypeAlias = Float[Tensor, ""] | Float[Tensor, " b"]
PerPicture: TypeAlias = float | Float[Tensor, "*lead 1 1 1"]
"""A number for all pictures, or one for each."""
