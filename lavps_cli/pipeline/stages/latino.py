"""`--stage latino`: an adapter and a plan that make the prior a sampler of nine evaluations."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.types import Image
from lavps_cli.errors import UsageError
from lavps_cli.models.critic import Critic
from lavps_cli.models.hdit import HDiT
from lavps_cli.models.preconditioning import PreconditionedDenoiser
from lavps_cli.models.unfolded import Unfolded, UnfoldedConfig
from lavps_cli.pipeline.requests import TrainingRequest
from lavps_cli.pipeline.stages.stage import Setup, Stage
from lavps_cli.samplers.latino import default_plan, latino
from lavps_cli.training.families import Family
from lavps_cli.training.latino import LatinoObjective, Players, options_of
from lavps_cli.training.rows import Batches
from lavps_cli.weights.amortised import load_unfolded
from lavps_cli.weights.architectures import NetworkDenoiser


def _hdit(prior: NetworkDenoiser | None) -> PreconditionedDenoiser:
    if not (isinstance(prior, PreconditionedDenoiser) and isinstance(prior.network, HDiT)):
        raise UsageError("--stage latino adapts an HDiT; this prior is none.", "Choose another.")
    return prior


def _players(request: TrainingRequest, unfolded: Unfolded) -> Players:
    return Players(unfolded, Critic() if request.adversarial else None)


def _build(request: TrainingRequest, size: int, prior: NetworkDenoiser | None) -> nn.Module:
    config = UnfoldedConfig()
    plan = default_plan(config.num_steps)
    unfolded = Unfolded(_hdit(prior).network, config, plan.ratios, plan.trust)
    return _players(request, unfolded)


def _load(request: TrainingRequest, folder: Path, prior: NetworkDenoiser | None) -> nn.Module:
    return _players(request, load_unfolded(folder, _hdit(prior)))


def _objective(
    setup: Setup, families: Sequence[Family], pictures: dict[int, Batches]
) -> LatinoObjective:
    network = setup.network
    assert isinstance(network, Players)
    problems = setup.problems(families, pictures)
    weight = setup.request.adversarial
    return LatinoObjective(network, _hdit(setup.prior), problems, setup.rows, weight)


def _about(setup: Setup) -> dict[str, Any]:
    prior, network = _hdit(setup.prior).network, setup.network
    assert isinstance(prior, HDiT)
    assert isinstance(network, Players)
    return {"local": prior.config.is_local, "model": asdict(network.unfolded.config)}


def _restore(
    setup: Setup, network: nn.Module, problem: Likelihood, noise: Noise, shape: tuple[int, ...]
) -> Image:
    assert isinstance(network, Players)
    options = options_of(network.unfolded)
    with torch.no_grad():
        denoiser, plan = network.chain(_hdit(setup.prior))
        return latino(denoiser, problem, options, shape=shape, noise=noise, plan=plan)


def _exported(network: nn.Module) -> nn.Module:
    assert isinstance(network, Players)
    return network.unfolded


STAGE = Stage(
    kind="latino",
    rate=1e-3,
    takes_prior=True,
    build=_build,
    load=_load,
    objective=_objective,
    about=_about,
    restore=_restore,
    exported=_exported,
    compiled=lambda network: None,
)
