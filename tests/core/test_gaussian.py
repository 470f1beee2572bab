import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from lavps_cli.core.gaussian import (
    DiagonalGaussian,
    bridge,
    bridge_between,
    forward_kernel,
    standard_normal,
)
from lavps_cli.core.noise import Noise
from lavps_cli.core.schedule import SCHEDULES, Schedule

CPU = torch.device("cpu")
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


def time(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian(seed: int, b: int = 3) -> DiagonalGaussian:
    return DiagonalGaussian(random(b, 2, 3, 4, seed=seed), random(b, 2, 3, 4, seed=seed + 1).exp())


def pixel(value: float) -> Tensor:
    return torch.full((1, 1, 1, 1), value, dtype=torch.float64)


def moments(log_density: Tensor, grid: Tensor) -> tuple[float, float]:
    """The mean and variance of an unnormalised density on a grid."""
    density = torch.softmax(log_density, 0)
    mean = (density * grid).sum()
    return mean.item(), (density * (grid - mean) ** 2).sum().item()


def forward(schedule: Schedule, s: Tensor, t: Tensor, x_s: Tensor) -> Normal:
    """q_{t|s} straight from its definition."""
    ratio = schedule.alpha(t) / schedule.alpha(s)
    return Normal(ratio * x_s, (schedule.sigma(t) ** 2 - ratio**2 * schedule.sigma(s) ** 2).sqrt())


GRID = torch.linspace(-12, 12, 20_001, dtype=torch.float64)


@each_schedule
@pytest.mark.parametrize(("s", "t"), [(0.2, 0.3), (0.05, 0.9), (0.6, 1.0), (0.99, 1.0)])
def test_bridge_is_the_integrated_conditional(schedule: Schedule, s: float, t: float) -> None:
    q = bridge(schedule, pixel(0.7), pixel(-1.1), time(s), time(t))
    log_density = forward(schedule, time(0.0), time(s), pixel(0.7).flatten()).log_prob(GRID)
    log_density += forward(schedule, time(s), time(t), GRID).log_prob(time(-1.1))
    mean, variance = moments(log_density, GRID)
    assert q.mu.item() == pytest.approx(mean, rel=1e-7)
    assert q.rho.item() == pytest.approx(variance, rel=1e-7)


@each_schedule
@pytest.mark.parametrize("times", [(0.2, 0.3, 0.5), (0.1, 0.6, 1.0), (0.0, 0.3, 0.4)])
def test_three_time_bridge_is_the_product_of_its_kernels(
    schedule: Schedule, times: tuple[float, float, float]
) -> None:
    r, s, t = map(time, times)
    q = bridge_between(schedule, pixel(0.7), pixel(-1.1), r, s, t)
    log_density = forward(schedule, r, s, time(0.7)).log_prob(GRID)
    log_density += forward(schedule, s, t, GRID).log_prob(time(-1.1))
    mean, variance = moments(log_density, GRID)
    assert q.mu.item() == pytest.approx(mean, rel=1e-7)
    assert q.rho.item() == pytest.approx(variance, rel=1e-7)


@each_schedule
@pytest.mark.parametrize("t", [0.7, 1.0])
def test_three_time_bridge_from_zero_is_the_bridge(schedule: Schedule, t: float) -> None:
    x0, xt = random(2, 1, 3, 3), random(2, 1, 3, 3, seed=1)
    a = bridge(schedule, x0, xt, time(0.5), time(t))
    b = bridge_between(schedule, x0, xt, time(0.0), time(0.5), time(t))
    torch.testing.assert_close(a.mu, b.mu)
    torch.testing.assert_close(a.rho, b.rho)


@each_schedule
@pytest.mark.parametrize("t", [0.8, 1.0])
def test_bridge_over_the_kernel_of_t_is_the_kernel_of_s(schedule: Schedule, t: float) -> None:
    x0 = random(1, 1, 2, 2)
    far = forward_kernel(schedule, x0, time(0.0), time(t))
    near = forward_kernel(schedule, x0, time(0.0), time(0.3))
    at_mean = bridge(schedule, x0, far.mu, time(0.3), time(t))
    slope = bridge(schedule, x0, far.mu + 1, time(0.3), time(t)).mu - at_mean.mu
    torch.testing.assert_close(at_mean.mu, near.mu)
    torch.testing.assert_close(at_mean.rho + slope**2 * far.rho, near.rho)


@each_schedule
def test_every_image_may_have_its_own_times(schedule: Schedule) -> None:
    x0, xt = random(2, 1, 3, 3), random(2, 1, 3, 3, seed=1)
    s, m, t = (torch.tensor(v, dtype=torch.float64) for v in ([0.1, 0.4], [0.2, 0.5], [0.3, 1.0]))
    for i in range(2):
        row = slice(i, i + 1)
        for each, alone in (
            (bridge(schedule, x0, xt, s, t), bridge(schedule, x0[row], xt[row], s[i], t[i])),
            (forward_kernel(schedule, x0, s, t), forward_kernel(schedule, x0[row], s[i], t[i])),
            (
                bridge_between(schedule, x0, xt, s, m, t),
                bridge_between(schedule, x0[row], xt[row], s[i], m[i], t[i]),
            ),
        ):
            torch.testing.assert_close(each.mu[row], alone.mu)
            torch.testing.assert_close(each.rho[row], alone.rho)


def test_rho_is_a_variance() -> None:
    q = DiagonalGaussian(torch.full((1, 1, 200, 200), 2.0), torch.full((1, 1, 200, 200), 9.0))
    x = q.sample(Noise([0], CPU))
    assert x.mean().item() == pytest.approx(2, abs=5 * 3 / 200)
    assert x.var().item() == pytest.approx(9, abs=5 * 9 * 2**0.5 / 200)
    assert torch.equal(q.at(torch.ones_like(x)), torch.full_like(x, 5.0))


def test_kl_is_the_sum_over_pixels_of_each_image() -> None:
    p, q = gaussian(0), gaussian(2)
    each = kl_divergence(Normal(p.mu, p.rho.sqrt()), Normal(q.mu, q.rho.sqrt()))
    torch.testing.assert_close(p.kl(q), each.sum((1, 2, 3)))


def test_kl_is_the_mean_of_the_log_ratio() -> None:
    p, q = gaussian(0, b=1), gaussian(2, b=1)
    w = random(40_000, 2, 3, 4, seed=9)
    log_p = Normal(p.mu, p.rho.sqrt()).log_prob(p.at(w)).sum((1, 2, 3))
    log_q = Normal(q.mu, q.rho.sqrt()).log_prob(p.at(w)).sum((1, 2, 3))
    ratio = log_p - log_q
    deviation = ratio.std() / len(ratio) ** 0.5
    assert (p.kl(q) - ratio.mean()).abs() < 5 * deviation


def test_kl_is_zero_at_itself_and_positive_elsewhere() -> None:
    p = gaussian(0)
    torch.testing.assert_close(p.kl(p), torch.zeros(3, dtype=torch.float64))
    for seed in range(1, 20):
        q = gaussian(seed)
        near = DiagonalGaussian(p.mu + 1e-3 * q.mu, p.rho * (1e-3 * q.mu).exp())
        assert (p.kl(q) > 0).all()
        assert (p.kl(near) > 0).all()


def test_standard_normal_starts_every_image_from_its_seed() -> None:
    x = standard_normal((2, 1, 3, 3), Noise([4, 5], CPU), torch.float64)
    assert x.dtype == torch.float64
    assert torch.equal(x[1:], standard_normal((1, 1, 3, 3), Noise([5], CPU), torch.float64))
