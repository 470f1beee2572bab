import pytest
import torch
from torch import Tensor

from lavps_cli.core.denoiser import CountedDenoiser, Denoiser, ddim
from lavps_cli.core.noise import Noise
from lavps_cli.core.schedule import SCHEDULES, Flow, Schedule
from lavps_cli.models.analytic import GaussianPrior

CPU = torch.device("cpu")
MEAN, VARIANCE = 0.3, 0.25
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


def time(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian(schedule: Schedule, side: int = 4) -> GaussianPrior:
    return GaussianPrior(torch.full((1, side, side), MEAN).double(), VARIANCE, schedule)


@each_schedule
@pytest.mark.parametrize("noise", [None, Noise([0, 1], CPU)], ids=["eta0", "eta1"])
def test_one_step_is_the_denoiser(schedule: Schedule, noise: Noise | None) -> None:
    prior, xs = gaussian(schedule), random(2, 1, 4, 4)
    assert torch.equal(ddim(prior, xs, time(0.4), 1, noise), prior(xs, time(0.4)))


@each_schedule
def test_without_noise_many_steps_follow_the_probability_flow(schedule: Schedule) -> None:
    # The flow of a Gaussian keeps the standardised picture.
    prior, xs, s = gaussian(schedule), random(2, 1, 4, 4), time(0.5)
    alpha, sigma = schedule.alpha(s), schedule.sigma(s)
    exact = MEAN + (VARIANCE / (alpha**2 * VARIANCE + sigma**2)).sqrt() * (xs - alpha * MEAN)
    coarse, fine = ((ddim(prior, xs, s, m) - exact).abs().max() for m in (50, 100))
    assert fine < 0.03
    assert fine / coarse == pytest.approx(0.5, abs=0.05)


@each_schedule
def test_with_noise_many_steps_draw_from_the_posterior_of_x0(schedule: Schedule) -> None:
    prior, s = gaussian(schedule, 100), time(0.5)
    xs = torch.full((1, 1, 100, 100), 0.2, dtype=torch.float64)
    alpha, sigma = schedule.alpha(s), schedule.sigma(s)
    mean = prior(xs, s)[0, 0, 0, 0].item()
    variance = (VARIANCE * sigma**2 / (alpha**2 * VARIANCE + sigma**2)).item()
    # A step towards the mean of x0 instead of a draw loses variance; the loss falls as 1 / M.
    coarse, fine = (ddim(prior, xs, s, m, Noise([0], CPU)) for m in (20, 80))
    lost = [1 - x0.var().item() / variance for x0 in (coarse, fine)]
    error = 5 * 2**0.5 / 100
    assert fine.mean().item() == pytest.approx(mean, abs=5 * variance**0.5 / 100)
    assert 0 < lost[0] < 0.35 + error
    assert lost[1] < lost[0] / 4 + error


def test_every_image_may_start_at_its_own_time() -> None:
    prior, xs = gaussian(Flow()), random(2, 1, 4, 4)
    s = torch.tensor([0.3, 0.6], dtype=torch.float64)
    together = ddim(prior, xs, s, 5)
    for i in range(2):
        torch.testing.assert_close(together[i : i + 1], ddim(prior, xs[i : i + 1], s[i], 5))


def test_ddim_builds_no_graph() -> None:
    xs = random(1, 1, 4, 4).requires_grad_()
    assert not ddim(gaussian(Flow()), xs, time(0.4), 3).requires_grad


def test_evaluations_are_counted_per_image_of_the_batch() -> None:
    denoiser = CountedDenoiser(gaussian(Flow()), batch=2)
    assert isinstance(denoiser, Denoiser)
    assert denoiser.schedule == Flow()
    xt = random(2, 1, 4, 4)
    denoiser(xt, time(0.5))
    assert (denoiser.nfe, denoiser.nbe) == (1, 0)
    denoiser(torch.cat([xt, xt]), time(0.5))
    assert (denoiser.nfe, denoiser.nbe) == (3, 0)
    denoiser(xt.requires_grad_(), time(0.5)).sum().backward()
    assert (denoiser.nfe, denoiser.nbe) == (4, 1)
