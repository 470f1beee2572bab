"""What every sampler owes, over the catalogue."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from jaxtyping import config
from torch import Tensor

from lavps_cli import catalog
from lavps_cli.core.denoiser import CountedDenoiser, Denoiser
from lavps_cli.core.gaussian import DiagonalGaussian
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.operator import Gain
from lavps_cli.core.schedule import SCHEDULES, Flow
from lavps_cli.core.step import Step
from lavps_cli.core.variational import Context, InferenceModel
from lavps_cli.errors import LavpsError, UsageError
from lavps_cli.models.analytic import GaussianPrior, MixturePrior
from lavps_cli.samplers.dps import DpsOptions, dps
from lavps_cli.samplers.lavps import LavpsOptions, early_steps, evaluations, lavps

CPU = torch.device("cpu")
SHAPE = (1, 3, 4)
SIGMA_Y = 0.2


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask of its own for each image."""

    mask: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return self.mask * x

    def adjoint(self, y: Tensor) -> Tensor:
        return self.mask * y

    def ridge(self, y: Tensor, lam: Tensor | float) -> Tensor:
        return self.mask * y / (1 + lam)

    def spectral(self, gain: Gain, x: Tensor) -> Tensor:
        seen, unseen = gain(torch.tensor([1.0, 0.0], dtype=torch.float64))
        return unseen * x + (seen - unseen) * self.mask * x


@dataclass(frozen=True)
class Nudged:
    """An inference model good for some images and bad for others, whatever their batch."""

    def __call__(self, c: Context) -> DiagonalGaussian:
        pull = c.likelihood.A.mask * (c.likelihood.y - c.x0).sign()
        return DiagonalGaussian(c.bridge.mu + 0.5 * c.bridge.rho.sqrt() * pull, 0.8 * c.bridge.rho)


@dataclass(frozen=True)
class OneStep:
    """A flow: z moves and scales around an observation."""

    y: Tensor
    schedule = Flow()

    def __call__(self, z: Tensor, t: Tensor) -> Tensor:
        return self.y + 0.3 * z


PRIOR = MixturePrior(random(3, *SHAPE, seed=1), torch.full((3,), 1 / 3).double(), 0.1, Flow())
SEEDS = [11, 3, 7, 5]
Y = 0.5 * random(4, *SHAPE, seed=2)
MASKS = (random(4, *SHAPE, seed=3) > -0.3).double()

each_sampler = pytest.mark.parametrize("name", catalog.SAMPLERS)


def sample(name: str, rows: list[int], *, settings: dict[str, Any] | None = None) -> Tensor:
    """The samples of some images, by their own seeds, masks and observations."""
    entry = catalog.SAMPLERS[name]
    cls = catalog.resolve(entry.options)
    given = {"grad_steps_often": 2} | (settings or {})
    known = {k: v for k, v in given.items() if k in cls.__dataclass_fields__}
    only = entry.steps[0] if len(entry.steps) == 1 else 12
    options = cls(**({"num_steps": only} | known))
    extra = {"inference": Nudged()} if entry.inference == "inference" else {}
    return catalog.resolve(entry.function)(
        OneStep(MASKS[rows] * Y[rows]) if name == "aps" else PRIOR,
        Likelihood(MASKS[rows] * Y[rows], Mask(MASKS[rows]), SIGMA_Y),
        options,
        shape=(len(rows), *SHAPE),
        noise=Noise([SEEDS[row] for row in rows], CPU),
        **extra,
    )


@each_sampler
def test_result_has_the_shape_and_precision_asked_for(name: str) -> None:
    x = sample(name, [0, 1])
    assert x.shape == (2, *SHAPE)
    assert x.dtype == torch.float64
    assert not x.requires_grad
    assert x.isfinite().all()


@each_sampler
def test_seeds_fix_the_result_and_different_seeds_differ(name: str) -> None:
    assert torch.equal(sample(name, [0, 1]), sample(name, [0, 1]))
    x = sample(name, [0, 1])
    assert (x[0] - x[1]).abs().max() > 0.01


