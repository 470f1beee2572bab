"""Large holes from coarse to fine.

A network with local attention, trained on small crops, does not know what a hole wider than these
needs. In the reduced picture the hole is small: it is filled there first, and the means of blocks
that this gives are then measurements of the picture at full size.
"""

import torch
from torch.nn.functional import avg_pool2d, max_pool2d

from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.types import Image
from lavps_cli.operators.inpainting import GuidedInpainting, Inpainting, enlarged

FACTOR = 4
DEPTH = 20
"""A hole is large where a pixel is farther than this from all that is known."""
LEAST = 32
"""A reduced picture has at least so many pixels along each side."""


def reduced(likelihood: Likelihood) -> Likelihood | None:
    """Return the problem of the picture reduced by `FACTOR`, None where no hole is large."""
    A = likelihood.A
    if not isinstance(A, Inpainting) or A.mask.ndim != 3:
        return None
    if min(A.mask.shape[-2:]) < FACTOR * LEAST:
        return None
    if bool(max_pool2d(A.mask, 2 * DEPTH + 1, 1, DEPTH).all()):
        return None
    mask = (avg_pool2d(A.mask, FACTOR) == 1).to(A.mask.dtype)
    y = avg_pool2d(likelihood.y, FACTOR) * mask.to(likelihood.y)
    return Likelihood(y, Inpainting(mask), likelihood.sigma_y / FACTOR)


def guided(likelihood: Likelihood, small: Image) -> Likelihood:
    """Return the problem with what the filled reduced picture says of the holes, one a sample."""
    mask: torch.Tensor = likelihood.A.mask  # type: ignore[attr-defined]
    blocks = (avg_pool2d(mask, FACTOR) == 0).to(mask.dtype)
    guide = enlarged(small * blocks.to(small), FACTOR, tuple(mask.shape[-2:]))
    return Likelihood(
        likelihood.y + guide, GuidedInpainting(mask, blocks, FACTOR), likelihood.sigma_y
    )
