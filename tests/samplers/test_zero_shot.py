"""The common zero-shot samplers on priors whose posterior is known.

Each is held to what is true of it: without an observation all but RED-diff draw from the prior, the
null-space methods keep a clean observation, RED-diff seeks a mode.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from jaxtyping import config
from torch import Tensor

from lavps_cli import catalog
from lavps_cli.core.denoiser import CountedDenoiser, denoised
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.schedule import SCHEDULES, ratio_grid
from lavps_cli.core.step import Step
from lavps_cli.errors import UsageError
from lavps_cli.models.analytic import GaussianPrior
from lavps_cli.operators.bicubic import BicubicDownsampling
from lavps_cli.operators.blur import Blur
from lavps_cli.operators.inpainting import Inpainting
from lavps_cli.operators.kernels import line_kernel
from lavps_cli.operators.super_resolution import SuperResolution
from lavps_cli.samplers.diffpir import DiffpirOptions, diffpir

CPU = torch.device("cpu")
SHAPE = (3, 8, 8)
NAMES = ("ddrm", "ddnm", "pigdm", "diffpir", "daps", "reddiff", "mgps")
SPREAD = {
    "ddrm": (0.5, 0.9), "ddnm": (0.6, 0.9), "pigdm": (0.75, 1.1), "diffpir": (0.7, 1.1),
    "daps": (1.2, 2.3), "mgps": (0.5, 1.1),
}  # fmt: skip
"""Variance of what is not measured, relative to the prior's. DDRM and DDNM+ damp their noise (eta
0.85), and DAPS adds that of a level to a sample of the flow, which has its own."""
MASK = Inpainting((torch.arange(64).view(1, 8, 8) % 2).double())


@pytest.fixture(autouse=True)
def _unchecked() -> Iterator[None]:
    """Checking annotations takes most of the time of small problems; other tests do it."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


