import math

import pytest
import torch
from torch import Tensor

from lavps_cli.metrics.cmmd import cmmd


def sets(n: int, m: int, shift: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(n, 6, generator=generator)
    b = torch.randn(m, 6, generator=generator) + shift
    return a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)


@pytest.mark.parametrize(("n", "m"), [(5, 5), (4, 9)])
def test_it_is_the_naive_double_sum(n: int, m: int) -> None:
    a, b = sets(n, m, 0.5)

    def mean(x: Tensor, y: Tensor) -> float:
        total = 0.0
        for p in x.double():
            for q in y.double():
                total += math.exp(-float((p - q).square().sum()) / (2 * 10.0**2))
        return total / (len(x) * len(y))

    expected = mean(a, a) + mean(b, b) - 2 * mean(a, b)
    assert cmmd(a, b) == pytest.approx(expected, abs=1e-12)


def test_equal_sets_are_at_zero_and_others_are_not() -> None:
    a, b = sets(8, 8, 2.0)
    assert cmmd(a, a) == pytest.approx(0, abs=1e-12)
    assert cmmd(a, b) == pytest.approx(cmmd(b, a))
    assert cmmd(a, b) > cmmd(*sets(8, 8, 0.2)) > 0
    assert cmmd(a, a.flip(0)) == pytest.approx(0, abs=1e-12)
