"""`--stage prior`: the denoiser itself, by the denoising loss (4)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lavps_cli.errors import UsageError
from lavps_cli.models.hdit import HDiT
from lavps_cli.pipeline.requests import TrainingRequest
from lavps_cli.pipeline.stages.stage import Setup, Stage
from lavps_cli.training.denoising import PriorObjective
from lavps_cli.training.families import Family
from lavps_cli.training.networks import prior_config
from lavps_cli.training.rows import Batches
from lavps_cli.weights.architectures import NetworkDenoiser
from lavps_cli.weights.checkpoint import load_denoiser
from lavps_cli.weights.hdit import describe


def _build(request: TrainingRequest, size: int, prior: NetworkDenoiser | None) -> nn.Module:
    return HDiT(prior_config(request.preset, size))


def _load(request: TrainingRequest, folder: Path, prior: NetworkDenoiser | None) -> nn.Module:
    return hdit_of(folder)


def hdit_of(folder: Path) -> HDiT:
    """Return the network of a prior.

    Raises:
        WeightsError: The folder holds no prior.
        UsageError: It holds one of another architecture.
    """
    network = load_denoiser(folder, device=torch.device("cpu")).network
    if not isinstance(network, HDiT):
        raise UsageError(
            f"{folder}: only HDiT networks are trained.", "Begin with an HDiT prior, or anew."
        )
    return network


def _objective(
    setup: Setup, families: Sequence[Family], pictures: dict[int, Batches]
) -> PriorObjective:
    request = setup.request
    return PriorObjective(
        setup.network, pictures, setup.sizes, setup.rows, request.seed, setup.device, setup.autocast
    )


def hdit_about(setup: Setup) -> dict[str, Any]:
    """Return what config.json says of an HDiT."""
    network = setup.network
    assert isinstance(network, HDiT)
    return {"local": network.config.is_local, "model": describe(network.config)}


STAGE = Stage(
    kind="denoiser",
    rate=2e-3,
    takes_prior=False,
    build=_build,
    load=_load,
    objective=_objective,
    about=hdit_about,
    restore=None,
)
