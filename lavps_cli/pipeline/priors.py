"""Where a prior comes from: a model folder, or a function of the user's own."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import torch

from lavps_cli.core.denoiser import Denoiser
from lavps_cli.errors import UsageError
from lavps_cli.models.trained import Trained
from lavps_cli.pipeline.own_code import own_function
from lavps_cli.weights.amortised import load_flow
from lavps_cli.weights.checkpoint import (
    digest,
    load_conditional,
    load_denoiser,
    read_config,
)
from lavps_cli.weights.hub import name_of


@dataclass(frozen=True)
class FolderPrior:
    """The prior of a model folder; its config.json tells `image_size`, `local` and more."""

    folder: Path
    label: int | None = None

    @property
    def name(self) -> str:
        return name_of(self.folder)

    @cached_property
    def config(self) -> dict[str, Any]:
        return read_config(self.folder)

    @cached_property
    def digest(self) -> str:
        weights = digest(self.folder)
        if self.label is None:
            return weights
        return hashlib.sha256(f"{weights} label {self.label}".encode()).hexdigest()

    def open(self, device: torch.device, autocast: torch.dtype | None) -> Denoiser | Trained:
        kind = self.config.get("kind")
        if kind == "conditional":
            return load_conditional(self.folder, device=device, autocast=autocast)
        if kind == "aps":
            return load_flow(self.folder, device=device, autocast=autocast)
        return load_denoiser(self.folder, device=device, autocast=autocast, label=self.label)


@dataclass(frozen=True, eq=False)
class OwnPrior:
    """A denoiser that a function of the user's own returns, given the device.

    The denoiser has a `schedule` and takes (x_t, t) to x_0 (`lavps_cli.core.denoiser.Denoiser`). It
    may also have `image_size`, the side of the windows it is to see (the whole picture if not),
    and `multiple`, which sides must be multiples of. Its precision is its own affair.
    """

    text: str
    function: Callable[[torch.device], Any]
    digest: str

    @property
    def name(self) -> str:
        return self.text.rpartition(":")[2]

    @cached_property
    def _opened(self) -> dict[torch.device, Any]:
        return {}

    @cached_property
    def config(self) -> dict[str, Any]:
        denoiser = self.open(torch.device("cpu"), None)
        size = getattr(denoiser, "image_size", None)
        return {"image_size": size or 64, "local": size is None}

    def open(self, device: torch.device, autocast: torch.dtype | None) -> Denoiser:
        if device not in self._opened:
            try:
                denoiser = self.function(device)
            except Exception as error:
                raise UsageError(
                    f"--model {self.text} raises {type(error).__name__}: {error}",
                    "It is called with the device, and returns a denoiser.",
                ) from error
            if not isinstance(denoiser, Denoiser):
                raise UsageError(
                    f"--model {self.text} returns a {type(denoiser).__name__}, not a denoiser.",
                    "A denoiser has a schedule, and takes (x_t, t) to x_0; see "
                    "examples/02_own_prior.py.",
                )
            self._opened[device] = denoiser
        return self._opened[device]


Prior: TypeAlias = FolderPrior | OwnPrior
"""A prior that has not been opened."""


def own_prior(text: str) -> OwnPrior:
    """Return the prior that FILE.py:function stands for.

    Raises:
        UsageError: There is no such file or function, or the file raises.
    """
    function, sha256 = own_function("--model", text)
    return OwnPrior(text, function, sha256)
