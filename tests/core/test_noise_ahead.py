"""Draws that are made ahead, beside a device that computes: they are those made in turn."""

import random

import pytest
import torch
from torch import Tensor

from lavps_cli.core import noise as module
from lavps_cli.core.noise import Noise

CPU = torch.device("cpu")


def ahead(seeds: list[int]) -> Noise:
    """Return draws as beside a device, delivered on the CPU."""
    noise = Noise(seeds, CPU)
    for stream in noise._streams:
        stream._ahead = True
    return noise


def asked(noise: Noise, seed: int) -> list[Tensor]:
    """Return what a random series of requests is given, forks and other kinds among them."""
    choose, found = random.Random(seed), []
    shapes = [torch.empty(2, 3, 4, 5), torch.empty(2, 1, 7, 2, dtype=torch.float64)]
    for _ in range(60):
        x, request = choose.choice(shapes[: choose.choice((1, 1, 1, 2))]), choose.random()
        if request < 0.7:
            found.append(noise.normal_like(x))
        elif request < 0.9:
            found.append(noise.some_like(x, [choose.random() < 0.5, choose.random() < 0.5]))
        elif request < 0.95:
            found.append(noise.poisson(torch.full((2, 1, 2, 3), 4.0)))
        else:
            found.append(noise.fork().normal_like(x))
    return found


@pytest.mark.parametrize("seed", range(6))
def test_the_numbers_are_those_drawn_in_turn(seed: int) -> None:
    for one, other in zip(asked(ahead([1, 2]), seed), asked(Noise([1, 2], CPU), seed), strict=True):
        assert torch.equal(one, other)


def test_a_fork_draws_the_same_numbers_on() -> None:
    noise, x = ahead([3]), torch.empty(1, 3, 8, 8)
    for _ in range(5):
        noise.normal_like(x)
    other = noise.fork()
    for _ in range(20):
        assert torch.equal(noise.normal_like(x), other.normal_like(x))


def test_of_large_pictures_little_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AHEAD_NUMBERS", 3 * 16 * 16 * 2)
    noise, x = ahead([0]), torch.empty(1, 3, 16, 16)
    for _ in range(9):
        noise.normal_like(x)
        assert len(noise._streams[0]._ready) <= 2


def test_nothing_is_drawn_for_a_single_request() -> None:
    noise = ahead([0])
    noise.normal((3, 4, 4))
    assert noise._streams[0]._coming is None
