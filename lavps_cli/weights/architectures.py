"""The networks that config.json can describe, and the denoisers they become."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from lavps_cli.core.denoiser import Denoiser
from lavps_cli.core.schedule import Schedule, schedule_named
from lavps_cli.errors import UsageError, WeightsError
from lavps_cli.models.preconditioning import SIGMA_DATA, hdit_denoiser
from lavps_cli.weights.adm import adm_network, discrete_denoiser
from lavps_cli.weights.foreign import diffusers
from lavps_cli.weights.hdit import hdit_network
from lavps_cli.weights.score import is_score, score_denoiser


@runtime_checkable
class NetworkDenoiser(Denoiser, Protocol):
    """A denoiser that is a network of PyTorch."""

    @property
    def network(self) -> nn.Module:
        """What has the parameters."""

    @property
    def multiple(self) -> int:
        """Heights and widths must be multiples of this."""


@dataclass(frozen=True)
class Architecture:
    """How a network is built of the entry `model` of config.json, and how it denoises.

    `build` raises WeightsError where the entry describes none, and allocates nothing on the device
    `meta`. `denoiser` takes the filled network, the whole config, the precision inside and the
    label.
    """

    build: Callable[[dict[str, Any]], nn.Module]
    denoiser: Callable[[Any, dict[str, Any], torch.dtype | None, int | None], NetworkDenoiser]


def _hdit(
    network: Any, config: dict[str, Any], autocast: torch.dtype | None, label: int | None
) -> NetworkDenoiser:
    if label is not None and not 0 <= label < network.config.num_classes:
        raise WeightsError(
            f"config.json: there is no label {label} among {network.config.num_classes} classes.",
            "Get the folder again.",
        )
    return hdit_denoiser(network, schedule_of(config), autocast, label, _sigma_data(config))


def _sigma_data(config: dict[str, Any]) -> float:
    value = config.get("sigma_data", SIGMA_DATA)
    if not (isinstance(value, int | float) and 1e-3 <= value <= 1e3):
        raise WeightsError(
            f"config.json: sigma_data is {value!r}; it is a number from 0.001 to 1000.",
            "Get the folder again.",
        )
    return float(value)


def _adm(
    network: Any, config: dict[str, Any], autocast: torch.dtype | None, label: int | None
) -> NetworkDenoiser:
    return discrete_denoiser(
        network, config, autocast, label, schedule=schedule_of(config),
        multiple=network.config.multiple,
    )  # fmt: skip


def _diffusers(
    network: Any, config: dict[str, Any], autocast: torch.dtype | None, label: int | None
) -> NetworkDenoiser:
    schedule, multiple = schedule_of(config), diffusers.multiple_of(network)
    if is_score(config):
        return score_denoiser(network, config, autocast, schedule=schedule, multiple=multiple)
    return discrete_denoiser(network, config, autocast, label, schedule=schedule, multiple=multiple)


ARCHITECTURES: dict[str, Architecture] = {
    "hdit": Architecture(hdit_network, _hdit),
    "adm": Architecture(adm_network, _adm),
    "diffusers-unet": Architecture(diffusers.build, _diffusers),
}


def architecture_of(config: dict[str, Any]) -> Architecture:
    """Return the architecture that config.json names; HDiT where it names none.

    Raises:
        WeightsError: There is no such architecture.
    """
    name = config.get("architecture", "hdit")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise WeightsError(
            f"config.json: this version knows no architecture {name!r}.",
            f"Known: {', '.join(ARCHITECTURES)}. Update lavps.",
        )
    return ARCHITECTURES[name]


def schedule_of(config: dict[str, Any]) -> Schedule:
    """Return the noise schedule that config.json names.

    Raises:
        WeightsError: There is no such schedule.
    """
    try:
        return schedule_named(str(config.get("schedule")))
    except UsageError as error:
        raise WeightsError(f"config.json: {error.message}", error.hint) from error


def label_of(config: dict[str, Any], label: int | None) -> int | None:
    """Return the label that a prior is given: the one asked for, else its "no label".

    config.json tells the number of `labels`, and which one is `no_label`, if any.

    Raises:
        UsageError: The prior takes no labels, not that one, or cannot do without.
        WeightsError: config.json tells nonsense about them.
    """
    count, untold = config.get("labels", 0), config.get("no_label")
    if type(count) is not int or count < 0 or not (untold is None or type(untold) is int):
        raise WeightsError(
            f"config.json: labels is {count!r}, no_label {untold!r}.", "Get the folder again."
        )
    if label is None:
        if count and untold is None:
            raise UsageError(
                "this prior was trained with labels only, and needs one.",
                f"Choose a class:  --label 0 ... {count - 1}",
            )
        return untold
    if not count:
        raise UsageError(
            f"--label {label} has no effect: this prior was trained without labels.",
            "Leave it out.",
        )
    if not 0 <= label < count:
        raise UsageError(f"--label {label}: it has {count} labels.", f"Choose 0 ... {count - 1}.")
    return label
