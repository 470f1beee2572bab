import pytest
import torch
from torch import Tensor

from lavps_cli.core.schedule import (
    SCHEDULES,
    Flow,
    Schedule,
    VariancePreserving,
    noise_ratio,
    over,
    ratio_grid,
    schedule_named,
    spread,
    time_at_ratio,
    time_grid,
    transition,
)
from lavps_cli.errors import UsageError

each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


def time(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def uniform(schedule: Schedule, num_steps: int) -> Tensor:
    return torch.linspace(0, schedule.T, num_steps + 1, dtype=torch.float64)


@each_schedule
def test_signal_falls_from_one_and_noise_rises_from_zero(schedule: Schedule) -> None:
    times = uniform(schedule, 200)
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    assert alpha[0] == 1
    assert sigma[0] == 0
    assert (alpha.diff() < 0).all()
    assert (sigma.diff() > 0).all()
    assert alpha[-1] < 0.01
    assert sigma[-1] == pytest.approx(1, abs=1e-4)


def test_variance_is_preserved() -> None:
    times = uniform(VariancePreserving(), 50)
    total = VariancePreserving().alpha(times) ** 2 + VariancePreserving().sigma(times) ** 2
    torch.testing.assert_close(total, torch.ones_like(total))


def test_small_noise_levels_keep_their_digits() -> None:
    # sigma^2 = 1 - exp(-beta_min t) is beta_min t to first order; taken literally it rounds to 0.
    assert VariancePreserving().sigma(time(1e-17)).item() == pytest.approx(1e-9, rel=1e-6)


@each_schedule
@pytest.mark.parametrize(("r", "s", "t"), [(0.1, 0.2, 0.7), (0.3, 0.9, 1.0), (0.0, 0.5, 1.0)])
def test_two_transitions_compose_to_one(schedule: Schedule, r: float, s: float, t: float) -> None:
    alpha_sr, sigma_sr = transition(schedule, time(r), time(s))
    alpha_ts, sigma_ts = transition(schedule, time(s), time(t))
    alpha_tr, sigma_tr = transition(schedule, time(r), time(t))
    torch.testing.assert_close(alpha_ts * alpha_sr, alpha_tr)
    torch.testing.assert_close(alpha_ts**2 * sigma_sr**2 + sigma_ts**2, sigma_tr**2)


@each_schedule
def test_transition_from_zero_is_the_schedule_itself(schedule: Schedule) -> None:
    alpha, sigma = transition(schedule, time(0.0), time(0.4))
    assert alpha == schedule.alpha(time(0.4))
    torch.testing.assert_close(sigma, schedule.sigma(time(0.4)))


def test_transition_to_pure_noise_forgets_the_signal() -> None:
    alpha_ts, sigma_ts = transition(Flow(), time(0.99), time(1.0))
    assert alpha_ts == 0
    assert sigma_ts == 1


@each_schedule
@pytest.mark.parametrize("spacing", [None, "flow", "vp"])
@pytest.mark.parametrize("num_steps", [3, 100, 1000])
def test_time_grid_rises_strictly_from_zero_to_the_end(
    schedule: Schedule, spacing: str | None, num_steps: int
) -> None:
    times = time_grid(schedule, num_steps, spacing)
    assert times.shape == (num_steps + 1,)
    assert times.dtype == torch.float64
    assert times[0] == 0
    assert times[-1] == schedule.T
    assert (times.diff() > 0).all()


@pytest.mark.parametrize("name", SCHEDULES)
def test_own_grid_is_uniform(name: str) -> None:
    schedule = SCHEDULES[name]
    torch.testing.assert_close(time_grid(schedule, 7), uniform(schedule, 7))
    torch.testing.assert_close(time_grid(schedule, 7, name), uniform(schedule, 7))


def test_flow_prior_on_the_vp_grid_meets_the_noise_ratios_of_vp() -> None:
    ratios = noise_ratio(Flow(), time_grid(Flow(), 40, "vp"))
    expected = noise_ratio(VariancePreserving(), uniform(VariancePreserving(), 40))
    torch.testing.assert_close(ratios[:-1], expected[:-1], rtol=1e-9, atol=0)
    assert ratios[-1].isinf()


def test_vp_prior_on_the_flow_grid_is_uniform_in_flow_time_as_far_as_it_reaches() -> None:
    ratios = noise_ratio(VariancePreserving(), time_grid(VariancePreserving(), 40, "flow"))
    flow_times = ratios / (1 + ratios)
    torch.testing.assert_close(flow_times.diff(), (flow_times[-1] / 40).expand(40))


@each_schedule
def test_time_at_ratio_inverts_noise_ratio(schedule: Schedule) -> None:
    times = torch.tensor([1e-6, 0.01, 0.5, 0.999], dtype=torch.float64)
    torch.testing.assert_close(time_at_ratio(schedule, noise_ratio(schedule, times)), times)


def test_coefficients_multiply_whole_pictures() -> None:
    x = torch.ones(2, 3, 4, 5)
    assert (over(time(2.0), x) * x == 2).all()
    assert over(time(2.0), x).ndim == 0
    for value in (time(2.0), torch.tensor([2.0, 3.0], dtype=torch.float64)):
        assert torch.equal(spread(value, x), (over(value, x) * x).expand_as(x))
    scaled = over(torch.tensor([2.0, 3.0], dtype=torch.float64), x) * x
    assert scaled.dtype == torch.float32
    assert (scaled[0] == 2).all()
    assert (scaled[1] == 3).all()


def test_schedules_go_by_their_names() -> None:
    assert schedule_named("flow") == Flow()
    assert schedule_named("vp") == VariancePreserving()
    with pytest.raises(UsageError, match="'cosine'") as error:
        schedule_named("cosine")
    assert "flow, vp" in error.value.hint


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_a_grid_of_ratios_falls_between_the_ends_of_ddpm_whatever_its_power(power: float) -> None:
    ratios, even = ratio_grid(50, power), ratio_grid(50)
    assert (ratios.diff() < 0).all()
    assert ratios[0] == even[0]
    assert ratios[-2:].tolist() == even[-2:].tolist()
    assert (ratios[25] - even[25]).sign() == torch.sign(torch.tensor(power - 1.0))
