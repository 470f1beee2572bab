"""Coefficients that are remembered are those that are computed, whatever the times are."""

from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor

from lavps_cli.core.gaussian import bridge_variance, bridge_weights
from lavps_cli.core.schedule import Flow, VariancePreserving, noise_ratio, of_times, transition
from lavps_cli.models.preconditioning import coefficients

SCHEDULES = (Flow(), VariancePreserving())
S, T = (torch.tensor(t, dtype=torch.float64) for t in (0.2, 0.7))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("function", "times"),
    [
        (transition, (S, T)), (bridge_weights, (S, T)), (bridge_variance, (S, T)),
        (noise_ratio, (T,)), (partial(coefficients, sigma_data=0.5), (T,)),
    ],
)  # fmt: skip
def test_single_times_and_rows_of_times_agree(schedule, function, times: tuple[Tensor]) -> None:
    for _ in range(2):
        single = function(schedule, *times)
        rows = function(schedule, *(t.expand(3) for t in times))
        for one, all_of_them in zip(*map(as_tuple, (single, rows)), strict=True):
            assert torch.equal(all_of_them, one.expand(3))


def as_tuple(found: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


def test_slopes_by_a_time_are_not_forgotten() -> None:
    noise_ratio(Flow(), T)
    t = T.clone().requires_grad_()
    (slope,) = torch.autograd.grad(noise_ratio(Flow(), t), t)
    torch.testing.assert_close(slope, 1 / (1 - T) ** 2)


def test_it_is_computed_once_for_a_schedule_and_a_time() -> None:
    asked: list[float] = []

    @of_times
    def level(schedule: Flow, t: Tensor) -> Tensor:
        asked.append(float(t))
        return schedule.sigma(t)

    for t in (0.1, 0.2, 0.1, 0.2):
        assert float(level(Flow(), torch.tensor(t, dtype=torch.float64))) == t
    assert asked == [0.1, 0.2]


def test_a_schedule_without_a_hash_is_asked_every_time() -> None:
    @dataclass
    class Own:
        slope: float
        T: float = 1.0

        def alpha(self, t: Tensor) -> Tensor:
            return 1 - self.slope * t

        def sigma(self, t: Tensor) -> Tensor:
            return t

    own = Own(0.5)
    first = noise_ratio(own, T)
    own.slope = 0.25
    assert noise_ratio(own, T) < first
