"""What a stage of training is made of; each stage has a file of its own beside this one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.schedule import SCHEDULES, Schedule
from lavps_cli.core.types import Image
from lavps_cli.pipeline.requests import TrainingRequest
from lavps_cli.training.families import Family
from lavps_cli.training.loop import Objective
from lavps_cli.training.problems import Problems
from lavps_cli.training.rows import Batches, Rows
from lavps_cli.weights.architectures import NetworkDenoiser


@dataclass(frozen=True, eq=False)
class Setup:
    """Everything that does not depend on the data."""

    request: TrainingRequest
    sizes: tuple[int, ...]
    device: torch.device
    autocast: torch.dtype | None
    rows: list[Rows]
    network: nn.Module
    prior: NetworkDenoiser | None
    """The frozen prior, of the stages that take one."""

    @property
    def schedule(self) -> Schedule:
        return SCHEDULES["flow"] if self.prior is None else self.prior.schedule

    def problems(self, families: Sequence[Family], pictures: dict[int, Batches]) -> Problems:
        """Return pictures with operators for them."""
        size = self.sizes[0]
        return Problems(families, pictures[size], self.request.seed, size, self.device)

    @property
    def frozen(self) -> NetworkDenoiser:
        """The frozen prior, where there has to be one."""
        assert self.prior is not None
        return self.prior


Restore: TypeAlias = Callable[[Setup, nn.Module, Likelihood, Noise, tuple[int, ...]], Image]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage: what is trained, by which loss, and how it is looked at and kept."""

    kind: str
    """What its weights are called in config.json."""
    rate: float
    """Learning rate, where none is asked for."""
    takes_prior: bool
    build: Callable[[TrainingRequest, int, NetworkDenoiser | None], nn.Module]
    """Makes a new network, for pictures of some size."""
    load: Callable[[TrainingRequest, Path, NetworkDenoiser | None], nn.Module]
    """Makes one that begins with the weights of a folder."""
    objective: Callable[[Setup, Sequence[Family], dict[int, Batches]], Objective]
    about: Callable[[Setup], dict[str, Any]]
    """Makes the entries of config.json that only this stage has, `model` among them."""
    restore: Restore | None
    """Restores pictures on the way; None where there is nothing to restore with."""
    exported: Callable[[nn.Module], nn.Module] = lambda network: network
    """Takes from what is trained what is kept."""
    compiled: Callable[[nn.Module], nn.Module | None] = lambda network: network
    """Takes from what is trained what may be compiled."""
    archs: tuple[str, ...] = ("palette",)
    """What `--arch` may say."""
