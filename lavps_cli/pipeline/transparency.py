"""Transparency that is restored like a grey picture: `--alpha restore`."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lavps_cli.pipeline.case import Case
from lavps_cli.pipeline.model import Tiling, Weights
from lavps_cli.pipeline.noise_level import estimate_noise
from lavps_cli.pipeline.requests import Restoration
from lavps_cli.pipeline.run import sample_posterior


def sample_alpha(
    request: Restoration, case: Case, weights: Weights, tiling: Tiling, options: Any
) -> Float[Tensor, "n 1 h w"] | None:
    """Return the transparency of each result in [0, 1], None where it is not to be restored."""
    alpha, seen, sampling = case.picture.alpha, case.seen, request.sampling
    if alpha is None or request.output.alpha != "restore" or sampling.simulate:
        return None
    if seen.degradation.task in ("colorize", "declip"):
        return None  # Only of colours.
    mask = seen.degradation.mask
    known = None if mask is None else mask.values
    y, sigma_y = alpha * 2 - 1, seen.sigma_y
    if seen.noise_source == "estimated":
        sigma_y = estimate_noise(y, known)
    of_alpha = replace(seen, y=y if known is None else y * known, sigma_y=sigma_y, peak=None)
    x = seen.seen(sample_posterior(of_alpha, weights, tiling, sampling, options).x)
    x = x.mean(1, keepdim=True)
    if seen.degradation.known is not None and known is not None and sampling.keep_known:
        x = torch.where(known.bool(), y, x)
    x = x.mean(0, keepdim=True) if sampling.mean else x
    return ((x + 1) / 2).clamp(0, 1)
