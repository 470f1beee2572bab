"""Objectives whose optimum is known in closed form."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from lavps_cli.core.likelihood import Likelihood, observe
from lavps_cli.core.noise import Noise
from lavps_cli.core.schedule import SCHEDULES
from lavps_cli.core.types import Image
from lavps_cli.models.amortised import AmortisedSampler
from lavps_cli.models.analytic import GaussianPrior
from lavps_cli.models.critic import Critic
from lavps_cli.models.flow import CHANNELS_IN, CHANNELS_OUT, FlowConfig, FlowNetwork
from lavps_cli.models.hdit import HDiT, HDiTConfig
from lavps_cli.models.hdit_layers import LevelConfig
from lavps_cli.models.preconditioning import hdit_denoiser
from lavps_cli.models.unfolded import Unfolded, UnfoldedConfig
from lavps_cli.operators.inpainting import Inpainting
from lavps_cli.samplers.latino import default_plan
from lavps_cli.training.adversarial import adversarial_loss
from lavps_cli.training.aps import ApsObjective, terms
from lavps_cli.training.families import parse_families
from lavps_cli.training.latino import LatinoObjective, Players
from lavps_cli.training.problems import Problems
from lavps_cli.training.rows import generator_of, shares, whole
from lavps_cli.training.smoothed import (
    FALLING_STEPS,
    RATIO_FIRST,
    RATIO_MIN,
    SPAN,
    prior_bound,
    prior_slope,
    smoothing,
)

FLOW = SCHEDULES["flow"]
SMALL = HDiTConfig(
    levels=(LevelConfig(depth=1, width=16, d_ff=16, d_head=8, window=3),),
    patch_size=2,
    mapping_width=16,
    mapping_d_ff=16,
    mapping_depth=1,
    rope_extent=4,
)


def seeded(make: object) -> object:
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        return make()  # type: ignore[operator]


def flow() -> FlowNetwork:
    backbone = replace(SMALL, in_channels=CHANNELS_IN, out_channels=CHANNELS_OUT)
    network = seeded(lambda: FlowNetwork(FlowConfig(backbone=backbone, levels=1, depth=1, width=8)))
    assert isinstance(network, FlowNetwork)
    return network


def gaussian(size: int = 8, dtype: torch.dtype = torch.float32) -> GaussianPrior:
    return GaussianPrior(torch.full((3, size, size), 0.2, dtype=dtype), 0.25, FLOW)


def test_the_bound_is_tight_for_an_exact_denoiser() -> None:
    """For a Gaussian the bound, integrated, is -log p up to a constant."""
    prior = gaussian(2, torch.float64)
    count = 20_000
    draw = torch.Generator().manual_seed(0)
    w = torch.randn(count, 3, 2, 2, generator=draw, dtype=torch.float64)
    place = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    x = 0.2 + torch.tensor([0.0, 0.4, 1.0]).double()[:, None, None, None].expand(3, 3, 2, 2)
    found = torch.stack(
        [prior_bound(prior, each.expand(count, 3, 2, 2), w, place).mean() for each in x]
    )
    exact = (x - 0.2).square().flatten(1).sum(1) / (2 * 0.25)
    assert torch.allclose(found - found[0], exact, rtol=0.02)


def test_the_slope_is_that_of_the_smoothed_prior() -> None:
    prior = gaussian(2, torch.float64)
    x = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for ratio in (0.02, 0.7):
        exact = (x - 0.2) / (0.25 + ratio**2)
        levels = torch.full((2,), ratio, dtype=torch.float64)
        assert torch.allclose(prior_slope(prior, x, levels), exact, rtol=1e-6)


def test_smoothing_falls_to_its_least_level_and_stays() -> None:
    ends = torch.tensor([0.0, 1.0])
    levels = [smoothing(step, ends).tolist() for step in range(2 * FALLING_STEPS)]
    assert levels[0] == pytest.approx([RATIO_FIRST, SPAN * RATIO_FIRST])
    assert all(a[0] > b[0] for a, b in pairwise(levels[: FALLING_STEPS + 1]))
    for low, high in levels[FALLING_STEPS:]:
        assert low == RATIO_MIN
        assert high == pytest.approx(SPAN * RATIO_MIN)


def test_a_flow_learns_the_posterior_of_a_gaussian_from_observations_alone() -> None:
    network, prior = flow(), gaussian()
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    mask = torch.zeros(1, 8, 8)
    mask[:, :, :4] = 1
    A, sigma_y = Inpainting(mask), 0.3
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def observed(count: int) -> Likelihood:
        x = 0.2 + 0.5 * draw(count, 3, 8, 8)
        return Likelihood(A(x) + sigma_y * A(draw(count, 3, 8, 8)), A, sigma_y)

    for step in range(300):
        place = (torch.arange(16) + torch.rand(16, generator=generator)) / 16
        likelihood = observed(16)
        z, w, ratio = draw(16, 3, 8, 8), draw(16, 3, 8, 8), smoothing(2 * step, place)
        kl = terms(network, prior, likelihood, z, w, place, ratio).kl
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / 300)
        optimizer.zero_grad()
        kl.mean().backward()
        optimizer.step()
    one = observed(1)
    given = AmortisedSampler(network.eval(), FLOW).given(one)
    with torch.no_grad():
        samples = given(draw(2000, 3, 8, 8), torch.tensor(1.0).double())
    exact = prior.posterior(one)
    variance = exact.covariance.diag().view(3, 8, 8).float()
    assert (samples.mean(0) - exact.mean.float()).square().mean().sqrt() < 0.08
    ratio = samples.var(0) / variance
    assert 0.85 < ratio[:, :, :4].mean() < 1.15
    assert 0.85 < ratio[:, :, 4:].mean() < 1.15


class Smooth:
    def batch(self, first: int, count: int, seed: int) -> Image:
        rows = []
        for n in range(first, first + count):
            level, slope = torch.rand(2, 3, 1, 1, generator=generator_of(seed, n)) - 0.5
            rows.append((level + slope * torch.linspace(-1, 1, 8)).expand(3, 8, 8))
        return torch.stack(rows)


PROBLEMS = Problems(parse_families("sr:2,inpaint:pixels@0.3-0.6", 8), Smooth(), seed=0, size=8)


def aps_objective(rows: list) -> ApsObjective:  # type: ignore[type-arg]
    return ApsObjective(flow(), gaussian(), PROBLEMS, rows)


def latino_objective(rows: list, adversarial: float = 0.0) -> LatinoObjective:  # type: ignore[type-arg]
    prior = seeded(lambda: HDiT(SMALL))
    assert isinstance(prior, HDiT)
    prior.requires_grad_(False)
    for i, w in enumerate(prior.parameters()):
        w.add_(0.05 * torch.randn(w.shape, generator=torch.Generator().manual_seed(i)))
    plan, config = default_plan(2), UnfoldedConfig(rank=2, num_steps=2, jumps=2)
    unfolded = seeded(lambda: Unfolded(prior, config, plan.ratios, plan.trust))
    critic = seeded(lambda: Critic(8)) if adversarial else None
    players = Players(unfolded, critic)  # type: ignore[arg-type]
    return LatinoObjective(players, hdit_denoiser(prior, FLOW), PROBLEMS, rows, adversarial)


@pytest.mark.parametrize("make", [aps_objective, latino_objective])
def test_the_gradient_does_not_depend_on_the_parts(make) -> None:  # type: ignore[no-untyped-def]
    one, parts = make([whole(6)]), make(shares(6, 0, 1, 2))
    for step in range(3):
        value = one.loss(step, 0)[0]
        in_parts = sum(parts.loss(step, part)[0] for part in range(2)) / 2
        assert torch.allclose(value, in_parts, rtol=1e-4)


def test_a_chain_learns() -> None:
    objective = latino_objective([whole(8)])
    optimizer = torch.optim.Adam(objective.network.parameters(), 0.02)

    def mean() -> float:
        with torch.no_grad():
            return sum(objective.loss(1000 + i, 0)[0].item() for i in range(8)) / 8

    before = mean()
    for step in range(60):
        optimizer.zero_grad()
        objective.loss(step, 0)[0].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert mean() < 0.8 * before


def test_each_player_gets_its_own_gradient_alone() -> None:
    critic = Critic(8)
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    xhat, beside = x.flip(0).clone().requires_grad_(), x.mean(1, keepdim=True).expand_as(x)
    fooling, judging = adversarial_loss(critic, xhat, x, beside)
    (slope,) = torch.autograd.grad(fooling, xhat, retain_graph=True)
    assert slope.abs().max() > 0
    grads = torch.autograd.grad(fooling, list(critic.parameters()), allow_unused=True)
    assert all(grad is None for grad in grads)
    assert torch.autograd.grad(judging, xhat, allow_unused=True, retain_graph=True) == (None,)
    judging.backward()  # type: ignore[no-untyped-call]
    assert all(w.grad is not None for w in critic.parameters())


def test_with_a_critic_both_learn() -> None:
    objective = latino_objective([whole(4)], adversarial=0.1)
    value, numbers = objective.loss(0, 0)
    value.backward()  # type: ignore[no-untyped-call]
    assert {"fooling", "judging"} <= set(numbers)
    players = objective.network
    assert players.critic is not None
    for module in (players.unfolded, players.critic):
        assert any(w.grad is not None and w.grad.abs().max() > 0 for w in module.parameters())


def test_observing_is_the_same_problem() -> None:
    """What training simulates is what a user degrades: the same noise for what is measured."""
    x, A = PROBLEMS.draw(1, 0, whole(2))
    likelihood = observe(A, x, 0.05, Noise([0, 1], torch.device("cpu")))
    assert ((likelihood.y == 0) == (A(torch.ones_like(x)) == 0)).all()
