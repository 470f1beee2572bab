"""Noise schedules (Section 2.1): alpha_t, sigma_t, and the transition between two times."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Literal, Protocol, TypeAlias, TypeVar, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from lavps_cli.core.types import Images, Time
from lavps_cli.errors import UsageError


@runtime_checkable
class Schedule(Protocol):
    """Signal level alpha_t and noise level sigma_t for t in [0, T]; alpha_0 = 1, sigma_0 = 0."""

    @property
    def T(self) -> float:
        """The final time."""

    def alpha(self, t: Time) -> Time: ...

    def sigma(self, t: Time) -> Time: ...


@dataclass(frozen=True)
class Flow:
    """alpha_t = 1 - t, sigma_t = t (flow matching), T = 1."""

    T: float = 1.0

    def alpha(self, t: Time) -> Time:
        return 1 - t

    def sigma(self, t: Time) -> Time:
        return t


@dataclass(frozen=True)
class VariancePreserving:
    """alpha_t^2 + sigma_t^2 = 1 with the linear rate of DDPM, beta from 0.1 to 20, T = 1."""

    T: float = 1.0
    beta_min: float = 0.1
    beta_max: float = 20.0

    def _log_alpha(self, t: Time) -> Time:
        return -0.5 * (self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2)

    def alpha(self, t: Time) -> Time:
        return torch.exp(self._log_alpha(t))

    def sigma(self, t: Time) -> Time:
        return torch.sqrt(-torch.expm1(2 * self._log_alpha(t)))


ScheduleName: TypeAlias = Literal["flow", "vp"]
SCHEDULES: dict[str, Schedule] = {"flow": Flow(), "vp": VariancePreserving()}


def schedule_named(name: str) -> Schedule:
    """Return the schedule of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in SCHEDULES:
        raise UsageError(f"there is no schedule {name!r}.", f"Choose from: {', '.join(SCHEDULES)}")
    return SCHEDULES[name]


def schedule_name(schedule: Schedule) -> str:
    """Return the name of a schedule."""
    return next(name for name, value in SCHEDULES.items() if value == schedule)


def time_grid(
    schedule: Schedule, num_steps: int, spacing: ScheduleName | None = None
) -> Float[Tensor, " k"]:
    """Return t_0 = 0 < ... < t_K = T of Algorithm 2.

    Uniform in the time of `spacing` (by default of `schedule` itself), carried over by the noise
    ratio sigma_t / alpha_t: schedules differ by a scaling of x_t only, so a prior of one schedule
    can be sampled on the grid of another.
    """
    if spacing is None or SCHEDULES[spacing] == schedule:
        return torch.linspace(0, schedule.T, num_steps + 1, dtype=torch.float64)
    other = SCHEDULES[spacing]
    last = torch.tensor(schedule.T, dtype=torch.float64)
    end = time_at_ratio(other, noise_ratio(schedule, last))
    ratios = noise_ratio(other, torch.linspace(0, 1, num_steps + 1, dtype=torch.float64) * end)
    times = time_at_ratio(schedule, ratios)
    times[0], times[-1] = 0, last
    return times


def ratio_grid(num_steps: int, power: float = 1.0) -> Float[Tensor, " k"]:
    """Return `num_steps` falling ratios sigma_t / alpha_t, those of DDPM's first 1000 times, and 0.

    The last but one is that of its first step, 0.01, however few there are. Times fall as 1 - u to
    the `power` for uniform u: below 1 there are more of them at low noise.
    """
    vp = SCHEDULES["vp"]
    first = vp.T / 1000
    times = torch.linspace(vp.T, first, num_steps, dtype=torch.float64)
    if power != 1:
        done = torch.linspace(0, 1, num_steps, dtype=torch.float64)
        times = first + (vp.T - first) * (1 - done**power)
    return torch.cat([noise_ratio(vp, times), torch.zeros(1, dtype=torch.float64)])


