"""The probability flow of denoisers known in closed form."""

import pytest
import torch

from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.schedule import SCHEDULES, Schedule
from lavps_cli.errors import UsageError
from lavps_cli.models.analytic import GaussianPrior
from lavps_cli.operators.inpainting import Inpainting
from lavps_cli.samplers.ode import OdeOptions, evaluations, ode

CPU = torch.device("cpu")
SHAPE = (1, 2, 2)
SIGMA_Y = 0.3
A = Inpainting(torch.tensor([[[1.0, 1.0], [0.0, 0.0]]], dtype=torch.float64))
Y = torch.tensor([[[[0.8, -0.5], [0.0, 0.0]]]], dtype=torch.float64)


def posterior(schedule: Schedule) -> tuple[GaussianPrior, Likelihood]:
    """The denoiser that knows the observation: of a Gaussian, as the prior is."""
    prior = GaussianPrior(torch.full(SHAPE, 0.3, dtype=torch.float64), 0.25, schedule)
    likelihood = Likelihood(Y, A, SIGMA_Y)
    exact = prior.posterior(likelihood)
    return GaussianPrior(exact.mean, exact.covariance.diag().view(SHAPE), schedule), likelihood


def sampled(schedule: Schedule, options: OdeOptions, count: int = 400) -> torch.Tensor:
    denoiser, likelihood = posterior(schedule)
    noise = Noise(range(count), CPU)
    return ode(denoiser, likelihood, options, shape=(count, *SHAPE), noise=noise)


def image_of(schedule: Schedule, options: OdeOptions) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of the samples, exactly: they are affine in the noise, pixel by pixel."""
    x = sampled(schedule, options, 2)
    w = torch.stack([n.normal(SHAPE, torch.float64)[0] for n in (Noise([0], CPU), Noise([1], CPU))])
    deviation = (x[1] - x[0]) / (w[1] - w[0])
    return x[0] - deviation * w[0], deviation


@pytest.mark.parametrize("name", SCHEDULES)
def test_ends_are_samples_of_what_the_denoiser_stands_for(name: str) -> None:
    schedule = SCHEDULES[name]
    denoiser, _ = posterior(schedule)
    mean, deviation = image_of(schedule, OdeOptions(num_steps=250))
    assert torch.allclose(mean, denoiser.mean, atol=4e-3)
    assert torch.allclose(deviation, torch.as_tensor(denoiser.variance).sqrt(), rtol=1e-3)


def test_heun_is_of_second_order_and_euler_of_first() -> None:
    """Errors at doubled steps, against the same solver with very many."""

    def error(solver: str, num_steps: int) -> float:
        def deviation(steps: int) -> torch.Tensor:
            options = OdeOptions(solver=solver, num_steps=steps)  # type: ignore[arg-type]
            return image_of(SCHEDULES["flow"], options)[1]

        return (deviation(num_steps) - deviation(1500)).abs().max().item()

    assert 1.7 < error("euler", 40) / error("euler", 80) < 2.6
    assert 3.4 < error("heun", 40) / error("heun", 80) < 5


def test_the_noise_of_an_image_does_not_depend_on_the_others() -> None:
    together = sampled(SCHEDULES["flow"], OdeOptions(num_steps=4), 5)
    denoiser, likelihood = posterior(SCHEDULES["flow"])
    noise = Noise([3], CPU)
    alone = ode(denoiser, likelihood, OdeOptions(num_steps=4), shape=(1, *SHAPE), noise=noise)
    assert torch.equal(together[3:4], alone)


def test_evaluations_are_those_made() -> None:
    calls = 0
    denoiser, likelihood = posterior(SCHEDULES["flow"])

    class Counting:
        schedule = denoiser.schedule

        def __call__(self, xt: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            calls += 1
            return denoiser(xt, t)

    for solver in ("heun", "euler"):
        calls, options = 0, OdeOptions(num_steps=7, solver=solver)  # type: ignore[arg-type]
        ode(Counting(), likelihood, options, shape=(1, *SHAPE), noise=Noise([0], CPU))
        assert (calls, 0) == evaluations(options, warm=False)


@pytest.mark.parametrize("settings", [{"num_steps": 0}, {"ratio_min": 2.0, "ratio_max": 1.0}])
def test_impossible_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        OdeOptions(**settings)  # type: ignore[arg-type]
