"""Denoisers from scores, with a network that knows the answer."""

import pytest
import torch
from torch import Tensor, nn

from lavps_cli.core.schedule import SCHEDULES
from lavps_cli.errors import UsageError
from lavps_cli.models.analytic import GaussianPrior
from lavps_cli.models.score import ScoreDenoiser

MEAN, VARIANCE = 0.2, 0.25
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class GaussianScore(nn.Module):
    """The score of a Gaussian of pictures in [0, 1], after noise of deviation sigma."""

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.sigma = sigma
        return ((MEAN + 1) / 2 - x) / (VARIANCE / 4 + sigma[:, None, None, None] ** 2)


@each_schedule
def test_the_score_of_a_gaussian_gives_its_posterior_mean(schedule: object) -> None:
    denoiser = ScoreDenoiser(GaussianScore(), schedule, 1e-3, 1e3)  # type: ignore[arg-type]
    exact = GaussianPrior(torch.full((3, 4, 4), MEAN).double(), VARIANCE, denoiser.schedule)
    t, xt = torch.tensor([0.02, 0.4, 0.95]).double(), random(3, 3, 4, 4)
    together = denoiser(xt, t)
    torch.testing.assert_close(together, exact(xt, t))
    for i in range(3):
        torch.testing.assert_close(denoiser(xt[i : i + 1], t[i]), together[i : i + 1])


def test_noise_outside_of_the_training() -> None:
    network = GaussianScore()
    denoiser = ScoreDenoiser(network, SCHEDULES["flow"], 0.01, 50.0)
    xt = random(2, 3, 4, 4)
    torch.testing.assert_close(denoiser(xt, torch.tensor(0.0).double()), xt)
    assert (network.sigma == 0.01).all()
    assert denoiser(xt, torch.tensor(1.0).double()).isfinite().all()
    assert (network.sigma == 50.0).all()


def test_gradient_passes() -> None:
    denoiser = ScoreDenoiser(GaussianScore(), SCHEDULES["vp"], 0.01, 50.0)
    xt = random(1, 1, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: denoiser(x, torch.tensor(0.4).double()), (xt,))


@pytest.mark.parametrize("limits", [(0.0, 1.0), (2.0, 1.0), (0.1, float("inf"))])
def test_limits_that_are_none(limits: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="sigma_min"):
        ScoreDenoiser(GaussianScore(), SCHEDULES["vp"], *limits)
