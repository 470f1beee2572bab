"""How many pictures a step holds at once: what bounds the size of a photograph."""

from dataclasses import replace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from lavps_cli import catalog
from lavps_cli.core.gaussian import DiagonalGaussian
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.schedule import Flow
from lavps_cli.core.types import Image, Time
from lavps_cli.core.variational import Context
from lavps_cli.models.tiled import blend_windows
from lavps_cli.operators.denoising import Denoising
from lavps_cli.operators.super_resolution import SuperResolution
from lavps_cli.samplers.lavps import LavpsOptions, lavps

CPU, SIDE = torch.device("cpu"), 256
PICTURE = 3 * SIDE * SIDE * 4


class Halving:
    """A prior that holds nothing but its result."""

    schedule = Flow()

    def __call__(self, xt: Image, t: Time) -> Image:
        return 0.5 * xt


def predicting(c: Context) -> DiagonalGaussian:
    return DiagonalGaussian(c.bridge.mu + 0.1, 0.9 * c.bridge.rho)


def peak(profiled: profile) -> float:
    """Return the most that was held at once, in pictures."""
    held = most = 0
    for event in profiled.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most / PICTURE


def memory() -> profile:
    return profile(activities=[ProfilerActivity.CPU], profile_memory=True)


@pytest.mark.parametrize(("grad_steps", "predicted", "most"), [(0, True, 13.5), (2, False, 13.5)])
def test_a_step_holds_so_many_pictures(grad_steps: int, predicted: bool, most: float) -> None:
    options = LavpsOptions(
        num_steps=5, grad_steps_start=grad_steps, grad_steps_end=grad_steps, switch_ratio=0.0
    )
    likelihood = Likelihood(torch.zeros(1, 3, SIDE, SIDE), Denoising(), 0.1)
    with memory() as profiled:
        lavps(
            Halving(), likelihood, options, shape=(1, 3, SIDE, SIDE), noise=Noise([0], CPU),
            inference=predicting if predicted else None,
        )  # fmt: skip
    assert 4 < peak(profiled) < most


@pytest.mark.parametrize("name", [n for n, s in catalog.SAMPLERS.items() if s.trained is None])
def test_the_catalogue_tells_how_many_pictures_a_sampler_holds(name: str) -> None:
    entry = catalog.sampler(name)
    options = catalog.resolve(entry.options)(**entry.presets["fast"].cold)
    if name != "latino":
        options = replace(options, num_steps=3)
    entries = []
    for A, shape in ((Denoising(), (SIDE, SIDE)), (SuperResolution(4), (SIDE // 4, SIDE // 4))):
        likelihood = Likelihood(torch.zeros(1, 3, *shape), A, 0.1)
        with memory() as profiled:
            catalog.resolve(entry.function)(
                Halving(), likelihood, options, shape=(1, 3, SIDE, SIDE), noise=Noise([0], CPU)
            )
        entries.append(peak(profiled))
    assert entry.pictures - 2.5 < max(entries) < entry.pictures + 0.5


@pytest.mark.parametrize("gradient", [False, True])
def test_windows_do_not_gather(gradient: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that holds 20 pictures of its input holds them of a window at a time."""
    monkeypatch.setattr("lavps_cli.models.tiled.CALL_PIXELS", 64**2)
    monkeypatch.setattr("lavps_cli.models.tiled.KEPT_PIXELS", 64**2)

    def network(x: torch.Tensor) -> torch.Tensor:
        for _ in range(20):
            x = x.sin()
        return x

    x = torch.zeros(1, 3, SIDE, SIDE, requires_grad=gradient)
    with memory() as profiled:
        out = blend_windows(network, x, tile=64, overlap=8, multiple=1)
        if gradient:
            out.sum().backward()
    assert 1 < peak(profiled) < (6 if gradient else 3)


def test_the_gradient_of_many_windows_costs_what_they_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window's gradient takes no picture of zeros: what is allocated grows with the windows."""
    monkeypatch.setattr("lavps_cli.models.tiled.CALL_PIXELS", 1)
    monkeypatch.setattr("lavps_cli.models.tiled.KEPT_PIXELS", 0)

    def allocated(side: int) -> float:
        x = torch.zeros(1, 3, side, side, requires_grad=True)
        with memory() as profiled:
            blend_windows(torch.sin, x, tile=16, overlap=2, multiple=1).sum().backward()
        events = profiled.profiler.kineto_results.events()  # type: ignore[union-attr]
        sizes = [event.nbytes() for event in events if event.name() == "[memory]"]
        return sum(size for size in sizes if size > 0) / side**2

    assert allocated(128) < 1.2 * allocated(64)