@each_sampler
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_denoise": 3, "num_gibbs": 2, "grad_steps_start": 3, "switch_ratio": 0.3},
        {"coordinates": "raw", "lr": 0.03, "renoise": "forward", "grid": "vp"},
        {"stochastic": False, "num_denoise": 3},
        {"grad_steps_start": 2, "grad_steps_end": 0, "switch_ratio": 0.2, "switch_back": 0.7},
        {"grad_steps_end": 0, "switch_ratio": 0.0, "settle": 1},
    ],
    ids=["defaults", "repeated", "printed", "eta0", "amortised", "settled"],
)
def test_an_image_depends_neither_on_its_batch_nor_on_its_place(
    name: str, settings: dict[str, Any]
) -> None:
    together = sample(name, [0, 1, 2, 3], settings=settings)
    for rows in ([0], [1], [2], [3], [3, 1]):
        torch.testing.assert_close(sample(name, rows, settings=settings), together[rows])


@each_sampler
def test_the_global_generator_is_neither_used_nor_moved(name: str) -> None:
    state = torch.random.get_rng_state()
    first = sample(name, [0])
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(7)
    assert torch.equal(sample(name, [0]), first)


def run(
    options: LavpsOptions, inference: InferenceModel | None = None, prior: Denoiser = PRIOR
) -> tuple[Tensor, list[Step], CountedDenoiser]:
    steps: list[Step] = []
    denoiser = CountedDenoiser(prior, 2)
    x = lavps(
        denoiser,
        Likelihood(MASKS[:2] * Y[:2], Mask(MASKS[:2]), SIGMA_Y),
        options,
        shape=(2, *SHAPE),
        noise=Noise(SEEDS[:2], CPU),
        inference=inference,
        on_step=steps.append,
    )
    return x, steps, denoiser


@pytest.mark.parametrize("num_steps", [3, 12])
def test_every_step_is_reported_once_and_the_last_one_is_the_result(num_steps: int) -> None:
    x, steps, _ = run(LavpsOptions(num_steps=num_steps))
    assert [step.done for step in steps] == list(range(1, num_steps - 1))
    assert all(step.total == num_steps - 2 for step in steps)
    assert torch.equal(steps[-1].x0, x)


def test_the_model_is_asked_in_the_last_part_of_the_grid_only() -> None:
    _, steps, _ = run(LavpsOptions(num_steps=20, switch_ratio=0.7), Nudged())
    # k runs from 19 to 2; script-T is k <= 6.
    assert [step.accepted is not None for step in steps] == [False] * 13 + [True] * 5
    assert all(step.accepted.shape == (2,) for step in steps[13:])
    _, steps, _ = run(LavpsOptions(num_steps=20, switch_ratio=0.7))
    assert all(step.accepted is None for step in steps)


def test_script_t_may_end_before_the_last_times() -> None:
    options = LavpsOptions(
        num_steps=20, grad_steps_start=1, grad_steps_end=0, switch_ratio=0.2, switch_back=0.7
    )
    _, steps, denoiser = run(options, Always())
    # Script-T is 6 < k <= 16.
    assert [step.accepted is not None for step in steps] == [False] * 3 + [True] * 10 + [False] * 5
    assert (denoiser.nfe, denoiser.nbe) == (1 + 2 * 8 + 2 * 10, 8)
    nfe, nbe = evaluations(options, warm=True)
    assert (nfe, nbe) == (denoiser.nfe + 10, denoiser.nbe)  # With those of the model itself.
    nowhere, _, _ = run(replace(options, switch_back=0.2), Nudged())
    assert torch.equal(nowhere, run(replace(options, switch_ratio=1.0))[0])


@pytest.mark.parametrize("with_model", [False, True])
def test_evaluations_are_those_of_algorithm_2(with_model: bool) -> None:
    options = LavpsOptions(
        num_steps=10,
        grad_steps_start=2,
        grad_steps_end=3,
        num_denoise=4,
        num_gibbs=2,
        switch_ratio=0.6,
    )
    _, _, denoiser = run(options, Nudged() if with_model else None)
    early, late = 5, 3  # k = 9 ... 5 and 4 ... 2
    gradients = 2 * (2 * early + 3 * late)
    assert denoiser.nbe == gradients
    safeguard = 2 * 2 * late if with_model else 0
    assert denoiser.nfe == 1 + gradients + 2 * 4 * (early + late) + safeguard


