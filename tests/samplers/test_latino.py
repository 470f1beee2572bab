import pytest
import torch

from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.schedule import SCHEDULES, noise_ratio, time_at_ratio
from lavps_cli.core.types import Image, Time
from lavps_cli.errors import UsageError
from lavps_cli.models.analytic import GaussianPrior
from lavps_cli.operators.inpainting import Inpainting
from lavps_cli.operators.super_resolution import SuperResolution
from lavps_cli.samplers.latino import LatinoOptions, Plan, default_plan, latino, towards_observation

CPU = torch.device("cpu")
SHAPE = (3, 4, 4)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(sigma_y: float = 0.1) -> Likelihood:
    A = SuperResolution(2)
    return Likelihood(A(random(1, *SHAPE, seed=1)), A, sigma_y)


def test_the_closed_form_step_is_the_minimiser() -> None:
    likelihood, x0, trust = problem(), random(1, *SHAPE, seed=2), torch.tensor(0.4).double()
    x = towards_observation(likelihood, x0, trust).requires_grad_()
    cost = -likelihood.log_prob(x).sum() + (x - x0).square().sum() / (2 * trust**2)
    (slope,) = torch.autograd.grad(cost, x)
    assert slope.abs().max() < 1e-9


@pytest.mark.parametrize("name", SCHEDULES)
def test_one_sure_iteration_is_the_mean_of_a_gaussian(name: str) -> None:
    """With all of x_0 free, and from a level that leaves nothing, the data step alone speaks."""
    schedule = SCHEDULES[name]
    prior = GaussianPrior(torch.zeros(SHAPE, dtype=torch.float64), 0.25, schedule)
    likelihood = problem()
    plan = Plan(torch.tensor([1e-4]).double(), torch.tensor([0.5]).double())
    options = LatinoOptions(num_steps=1, jumps=1)
    x = latino(prior, likelihood, options, shape=(1, *SHAPE), noise=Noise([0], CPU), plan=plan)
    assert torch.allclose(x[0], prior.posterior(likelihood).mean, atol=1e-3)


def test_a_new_operator_is_obeyed_without_another_network() -> None:
    """What is measured without noise is kept, whatever the operator, as the last level is low."""
    prior = GaussianPrior(torch.zeros(SHAPE, dtype=torch.float64), 0.25, SCHEDULES["flow"])
    x = random(1, *SHAPE, seed=3)
    for A in (SuperResolution(2), Inpainting((random(1, 4, 4, seed=4) > 0).double())):
        likelihood = Likelihood(A(x), A, 1e-3)
        out = latino(
            prior, likelihood, LatinoOptions(num_steps=8), shape=(1, *SHAPE), noise=Noise([0], CPU)
        )
        assert (A(out) - A(x)).square().mean().sqrt() < 0.2 * A(x).square().mean().sqrt()


def test_the_plan_and_the_denoiser_get_exact_gradients() -> None:
    """By finite differences, the level included, which acts through the time as well."""
    likelihood = problem()

    def cost(ratio: torch.Tensor, trust: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        class Denoiser:
            schedule = SCHEDULES["vp"]

            def __call__(self, xt: Image, t: Time) -> Image:
                return torch.tanh(gain * xt) * (
                    1 + noise_ratio(self.schedule, t)[..., None, None, None]
                )

        plan = Plan(ratio, trust)
        x = latino(
            Denoiser(), likelihood, LatinoOptions(num_steps=2, jumps=2), shape=(1, *SHAPE),
            noise=Noise([0], CPU), plan=plan,
        )  # fmt: skip
        return x.square().sum()

    values = [torch.tensor(v).double().requires_grad_() for v in ([0.8, 0.3], [0.5, 0.7], 0.9)]
    assert torch.autograd.gradcheck(cost, values, eps=1e-5, atol=1e-4)


def test_times_of_ratios_have_the_gradient_of_the_schedule() -> None:
    ratio = torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64, requires_grad=True)
    for schedule in SCHEDULES.values():
        assert torch.autograd.gradcheck(lambda r, s=schedule: time_at_ratio(s, r), ratio, eps=1e-7)


def test_what_it_cannot_do_is_refused() -> None:
    prior = GaussianPrior(torch.zeros(SHAPE, dtype=torch.float64), 0.25, SCHEDULES["flow"])
    nonlinear = Likelihood(random(1, *SHAPE), torch.tanh, 0.1)
    with pytest.raises(UsageError, match="linear"):
        latino(prior, nonlinear, LatinoOptions(), shape=(1, *SHAPE), noise=Noise([0], CPU))
    with pytest.raises(UsageError, match="trained for 3"):
        latino(
            prior, problem(), LatinoOptions(num_steps=4), shape=(1, *SHAPE), noise=Noise([0], CPU),
            plan=default_plan(3),
        )  # fmt: skip
    with pytest.raises(UsageError):
        LatinoOptions(jumps=0)
