"""`--stage aps`: a conditional flow, by the reverse KL from observations alone."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.types import Image
from lavps_cli.models.amortised import AmortisedSampler
from lavps_cli.models.flow import FlowNetwork
from lavps_cli.pipeline.requests import TrainingRequest
from lavps_cli.pipeline.stages.stage import Setup, Stage
from lavps_cli.samplers.aps import ApsOptions, aps
from lavps_cli.training.aps import ApsObjective
from lavps_cli.training.families import Family
from lavps_cli.training.networks import flow_config
from lavps_cli.training.rows import Batches
from lavps_cli.weights.amortised import load_flow
from lavps_cli.weights.architectures import NetworkDenoiser


def _build(request: TrainingRequest, size: int, prior: NetworkDenoiser | None) -> nn.Module:
    return FlowNetwork(flow_config(request.preset, size))


def _load(request: TrainingRequest, folder: Path, prior: NetworkDenoiser | None) -> nn.Module:
    return load_flow(folder, device=torch.device("cpu")).network


def _objective(
    setup: Setup, families: Sequence[Family], pictures: dict[int, Batches]
) -> ApsObjective:
    network = setup.network
    assert isinstance(network, FlowNetwork)
    problems = setup.problems(families, pictures)
    new = setup.request.start_from is None
    return ApsObjective(network, setup.frozen, problems, setup.rows, new, setup.autocast)


def _about(setup: Setup) -> dict[str, Any]:
    network = setup.network
    assert isinstance(network, FlowNetwork)
    local = network.config.backbone.is_local
    return {"local": local, "model": asdict(network.config)}


def _restore(
    setup: Setup, network: nn.Module, problem: Likelihood, noise: Noise, shape: tuple[int, ...]
) -> Image:
    assert isinstance(network, FlowNetwork)
    given = AmortisedSampler(network, setup.schedule, setup.autocast).given(problem)
    return aps(given, problem, ApsOptions(), shape=shape, noise=noise)


def _compiled(network: nn.Module) -> nn.Module:
    assert isinstance(network, FlowNetwork)
    return network.backbone


STAGE = Stage(
    kind="aps",
    rate=1e-3,
    takes_prior=True,
    build=_build,
    load=_load,
    objective=_objective,
    about=_about,
    restore=_restore,
    compiled=_compiled,
)
