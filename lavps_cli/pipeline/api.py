"""The Python API: tensors in, samples of the posterior out, by the same path as the commands."""

from typing import Any

import torch
from torch import Tensor

from lavps_cli import catalog
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.types import Image, Measurement
from lavps_cli.errors import UsageError
from lavps_cli.pipeline.model import Model, open_weights
from lavps_cli.pipeline.requests import Compute
from lavps_cli.pipeline.sampling import draw, sampler_options
from lavps_cli.pipeline.seeds import derive_seed


def load(
    name_or_path: str = "default",
    device: str = "auto",
    dtype: catalog.DtypeName = "auto",
    *,
    inference: str | None = None,
    tile: int | None = None,
) -> Model:
    """Return a prior, and the inference model that lies beside it, for pictures of any size.

    Args:
        name_or_path: A bundled model, or a folder.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps` or `xpu`.
        dtype: Precision of the networks' inside; values stay float32.
        inference: Another inference model, or `none`.
        tile: Side of the windows, 0 for the whole picture; by default what the model learnt on,
            or the whole picture where it can.

    Raises:
        WeightsError: There are no such weights.
        DeviceError: There is no such device.
    """
    compute = Compute(model=name_or_path, inference=inference, device=device, dtype=dtype)
    weights = open_weights(compute)
    tiling = weights.tiling(1, 1, tile, None)
    return weights.model(tiling)


def restore(
    y: Measurement,
    A: LinearOperator,
    *,
    sigma_y: float,
    model: Model | None = None,
    options: Any = None,
    seed: int = 0,
    samples: int = 1,
    method: str = "lavps",
) -> Image:
    """Return samples of the posterior of x given y = A(x) + sigma_y w, (b, 3, h, w) in [-1, 1].

    Args:
        y: Observations, one per picture, or one picture of which several samples are drawn.
        A: The operator, with `adjoint`, from which the size of x follows.
        sigma_y: Noise level on the [-1, 1] scale.
        model: From `load`, or one's own prior; the default model if None.
        options: The sampler's own; its defaults if None.
        seed: Sample i depends on it and on i alone.
        samples: How many to draw of a single picture.
        method: A name of the catalogue.

    Raises:
        UsageError: The arguments do not go together.
    """
    if len(y) > 1 and samples > 1:
        raise UsageError(
            f"{samples} samples of {len(y)} pictures at once.", "Draw for one picture at a time."
        )
    if not sigma_y > 0:
        raise UsageError(f"sigma_y is {sigma_y}; it must be positive.", "For example 0.05.")
    if model is None:
        model = load()
    if options is None:
        options = sampler_options(method, "balanced", (), model.switch_ratio)
    device = y.device
    y = y.to(model.device)
    x: Tensor = A.adjoint(torch.zeros_like(y))
    single = derive_seed(seed, "sample", 0)
    seeds = [derive_seed(seed, "sample", i) for i in range(samples)]
    draws = draw(
        model,
        Likelihood(y, A, sigma_y),
        options,
        method=method,
        shape=tuple(x.shape[1:]),
        seeds=seeds if len(y) == 1 else [single] * len(y),
    )
    return draws.x.to(device)