@dataclass(frozen=True)
class Always:
    """An inference model whose prediction is the bridge, which ties and so is kept."""

    def __call__(self, c: Context) -> DiagonalGaussian:
        return c.bridge


class OneByOne:
    """The prior, to which the number of pictures makes no difference, not even of rounding."""

    schedule = PRIOR.schedule

    def __call__(self, xt: Tensor, t: Tensor) -> Tensor:
        return torch.cat([PRIOR(x[None], t) for x in xt])


ALONE = OneByOne()


@dataclass(frozen=True)
class Never:
    def __call__(self, c: Context) -> DiagonalGaussian:
        return DiagonalGaussian(c.bridge.mu + 100, c.bridge.rho)


def test_an_accepted_start_costs_the_safeguard_and_nothing_more() -> None:
    options = LavpsOptions(
        num_steps=10, grad_steps_start=1, grad_steps_end=0, num_denoise=1, switch_ratio=0.6
    )
    early, late = 5, 3
    _, steps, denoiser = run(options, Always())
    assert all(step.accepted.all() for step in steps[early:])
    assert denoiser.nbe == early
    assert denoiser.nfe == 1 + 2 * early + 2 * late


@pytest.mark.parametrize("settle", [1, 2, 5])
def test_settled_images_save_evaluations_and_change_nothing(settle: int) -> None:
    options = LavpsOptions(
        num_steps=10, grad_steps_start=1, grad_steps_end=0, switch_ratio=0.4, settle=settle
    )
    x, _, denoiser = run(options, Always(), ALONE)
    assert torch.equal(x, run(replace(options, settle=0), Always(), ALONE)[0])
    early, late = 3, 5
    assert denoiser.nfe == 1 + 2 * early + late + settle
    assert evaluations(options, warm=True) == (denoiser.nfe + late, early)


def test_an_image_that_falls_back_never_settles() -> None:
    options = LavpsOptions(num_steps=10, switch_ratio=0.4, settle=1)
    x, steps, denoiser = run(options, Never())
    before, _, compared = run(replace(options, settle=0), Never())
    assert torch.equal(x, before)
    assert denoiser.nfe == compared.nfe
    assert not any(step.accepted.any() for step in steps[3:])


def test_each_image_settles_by_itself() -> None:
    options = LavpsOptions(num_steps=12, switch_ratio=0.0, grad_steps_end=0, settle=2)
    _, steps, denoiser = run(options, Nudged())
    _, _, compared = run(replace(options, settle=0), Nudged())
    accepted = torch.stack([step.accepted for step in steps])
    for image in accepted.T.tolist():
        settled = next((i for i in range(2, 11) if all(image[i - 2 : i])), 10)
        assert all(image[settled:])
    assert denoiser.nfe < compared.nfe


def test_an_image_that_falls_back_is_given_the_steps_of_mgdm() -> None:
    options = LavpsOptions(
        num_steps=10, grad_steps_start=2, grad_steps_end=0, num_denoise=1, switch_ratio=0.6
    )
    early, late = 5, 3
    _, steps, denoiser = run(options, Never())
    assert not any(step.accepted.any() for step in steps[early:])
    assert denoiser.nbe == 2 * (early + late)
    assert denoiser.nfe == 1 + 3 * early + (2 + 3) * late


def test_mgdm_is_lavps_that_never_asks_its_model() -> None:
    options = LavpsOptions(num_steps=12, switch_ratio=1.0)
    with_model, _, _ = run(options, Nudged())
    without, _, _ = run(options)
    assert torch.equal(with_model, without)


def test_precision_is_that_of_the_observation() -> None:
    likelihood = Likelihood((MASKS[:2] * Y[:2]).float(), Mask(MASKS[:2].float()), SIGMA_Y)
    options = LavpsOptions(num_steps=12)
    x = lavps(PRIOR, likelihood, options, shape=(2, *SHAPE), noise=Noise(SEEDS[:2], CPU))
    assert x.dtype == torch.float32


