"""The objective of the LATINO stage: the unfolded chain, distilled end to end (UD2M)."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from lavps_cli.core.noise import Noise
from lavps_cli.core.types import Image
from lavps_cli.models.conditional import estimate
from lavps_cli.models.critic import Critic
from lavps_cli.models.lora import Adapted
from lavps_cli.models.preconditioning import PreconditionedDenoiser
from lavps_cli.models.unfolded import Unfolded
from lavps_cli.samplers.latino import LatinoOptions, Plan, latino
from lavps_cli.training.adversarial import adversarial_loss
from lavps_cli.training.log import Numbers
from lavps_cli.training.problems import Problems
from lavps_cli.training.rows import Rows

_NOISE = 8


class RowsNoise(Noise):
    """Draws of some rows of a whole batch."""

    def __init__(self, rows: Rows, generator: Generator, device: torch.device) -> None:
        super().__init__([], device)
        self._rows, self._generator = rows, generator

    def __len__(self) -> int:
        return self._rows.count

    def normal(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Image:
        return self._rows.normal(shape, self._generator).to(self.device, dtype)


class Players(nn.Module):
    """What is trained: the chain, and the critic where there is one."""

    def __init__(self, unfolded: Unfolded, critic: Critic | None) -> None:
        super().__init__()
        self.unfolded, self.critic = unfolded, critic

    def chain(self, prior: PreconditionedDenoiser) -> tuple[PreconditionedDenoiser, Plan]:
        """Return the prior as the adapter changes it, and the plan; both carry gradients."""
        unfolded = self.unfolded
        network = Adapted(prior.network, unfolded.weights(prior.network))
        return replace(prior, network=network), Plan(unfolded.ratios, unfolded.trust)


@dataclass(eq=False)
class LatinoObjective:
    """The squared error of what the chain makes, as a share of that of the linear estimate.

    With `adversarial` > 0 a critic's loss is added, so that samples look like pictures where the
    squared error alone would have them be the mean.

    Args:
        network: The chain's numbers and the critic, which are trained.
        prior: The frozen prior, an HDiT.
        problems: Pictures and operators.
        rows: Of each part of a step.
        adversarial: Weight of the critic's opinion.
    """

    network: Players
    prior: PreconditionedDenoiser
    problems: Problems
    rows: list[Rows]
    adversarial: float = 0.0

    @property
    def methods(self) -> tuple[str, ...]:
        return ("chain",)

    @property
    def waited(self) -> float:
        return self.problems.waited

    def loss(self, step: int, part: int) -> tuple[Tensor, Numbers]:
        rows = self.rows[part]
        seen = self.problems.observed(step, rows, _NOISE)
        x, likelihood, name = seen.x, seen.likelihood, seen.family.name
        noise = RowsNoise(rows, seen.generator, self.problems.device)
        denoiser, plan = self.network.chain(self.prior)
        options = options_of(self.network.unfolded)
        xhat = latino(denoiser, likelihood, options, shape=tuple(x.shape), noise=noise, plan=plan)
        beside = estimate(likelihood)
        before, after = (_squared(each - x) for each in (beside, xhat))
        share = after / before.clamp_min(1e-6)
        numbers: dict[str, Tensor] = {
            "loss": share.detach(),
            f"loss_{name}": share.detach(),
            f"psnr_{name}": -10 * (after.detach() / 4).clamp_min(1e-10).log10(),
        }
        value = share.mean()
        if self.network.critic is not None:
            fooling, judging = adversarial_loss(self.network.critic, xhat, x, beside)
            value = value + self.adversarial * fooling + judging
            numbers |= {"fooling": fooling.detach()[None], "judging": judging.detach()[None]}
        return value, numbers

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Nothing is kept from step to step."""


def options_of(unfolded: Unfolded) -> LatinoOptions:
    """Return the settings that a chain was made with."""
    return LatinoOptions(num_steps=unfolded.config.num_steps, jumps=unfolded.config.jumps)


def _squared(x: Image) -> Tensor:
    return x.square().mean((1, 2, 3))
