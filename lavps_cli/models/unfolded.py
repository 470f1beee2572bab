"""What the unfolded LATINO sampler learns: an adapter of the denoiser, and a plan."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lavps_cli.models.lora import Adapter


@dataclass(frozen=True, kw_only=True)
class UnfoldedConfig:
    """What fixes the shape, with the network that is adapted."""

    rank: int = 5
    num_steps: int = 3
    """K, iterations of the chain."""
    jumps: int = 3
    """N, evaluations of the denoiser in each."""


class Unfolded(nn.Module):
    """The trainable part; untrained, it is the zero-shot sampler.

    Args:
        base: The network of the prior.
        config: Ranks and numbers.
        ratios: Levels of noise to begin with, (k,).
        trust: Deviations to begin with, (k,).
    """

    def __init__(
        self, base: nn.Module, config: UnfoldedConfig, ratios: Tensor, trust: Tensor
    ) -> None:
        super().__init__()
        self.config = config
        self.adapter = Adapter(base, config.rank)
        self.log_ratios = nn.Parameter(ratios.log().float())
        self.log_trust = nn.Parameter(trust.log().float())

    @property
    def ratios(self) -> Tensor:
        return self.log_ratios.exp()

    @property
    def trust(self) -> Tensor:
        return self.log_trust.exp()

    def weights(self, base: nn.Module) -> Mapping[str, Tensor]:
        """Return the adapted weights of the prior's network."""
        return self.adapter.weights(base)


def blank_plan(config: UnfoldedConfig) -> tuple[Tensor, Tensor]:
    """Return a plan to be filled with what was learnt."""
    return torch.ones(config.num_steps), torch.ones(config.num_steps)
