"""Settings of the methods, from cheap to thorough, and what they cost on this machine."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lavps_cli import catalog
from lavps_cli.catalog import PresetName
from lavps_cli.core.likelihood import observe
from lavps_cli.core.noise import Noise
from lavps_cli.operators.denoising import Denoising
from lavps_cli.pipeline.model import Tiling, Weights
from lavps_cli.pipeline.sampling import draw, expected_evaluations, sampler_options

PROBE_STEPS = 4
SIGMA_Y = 0.05


def trained_ratio(weights: Weights, method: str) -> float | None:
    """Return r_switch of the inference model that a method uses, None where it uses none."""
    return weights.switch_ratio if catalog.sampler(method).inference == "inference" else None


def ladder(weights: Weights, method: str, extra: Sequence[str] = ()) -> list[Any]:
    """Return settings of a method, by number of steps; `extra` is what all have in common.

    They stand in for a calibration. The inference model serves throughout where there are few
    steps, and in the later half where there are more, as in the presets.
    """
    trained = trained_ratio(weights, method)
    return [
        sampler_options(method, preset_of(steps), (f"num_steps={steps}", *extra), trained)
        for steps in catalog.sampler(method).steps
    ]


def preset_of(num_steps: int) -> PresetName:
    """Return the preset whose other options suit a number of steps."""
    return "fast" if num_steps <= 15 else "balanced"


def units(weights: Weights, method: str, options: Any) -> float:
    """Return the cost of an image in forward evaluations, if every start is accepted."""
    nfe, nbe = expected_evaluations(
        method, options, warm=trained_ratio(weights, method) is not None
    )
    return float(nfe + 2 * nbe)


@dataclass(frozen=True)
class Speed:
    """How fast a method is on this machine, at one size of pictures."""

    seconds_per_unit: float
    pixels: int

    def predict(self, cost: float, pixels: int | None = None) -> float:
        """Return the seconds of an image; the time is taken as proportional to its pixels."""
        scale = 1.0 if pixels is None else pixels / self.pixels
        return self.seconds_per_unit * cost * scale


def probe(weights: Weights, method: str, size: int, *, repeats: int = 3) -> Speed:
    """Return the speed of a method, by a few short runs after one that warms up.

    Args:
        weights: The networks.
        method: A name in the catalogue.
        size: Side of the picture of noise that is restored.
        repeats: Runs; their median counts.
    """
    trained, steps = trained_ratio(weights, method), catalog.sampler(method).steps
    number = PROBE_STEPS if len(steps) > 1 else steps[0]
    options = sampler_options(method, "fast", (f"num_steps={number}",), trained)
    x = torch.zeros(1, 3, size, size, device=weights.device)
    likelihood = observe(Denoising(), x, SIGMA_Y, Noise([0], weights.device))
    model, found = weights.model(Tiling(0, 0)), []
    for turn in range(repeats + 1):
        drawn = draw(model, likelihood, options, method=method, shape=(3, size, size), seeds=[0])
        if turn:
            found.append(drawn.seconds / (drawn.nfe + 2 * drawn.nbe))
    return Speed(statistics.median(found), size * size)


def within(
    weights: Weights, method: str, options: Sequence[Any], speed: Speed, budget: float, most: int
) -> list[Any]:
    """Return at most so many settings that should fit a budget of seconds, dearest last."""
    fit = [o for o in options if speed.predict(units(weights, method, o)) <= budget]
    return fit[-most:]