def test_a_run_that_diverges_says_at_which_step() -> None:
    broken = GaussianPrior(torch.full(SHAPE, float("nan")), 0.1, Flow())
    likelihood = Likelihood(MASKS[:1] * Y[:1], Mask(MASKS[:1]), SIGMA_Y)
    with pytest.raises(LavpsError, match="at step 1") as error:
        lavps(broken, likelihood, LavpsOptions(), shape=(1, *SHAPE), noise=Noise([0], CPU))
    assert error.value.hint


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Annotations are checked in tests only; users meet the options' own checks."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_steps", 2),
        ("num_denoise", 0),
        ("num_gibbs", 0),
        ("grad_steps_start", -1),
        ("grad_steps_end", -1),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("switch_ratio", -0.1),
        ("switch_ratio", 1.1),
        ("switch_back", 1.1),
        ("grid", "cosine"),
        ("renoise", "again"),
        ("coordinates", "polar"),
    ],
)
def test_options_refuse_nonsense(name: str, value: Any, unchecked: None) -> None:
    with pytest.raises(UsageError, match=name):
        LavpsOptions(**{name: value})
    with pytest.raises(UsageError, match=name):
        replace(LavpsOptions(), **{name: value})


@pytest.mark.parametrize("after", [1, 4, 8])
@pytest.mark.parametrize("ratio", [0.2, 0.6])
def test_a_run_begun_from_a_step_of_another_is_that_run(after: int, ratio: float) -> None:
    """Configurations that differ only inside script-T share all steps before it, bit for bit."""
    options = LavpsOptions(num_steps=12, switch_ratio=ratio, num_denoise=2)
    likelihood = Likelihood(MASKS * Y, Mask(MASKS), SIGMA_Y)
    noise = Noise(SEEDS, CPU)
    kept: dict[int, tuple[Step, Noise]] = {}

    def keep(step: Step) -> None:
        kept[step.done] = (step, noise.fork())

    whole = lavps(
        PRIOR, likelihood, options, shape=(4, *SHAPE), noise=noise, inference=Nudged(), on_step=keep
    )
    step, fork = kept[after]
    seen: list[int] = []
    rest = lavps(
        PRIOR, likelihood, options, shape=(4, *SHAPE), noise=fork.fork(), inference=Nudged(),
        begun=step,
        on_step=lambda step: seen.append(step.done),
    )  # fmt: skip
    assert torch.equal(rest, whole)
    assert seen == list(range(after + 1, 11))

    early = early_steps(options)
    if early:
        other = replace(options, grad_steps_end=3, lr_end=0.2)
        step, fork = kept[early]
        direct = lavps(PRIOR, likelihood, other, shape=(4, *SHAPE), noise=Noise(SEEDS, CPU))
        branch = lavps(PRIOR, likelihood, other, shape=(4, *SHAPE), noise=fork, begun=step)
        assert torch.equal(branch, direct)
        assert not torch.equal(branch, whole)


def test_dps_means_the_same_under_every_schedule() -> None:
    """A schedule only scales x_t: the samples of equal noise are about equal."""
    found = []
    for schedule in SCHEDULES.values():
        prior = GaussianPrior(PRIOR.means[0], 0.25, schedule)
        found.append(
            dps(
                prior, Likelihood(MASKS * Y, Mask(MASKS), SIGMA_Y), DpsOptions(num_steps=20),
                shape=(4, *SHAPE), noise=Noise(SEEDS, CPU),
            )
        )  # fmt: skip
    torch.testing.assert_close(found[0], found[1], atol=0.02, rtol=0)


def test_dps_without_guidance_draws_from_the_prior() -> None:
    prior = GaussianPrior(torch.full((1, 1, 1), 0.3).double(), 0.25, Flow())
    zero = torch.zeros(4000, 1, 1, 1, dtype=torch.float64)
    x = dps(
        prior, Likelihood(zero, Mask(zero), SIGMA_Y), DpsOptions(num_steps=300, zeta=0.0),
        shape=(4000, 1, 1, 1), noise=Noise(range(4000), CPU),
    )  # fmt: skip
    assert float(x.mean()) == pytest.approx(0.3, abs=4 * 0.5 / 4000**0.5)
    assert float(x.var()) == pytest.approx(0.25, rel=0.1)
