"""`--stage conditional`: InvFusion and Palette, supervised on pairs."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.types import Image
from lavps_cli.models.conditional import ConditionalDenoiser, seeing
from lavps_cli.models.hdit import HDiT
from lavps_cli.pipeline.requests import TrainingRequest
from lavps_cli.pipeline.sampling import sampler_options
from lavps_cli.pipeline.stages.prior import hdit_about, hdit_of
from lavps_cli.pipeline.stages.stage import Setup, Stage
from lavps_cli.samplers.ode import ode
from lavps_cli.training.conditional import ConditionalObjective
from lavps_cli.training.families import Family
from lavps_cli.training.networks import JOINT, conditional_config
from lavps_cli.training.rows import Batches
from lavps_cli.weights.architectures import NetworkDenoiser
from lavps_cli.weights.checkpoint import load_conditional, read_config


def _build(request: TrainingRequest, size: int, prior: NetworkDenoiser | None) -> nn.Module:
    return HDiT(conditional_config(request.preset, request.arch, size))


def _load(request: TrainingRequest, folder: Path, prior: NetworkDenoiser | None) -> nn.Module:
    if read_config(folder).get("kind") == "denoiser":
        return seeing(hdit_of(folder), JOINT if request.arch == "invfusion" else 0)
    return load_conditional(folder, device=torch.device("cpu")).network


def _objective(
    setup: Setup, families: Sequence[Family], pictures: dict[int, Batches]
) -> ConditionalObjective:
    network = setup.network
    assert isinstance(network, HDiT)
    problems = setup.problems(families, pictures)
    return ConditionalObjective(network, problems, setup.rows, setup.autocast)


def _restore(
    setup: Setup, network: nn.Module, problem: Likelihood, noise: Noise, shape: tuple[int, ...]
) -> Image:
    assert isinstance(network, HDiT)
    given = ConditionalDenoiser(network, setup.schedule, setup.autocast).given(problem)
    options = sampler_options("conditional", "fast", (), None)
    return ode(given, problem, options, shape=shape, noise=noise)


STAGE = Stage(
    kind="conditional",
    rate=2e-3,
    takes_prior=False,
    build=_build,
    load=_load,
    objective=_objective,
    about=hdit_about,
    restore=_restore,
    archs=("palette", "invfusion"),
)
