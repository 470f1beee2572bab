"""CLIP maximum mean discrepancy (Jayasumana et al. 2024) between two sets of embeddings."""

import torch
from jaxtyping import Float
from torch import Tensor

SIGMA = 10.0
SCALE = 1000.0
"""Factor of the value that the method's authors print."""
MODEL = "openai/clip-vit-large-patch14-336"

Embeddings = Float[Tensor, " _ d"]


def cmmd(a: Embeddings, b: Embeddings, sigma: float = SIGMA) -> float:
    """Return MMD^2 under the Gaussian kernel exp(-|x - y|^2 / (2 sigma^2)), not scaled by 1000.

    The estimate keeps the diagonals (it is the biased, non-negative one), as the published code
    does.

    Args:
        a: Embeddings of one set of pictures, of unit length.
        b: Of the other; another number of them is allowed.
        sigma: Of the kernel.
    """
    a, b = a.double(), b.double()

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        squared = x.square().sum(1)[:, None] + y.square().sum(1)[None] - 2 * x @ y.T
        return torch.exp(-squared.clamp(min=0) / (2 * sigma**2)).mean()

    return float(kernel(a, a) + kernel(b, b) - 2 * kernel(a, b))
