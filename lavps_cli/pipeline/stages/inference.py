"""`--stage inference`: the starts of LAVPS, by Algorithm 1."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.types import Image
from lavps_cli.models.inference import AmortisedInference, InferenceNetwork
from lavps_cli.pipeline.requests import TrainingRequest
from lavps_cli.pipeline.stages.stage import Setup, Stage
from lavps_cli.samplers.lavps import LavpsOptions, lavps
from lavps_cli.training.algorithm1 import InferenceObjective
from lavps_cli.training.families import Family
from lavps_cli.training.networks import inference_config
from lavps_cli.training.rows import Batches
from lavps_cli.weights.architectures import NetworkDenoiser
from lavps_cli.weights.checkpoint import load_inference
from lavps_cli.weights.hdit import describe

LOOKED_AT_STEPS = 15


def _build(request: TrainingRequest, size: int, prior: NetworkDenoiser | None) -> nn.Module:
    return InferenceNetwork(inference_config(request.preset, request.arch, size))


def _load(request: TrainingRequest, folder: Path, prior: NetworkDenoiser | None) -> nn.Module:
    return load_inference(folder, device=torch.device("cpu")).network


def _model(setup: Setup, network: nn.Module) -> AmortisedInference:
    assert isinstance(network, InferenceNetwork)
    return AmortisedInference(network, setup.schedule, setup.autocast)


def _objective(
    setup: Setup, families: Sequence[Family], pictures: dict[int, Batches]
) -> InferenceObjective:
    return InferenceObjective(
        _model(setup, setup.network),
        setup.frozen,
        setup.problems(families, pictures),
        setup.rows,
        setup.request.switch_ratio,
    )


def _about(setup: Setup) -> dict[str, Any]:
    network = setup.network
    assert isinstance(network, InferenceNetwork)
    shape = network.backbone.config
    return {
        "local": shape.is_local,
        "switch_ratio": setup.request.switch_ratio,
        "model": describe(shape),
    }


def _restore(
    setup: Setup, network: nn.Module, problem: Likelihood, noise: Noise, shape: tuple[int, ...]
) -> Image:
    options = LavpsOptions(
        num_steps=LOOKED_AT_STEPS,
        grad_steps_start=2,
        grad_steps_end=0,
        switch_ratio=setup.request.switch_ratio,
    )
    inference = _model(setup, network)
    return lavps(setup.frozen, problem, options, shape=shape, noise=noise, inference=inference)


def _compiled(network: nn.Module) -> nn.Module:
    assert isinstance(network, InferenceNetwork)
    return network.backbone


STAGE = Stage(
    kind="inference",
    rate=1e-3,
    takes_prior=True,
    build=_build,
    load=_load,
    objective=_objective,
    about=_about,
    restore=_restore,
    compiled=_compiled,
    archs=("palette", "invfusion"),
)
