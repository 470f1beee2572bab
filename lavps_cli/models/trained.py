"""Networks that know the observation, as samplers get them."""

from typing import Protocol, runtime_checkable

from torch import nn

from lavps_cli.core.denoiser import Denoiser
from lavps_cli.core.likelihood import Likelihood


@runtime_checkable
class Trained(Protocol):
    """A network that becomes a denoiser, or a sampler, once it is given an observation."""

    @property
    def kind(self) -> str:
        """Which sampler of the catalogue samples with it: one whose `trained` is this."""

    @property
    def network(self) -> nn.Module:
        """What has the parameters."""

    def given(self, likelihood: Likelihood) -> Denoiser:
        """Return it as a function of x_t and t."""

    def tiled(self, tile: int, overlap: int) -> "Trained":
        """Return the same for pictures in windows of that side; 0 is the whole picture."""
