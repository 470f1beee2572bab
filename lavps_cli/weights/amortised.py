"""Folders of samplers that were trained: flows (APS), and adapters of a prior (LATINO)."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lavps_cli.errors import WeightsError
from lavps_cli.models.amortised import AmortisedSampler
from lavps_cli.models.flow import CHANNELS_IN, CHANNELS_OUT, FlowConfig, FlowNetwork
from lavps_cli.models.hdit import HDiT
from lavps_cli.models.preconditioning import PreconditionedDenoiser
from lavps_cli.models.unfolded import Unfolded, UnfoldedConfig, blank_plan
from lavps_cli.samplers.latino import Plan
from lavps_cli.weights.architectures import schedule_of
from lavps_cli.weights.checkpoint import expect, filled
from lavps_cli.weights.damaged import undescribed
from lavps_cli.weights.hdit import network_config


def load_flow(
    folder: Path, *, device: torch.device, autocast: torch.dtype | None = None
) -> AmortisedSampler:
    """Return the flow of a folder.

    Raises:
        WeightsError: The folder cannot be used; the message names the entry.
    """
    config = expect(folder, "aps")
    shape = flow_config(config["model"])
    network: FlowNetwork = filled(lambda: FlowNetwork(shape), folder)
    return AmortisedSampler(network.to(device), schedule_of(config), autocast)


def flow_config(raw: Mapping[str, Any]) -> FlowConfig:
    """Return the flow's shape from the `model` entry of config.json.

    Raises:
        WeightsError: A name is unknown or a value is of the wrong kind.
    """
    backbone = raw.get("backbone")
    numbers = _numbers(raw, {"levels": 6, "depth": 64, "width": 4096}, other={"backbone"})
    shape = network_config(backbone if isinstance(backbone, dict) else {})
    if (shape.in_channels, shape.out_channels) != (CHANNELS_IN, CHANNELS_OUT):
        raise undescribed(
            "a flow",
            f"the backbone has {shape.in_channels} channels in and {shape.out_channels} out; "
            f"that of a flow has {CHANNELS_IN} and {CHANNELS_OUT}.",
        )
    return FlowConfig(backbone=shape, **numbers)


def load_unfolded(folder: Path, prior: object) -> Unfolded:
    """Return what the chain of a folder learnt, for the prior it was trained with.

    Raises:
        WeightsError: The folder cannot be used, or not with this prior.
    """
    config = expect(folder, "latino")
    shape = unfolded_config(config["model"])
    network = prior.network if isinstance(prior, PreconditionedDenoiser) else None
    if not isinstance(network, HDiT):
        raise WeightsError(
            f"{folder} adapts an HDiT, which this prior is not.", "Use:  --inference none"
        )
    made: Unfolded = filled(lambda: Unfolded(network, shape, *blank_plan(shape)), folder)
    return made


def unfolded_config(raw: Mapping[str, Any]) -> UnfoldedConfig:
    """Return the chain's shape from the `model` entry of config.json.

    Raises:
        WeightsError: A name is unknown or a value is of the wrong kind.
    """
    return UnfoldedConfig(**_numbers(raw, {"rank": 4096, "num_steps": 1024, "jumps": 1024}))


def load_chain(folder: Path, prior: object) -> tuple[PreconditionedDenoiser, Plan]:
    """Return the prior with the adapter of a folder merged into its weights, and the plan.

    Raises:
        WeightsError: The folder cannot be used, or not with this prior.
    """
    unfolded = load_unfolded(folder, prior)
    assert isinstance(prior, PreconditionedDenoiser)
    network = prior.network
    assert isinstance(network, HDiT)
    device = next(network.parameters()).device
    with torch.no_grad():
        state = network.state_dict() | dict(unfolded.to(device).weights(network))
        plan = Plan(unfolded.ratios.double().cpu(), unfolded.trust.double().cpu())
    with torch.device("meta"):
        merged = HDiT(network.config)
    merged.load_state_dict(state, assign=True)
    return replace(prior, network=merged.eval().requires_grad_(False)), plan


def _numbers(
    raw: Mapping[str, Any], greatest: Mapping[str, int], other: set[str] | None = None
) -> dict[str, int]:
    """Return whole numbers from 1 to the greatest of each, which have to be there, and no more."""
    unknown = raw.keys() - greatest.keys() - (other or set())
    wrong = [
        f"{name} is {raw.get(name)!r}"
        for name, most in greatest.items()
        if type(raw.get(name)) is not int or not 1 <= raw[name] <= most
    ]
    if unknown or wrong:
        faults = [*wrong, *(f"unknown entry {name}" for name in sorted(unknown))]
        raise undescribed("a network", "; ".join(faults))
    return {name: raw[name] for name in greatest}
