from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from lavps_cli.core.denoiser import Denoiser
from lavps_cli.core.schedule import SCHEDULES, Flow, Schedule, noise_ratio, time_at_ratio
from lavps_cli.models.analytic import GaussianPrior
from lavps_cli.models.hdit import HDiT, HDiTConfig
from lavps_cli.models.hdit_layers import LevelConfig
from lavps_cli.models.preconditioning import (
    RATIO_MAX,
    RATIO_MIN,
    SIGMA_DATA,
    PreconditionedDenoiser,
    c_noise,
    hdit_denoiser,
    input_scale,
)

each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


def time(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Raw(nn.Module):
    """A network that is anything but linear, in its input and in the noise level."""

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        return (x + noise.view(-1, 1, 1, 1)).sin() + 0.3 * x.roll(1, -1)


class Zero(nn.Module):
    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        return torch.zeros_like(x)


@dataclass(eq=False)
class Recorded(nn.Module):
    seen: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        self.seen.append((x, noise))
        return x


def edm(network: nn.Module, x: Tensor, sigma: Tensor) -> Tensor:
    """The denoiser of Karras et al. 2022, equation (7) and Table 1, at x = x0 + sigma w."""
    total = sigma**2 + SIGMA_DATA**2
    c_skip, c_out = SIGMA_DATA**2 / total, sigma * SIGMA_DATA / total.sqrt()
    c_in, noise = 1 / total.sqrt(), sigma.log() / 4
    return c_skip * x + c_out * network(c_in * x, noise.expand(len(x)))


@each_schedule
@pytest.mark.parametrize("t", [0.01, 0.3, 0.9])
def test_denoiser_is_that_of_edm_at_the_noise_ratio(schedule: Schedule, t: float) -> None:
    xt = random(2, 3, 4, 4)
    alpha, sigma = schedule.alpha(time(t)), schedule.sigma(time(t))
    expected = edm(Raw(), xt / alpha, sigma / alpha)
    x0 = PreconditionedDenoiser(Raw(), schedule)(xt, time(t))
    torch.testing.assert_close(x0, expected)


def test_schedules_agree_at_the_same_noise_ratio() -> None:
    x, ratio = random(2, 3, 4, 4), time(0.8)
    results = []
    for schedule in SCHEDULES.values():
        t = time_at_ratio(schedule, ratio)
        denoiser = PreconditionedDenoiser(Raw(), schedule)
        results.append(denoiser(schedule.alpha(t) * x, t))
    torch.testing.assert_close(results[0], results[1])


def test_pure_noise_is_denoised_without_a_division_by_zero() -> None:
    network = Recorded()
    xt = random(2, 3, 4, 4)
    x0 = PreconditionedDenoiser(network, Flow())(xt, time(1.0))
    torch.testing.assert_close(x0, SIGMA_DATA * xt)
    (x, noise) = network.seen[0]
    torch.testing.assert_close(x, xt)
    torch.testing.assert_close(noise, time(RATIO_MAX).log().expand(2) / 4)


@each_schedule
def test_a_clean_picture_is_returned(schedule: Schedule) -> None:
    x = random(2, 3, 4, 4)
    torch.testing.assert_close(PreconditionedDenoiser(Raw(), schedule)(x, time(0.0)), x)


@each_schedule
def test_a_network_of_zero_is_the_prior_of_white_pictures(schedule: Schedule) -> None:
    xt = random(2, 1, 4, 4)
    white = GaussianPrior(torch.zeros(1, 4, 4).double(), SIGMA_DATA**2, schedule)
    for t in (0.2, 0.9, 1.0):
        x0 = PreconditionedDenoiser(Zero(), schedule)(xt, time(t))
        torch.testing.assert_close(x0, white(xt, time(t)))


@each_schedule
def test_the_network_sees_unit_variance_at_every_time(schedule: Schedule) -> None:
    times = torch.linspace(0, schedule.T, 30, dtype=torch.float64)
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    variance = input_scale(alpha, sigma) ** 2 * (alpha**2 * SIGMA_DATA**2 + sigma**2)
    torch.testing.assert_close(variance, torch.ones_like(variance))


def test_noise_level_is_a_quarter_of_the_log_ratio_within_its_range() -> None:
    ratios = torch.tensor([0.0, 0.05, 1.0, 20.0, float("inf")], dtype=torch.float64)
    expected = ratios.clamp(RATIO_MIN, RATIO_MAX).log() / 4
    torch.testing.assert_close(c_noise(ratios), expected)
    assert c_noise(time(1.0)) == 0
    assert c_noise(ratios).isfinite().all()


def test_every_image_may_have_its_own_time() -> None:
    xt, t = random(2, 3, 4, 4), torch.tensor([0.2, 1.0], dtype=torch.float64)
    denoiser = PreconditionedDenoiser(Raw(), Flow())
    together = denoiser(xt, t)
    for i in range(2):
        torch.testing.assert_close(together[i : i + 1], denoiser(xt[i : i + 1], t[i]))


def test_gradient_passes_the_network_and_the_skip() -> None:
    xt = random(1, 1, 3, 3).requires_grad_()
    denoiser = PreconditionedDenoiser(Raw(), Flow())
    assert torch.autograd.gradcheck(lambda x: denoiser(x, time(0.4)), (xt,))


def test_hdit_becomes_a_prior_of_its_precision_and_multiple() -> None:
    level = LevelConfig(depth=1, width=16, d_ff=16, d_head=8)
    settings = HDiTConfig(levels=(level, level), patch_size=2, mapping_width=16, mapping_d_ff=16)
    denoiser = hdit_denoiser(HDiT(settings), Flow(), torch.bfloat16)
    assert isinstance(denoiser, Denoiser)
    assert denoiser.multiple == settings.multiple == 4
    x0 = denoiser(random(1, 3, 8, 8).float(), time(0.5))
    assert x0.dtype == torch.float32
    ratio = noise_ratio(Flow(), time(0.5)).float()
    expected = edm(Zero(), random(1, 3, 8, 8).float() / 0.5, ratio)
    torch.testing.assert_close(x0, expected)