F = TypeVar("F", bound=Callable[..., object])


def of_times(function: F) -> F:
    """Have a function of a schedule, times and named numbers remember what it returned last.

    A sampler asks for the same dozen coefficients several times a step. By themselves they cost
    nothing, but a GPU would be waiting for them: 400 operations on the host a step. Rows of times,
    and those that a slope is asked by, are not remembered.
    """

    @lru_cache(maxsize=256)
    def kept(schedule: Schedule, *times: float, **numbers: float) -> object:
        return function(schedule, *(torch.tensor(t, dtype=torch.float64) for t in times), **numbers)

    @wraps(function)
    def found(schedule: Schedule, *times: Tensor, **numbers: float) -> object:
        if isinstance(schedule, Hashable) and all(map(_is_kept, times)):
            return kept(schedule, *map(float, times), **numbers)
        return function(schedule, *times, **numbers)

    return cast(F, found)


def _is_kept(t: Tensor) -> bool:
    return t.dtype == torch.float64 and _is_number(t)


@of_times
def transition(schedule: Schedule, s: Time, t: Time) -> tuple[Time, Time]:
    """Return alpha_{t|s} and sigma_{t|s} of equation (1), for s < t."""
    alpha_ts = schedule.alpha(t) / schedule.alpha(s)
    var_ts = schedule.sigma(t) ** 2 - alpha_ts**2 * schedule.sigma(s) ** 2
    return alpha_ts, torch.sqrt(var_ts.clamp_min(0))


def over(coefficient: Time, x: Images) -> Tensor:
    """Return a time-dependent coefficient, shared or one per image, shaped to multiply pictures.

    One number stays on the host and goes with the product: it would reach a device no sooner than
    the product is made.
    """
    if _is_number(coefficient):
        return coefficient.to(x.dtype)
    # Not waiting: the host goes on while a device computes.
    return coefficient.to(x.device, x.dtype, non_blocking=True)[..., None, None, None]


def spread(coefficient: Time, x: Images) -> Images:
    """Return pictures like `x` of a time-dependent value, expanded."""
    if _is_number(coefficient):
        return x.new_full((1, 1, 1, 1), float(coefficient)).expand_as(x)
    return over(coefficient, x).expand_as(x)


def of_rows(coefficient: Time, x: Images, dtype: torch.dtype | None = None) -> Float[Tensor, " b"]:
    """Return a time-dependent value for every picture of a batch; `dtype` None is theirs."""
    dtype = dtype or x.dtype
    if _is_number(coefficient):
        return x.new_full((len(x),), float(coefficient), dtype=dtype)
    return coefficient.to(x.device, dtype, non_blocking=True).expand(len(x))


def _is_number(coefficient: Time) -> bool:
    on_host = coefficient.device.type == "cpu"
    return coefficient.ndim == 0 and on_host and not coefficient.requires_grad


@of_times
def noise_ratio(schedule: Schedule, t: Time) -> Time:
    """Return sigma_t / alpha_t, infinite where alpha_t = 0."""
    return schedule.sigma(t) / schedule.alpha(t)


def time_at_ratio(schedule: Schedule, ratio: Time) -> Time:
    """Return the time at which sigma_t / alpha_t is `ratio`, by bisection; differentiable."""
    if ratio.requires_grad:
        t = time_at_ratio(schedule, ratio.detach()).requires_grad_()
        (slope,) = torch.autograd.grad(noise_ratio(schedule, t).sum(), t)
        return t.detach() + (ratio - ratio.detach()) / slope
    low = torch.zeros_like(ratio, dtype=torch.float64)
    high = torch.full_like(low, schedule.T)
    for _ in range(60):
        mid = 0.5 * (low + high)
        is_early = noise_ratio(schedule, mid) < ratio
        low, high = torch.where(is_early, mid, low), torch.where(is_early, high, mid)
    return 0.5 * (low + high)