class Pooled(Noise):
    """All images from one generator: fast where nobody asks for a single image again."""

    def __init__(self, count: int) -> None:
        super().__init__([], CPU)
        self._count, self._generator = count, torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return self._count

    def normal(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(self._count, *shape, generator=self._generator, dtype=dtype)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian(variance: float = 0.25, mean: float = 0.2, schedule: str = "flow") -> GaussianPrior:
    return GaussianPrior(torch.full(SHAPE, mean).double(), variance, SCHEDULES[schedule])


def sampled(
    name: str, prior: GaussianPrior, likelihood: Likelihood, count: int, **settings: Any
) -> Tensor:
    entry = catalog.SAMPLERS[name]
    y = likelihood.y.expand(count, *likelihood.y.shape[1:])
    return catalog.resolve(entry.function)(
        prior, Likelihood(y, likelihood.A, likelihood.sigma_y),
        catalog.resolve(entry.options)(**settings), shape=(count, *SHAPE), noise=Pooled(count),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["pigdm", "diffpir", "daps", "mgps", "ddrm", "ddnm"])
def test_without_an_observation_they_draw_from_the_prior(name: str) -> None:
    prior, nothing = gaussian(), Inpainting(torch.zeros(1, 8, 8).double())
    likelihood = Likelihood(torch.zeros(1, *SHAPE).double(), nothing, 0.1)
    steps = {"daps": 60, "mgps": 50}.get(name, 150)
    x = sampled(name, prior, likelihood, 40 if name == "mgps" else 100, num_steps=steps)
    assert (x.mean() - 0.2).abs() < 0.05
    low, high = SPREAD[name]
    assert low < x.var() / 0.25 < high


@pytest.mark.parametrize("name", ["ddrm", "ddnm"])
@pytest.mark.parametrize("A", [MASK, SuperResolution(2)], ids=["mask", "sr"])
def test_a_clean_observation_is_kept_and_the_rest_is_of_the_prior(name: str, A: Any) -> None:
    prior, x = gaussian(), random(1, *SHAPE, seed=1)
    out = sampled(name, prior, Likelihood(A(x), A, 1e-6), 200, num_steps=100)
    # What is left is noise of the last level, 0.01.
    assert (A(out) - A(x)).abs().max() < 0.06
    free = A.spectral(lambda s: (s == 0).to(s), out - prior.mean)
    share = A.spectral(lambda s: (s == 0).to(s), random(4000, *SHAPE)).var()
    low, high = SPREAD[name]
    assert low < free.var() / (0.25 * share) < high


@pytest.mark.parametrize("name", ["ddrm", "ddnm", "pigdm", "diffpir", "daps", "mgps"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_posterior_is_found_but_for_each_ones_bias(name: str, schedule: str) -> None:
    prior, sigma_y = gaussian(schedule=schedule), 0.2
    likelihood = Likelihood(MASK(0.2 + 0.5 * random(1, *SHAPE, seed=1)), MASK, sigma_y)
    steps = {"ddrm": 50, "mgps": 25, "daps": 30}.get(name, 100)
    x = sampled(name, prior, likelihood, 100 if name == "mgps" else 300, num_steps=steps)
    exact = prior.posterior(likelihood)
    # 0.5 away from the observation lies the prior's mean.
    assert (x.mean(0) - exact.mean).abs().mean() < {"mgps": 0.145}.get(name, 0.09)
    low, high = SPREAD[name]
    assert low < x[:, :, MASK.mask[0] == 0].var() / 0.25 < high


@pytest.mark.parametrize("A", [MASK, SuperResolution(2)], ids=["mask", "sr"])
def test_ddnm_meets_an_observation_without_noise_exactly(A: Any) -> None:
    x = random(1, *SHAPE, seed=1)
    out = sampled("ddnm", gaussian(), Likelihood(A(x), A, 0.0), 20, num_steps=20)
    assert (A(out) - A(x)).abs().max() < 1e-12
    assert out.std(0).mean() > 0.15


@pytest.mark.parametrize("A", [MASK, SuperResolution(2)], ids=["mask", "sr"])
@pytest.mark.parametrize("eta", [0.5, 0.85])
def test_ddnm_is_ddrm_but_for_where_it_starts(A: Any, eta: float) -> None:
    likelihood = Likelihood(A(random(1, *SHAPE, seed=1)), A, 0.3)
    of_ddnm, of_ddrm = (
        sampled(name, gaussian(), likelihood, 10, num_steps=20, eta=eta)
        for name in ("ddnm", "ddrm")
    )
    assert (of_ddnm - of_ddrm).abs().max() < 1e-3


def test_ddnm_counts_the_noise_of_y_against_the_whole_level() -> None:
    """The variance of known pixels, sigma_y 0.3, prior of variance 1; 0.03 by equation (19)."""
    prior, likelihood = gaussian(1.0), Likelihood(MASK(random(1, *SHAPE, seed=1)), MASK, 0.3)
    x = sampled("ddnm", prior, likelihood, 300, num_steps=100)
    exact = prior.posterior(likelihood)
    known = MASK.mask[0] == 1
    ratio = x[:, :, known].var(0).mean() / exact.covariance.diag().view(SHAPE)[:, known].mean()
    assert ratio == pytest.approx(0.303, rel=0.05)
    assert (x.mean(0) - exact.mean)[:, known].abs().mean() < 0.05


def test_daps_is_as_wide_as_its_choice_of_the_variance_makes_it() -> None:
    """Where y says nothing, the flow solved well: V' = V v / (v + r^2) + r^2 + r'^2 at a level."""
    num_steps, v, high, low = 20, 1.0, 10.0, 0.1
    place = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    levels = (high ** (1 / 7) + place * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    V = levels[0] ** 2
    for r, r_next in zip(levels, [*levels[1:], torch.tensor(0.0)], strict=True):
        V = V * v / (v + r**2) + r**2 + r_next**2
    nothing = Inpainting(torch.zeros(1, 8, 8).double())
    likelihood = Likelihood(torch.zeros(1, *SHAPE).double(), nothing, 0.1)
    x = sampled(
        "daps", gaussian(v), likelihood, 40,
        num_steps=num_steps, ratio_max=high, ratio_min=low, flow_steps=50,
    )  # fmt: skip
    assert V > 2
    assert x.var() / V == pytest.approx(1, rel=0.1)  # Measured: 0.93, the flow being short.


@pytest.mark.parametrize("lr", [0.1, 1.0])
def test_daps_by_langevin_is_daps_drawn_exactly_but_wider_by_its_step(lr: float) -> None:
    """One level, from the same flow: x_0 given the observation, by either way."""
    prior, sigma_y, r = gaussian(), 0.05, 0.3
    likelihood = Likelihood(MASK(random(1, *SHAPE, seed=1)), MASK, sigma_y)
    level = {"num_steps": 1, "ratio_max": r, "ratio_min": 0.1}
    exact = sampled("daps", prior, likelihood, 200, **level)
    langevin = sampled("daps", prior, likelihood, 200, **level, langevin_steps=60, lr=lr)
    known = MASK.mask[0] == 1
    exact, langevin = exact[:, :, known], langevin[:, :, known]
    assert (exact.mean(0) - langevin.mean(0)).abs().mean() < 0.01
    wider = langevin.var(0).mean() / exact.var(0).mean()
    assert wider == pytest.approx(1 / (1 - lr / 2), rel=0.05)


@pytest.mark.parametrize("strength", [0.25, 1.75])
def test_diffpir_takes_x0_for_normal_with_variance_r2_over_strength(strength: float) -> None:
    prior, likelihood = gaussian(schedule="vp"), Likelihood(MASK(random(1, *SHAPE)), MASK, 0.1)
    steps: list[Step] = []
    options = DiffpirOptions(num_steps=10, strength=strength)
    diffpir(prior, likelihood, options, shape=(1, *SHAPE), noise=Pooled(1), on_step=steps.append)
    for (before, after), r in zip(pairwise(steps), ratio_grid(10, 0.5)[1:-1], strict=True):
        centre = denoised(prior, before.xt, r)[0]
        x0 = GaussianPrior(centre, r.item() ** 2 / strength, prior.schedule).posterior(likelihood)
        torch.testing.assert_close(after.x0[0], x0.mean)


@pytest.mark.parametrize("second_fit", [0.0, 2.0])
def test_mgps_finds_the_mean_with_a_second_fit_and_without(second_fit: float) -> None:
    prior, likelihood = gaussian(), Likelihood(MASK(random(1, *SHAPE, seed=1)), MASK, 0.2)
    settings = {"num_steps": 20, "grad_steps": 10, "lr": 0.1, "second_fit": second_fit}
    x = sampled("mgps", prior, likelihood, 40, **settings)
    known = MASK.mask[0] == 1
    off = (x.mean(0) - prior.posterior(likelihood).mean)[:, known].abs().mean()
    assert off < 0.25  # Measured: 0.18 and 0.21; the prior's mean is 0.72 away.


def test_mgps_goes_on_from_the_step_before() -> None:
    """Single gradient steps add up: each step begins at the x_0 of the one before."""
    prior, x = gaussian(), random(1, *SHAPE, seed=1)
    likelihood = Likelihood(MASK(x), MASK, 0.05)
    settings = {"num_steps": 60, "grad_steps": 1, "grad_steps_often": 1, "lr": 0.1}
    out = sampled("mgps", prior, likelihood, 20, **settings)
    # Measured: 0.37; 0.56 where each begins at D(x_t) anew.
    assert (out.mean(0) - x[0])[:, MASK.mask[0] == 1].abs().mean() < 0.45


def test_reddiff_seeks_a_mode() -> None:
    """Its samples hardly differ, where those of the posterior do, and it fits the observation."""
    prior, x = gaussian(), 0.2 + 0.5 * random(1, *SHAPE, seed=1)
    out = sampled("reddiff", prior, Likelihood(MASK(x), MASK, 0.05), 50, num_steps=400)
    free = out[:, :, MASK.mask[0] == 0]
    assert free.std(0).mean() < 0.7 * 0.5
    assert (free.mean() - 0.2).abs() < 0.05
    assert (MASK(out) - MASK(x)).abs().mean() < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_evaluations_are_those_made(name: str) -> None:
    entry = catalog.SAMPLERS[name]
    options = catalog.resolve(entry.options)(num_steps=11)
    denoiser = CountedDenoiser(gaussian(), 2)
    likelihood = Likelihood(MASK(random(2, *SHAPE, seed=1)), MASK, 0.1)
    catalog.resolve(entry.function)(
        denoiser, likelihood, options, shape=(2, *SHAPE), noise=Noise([0, 1], CPU)
    )
    assert (denoiser.nfe, denoiser.nbe) == catalog.resolve(entry.evaluations)(options, False)


@pytest.mark.parametrize("name", NAMES)
def test_blurs_are_undone_or_refused_with_the_reason(name: str) -> None:
    x = random(1, *SHAPE, seed=1)
    circular, reflect = (Blur(line_kernel(3, 0), b) for b in ("circular", "reflect"))
    out = sampled(name, gaussian(), Likelihood(circular(x), circular, 0.05), 1, num_steps=10)
    assert out.isfinite().all()
    for A in (reflect, BicubicDownsampling(2)):
        likelihood = Likelihood(A(x), A, 0.05)
        if name in ("ddrm", "ddnm"):
            with pytest.raises(UsageError, match="singular vectors") as error:
                sampled(name, gaussian(), likelihood, 1, num_steps=3)
            assert "daps" in error.value.hint
        else:
            assert sampled(name, gaussian(), likelihood, 1, num_steps=3).isfinite().all()


@pytest.mark.parametrize("name", ["ddrm", "ddnm", "pigdm", "diffpir", "daps"])
def test_operators_that_are_not_linear_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        sampled(name, gaussian(), Likelihood(random(1, *SHAPE), torch.tanh, 0.1), 1, num_steps=3)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("ddrm", {"eta": 1.5}), ("ddrm", {"num_steps": 0}), ("ddnm", {"num_steps": 0}),
        ("pigdm", {"eta": -0.1}), ("diffpir", {"zeta": 2.0}), ("diffpir", {"strength": 0.0}),
        ("daps", {"ratio_min": 200.0}), ("daps", {"flow_steps": 0}), ("daps", {"lr": 0.0}),
        ("reddiff", {"lr": -1.0}), ("mgps", {"midpoint": 1.0}), ("mgps", {"grad_steps": -1}),
        ("mgps", {"second_fit": -0.1}), ("ddnm", {"eta": 1.1}),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        catalog.resolve(catalog.SAMPLERS[name].options)(**wrong)
